"""Timelines to draw, and a device for them."""

from __future__ import annotations

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.explore import Property, explore
from pyvfio_user.bridge.explore.card import Card
from pyvfio_user.bridge.inprocess import InProcess
from pyvfio_user.bridge.interconnect import Profile, Program, burst, dgh, dmb, load, store
from pyvfio_user.bridge.timeline import Timeline, recording
from pyvfio_user.devices import Bar, Device, Doorbell, MsiX, PciId, Registers, WriteCombineWindow

PARTIAL = Profile("partial", drain=0.2, partial=0.7)


class Control(Registers):
    """A doorbell."""

    bell = Doorbell(0x00)


class Nic(Device):
    """Takes the window when the doorbell rings, and interrupts."""

    identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    bar2 = Bar(WriteCombineWindow(4096), prefetchable=True)
    msix = MsiX(1)
    entry = b""

    @Control.bell.rung
    async def send(self, index: int, value: int) -> None:
        self.entry = bytes(self.bar2.memory[:16])
        self.interrupts.fire()

    def on_reset(self) -> None:
        self.entry = b""


def failing() -> Card:
    """A doorbell that overtakes half of an entry."""
    program = Program.of(burst(0, 16, bar=2), dmb("ishst"), store(0, 4, 1, type=NGNRE))
    with InProcess(Nic()) as device:
        card = explore(program, device.restarted, [Property("whole", lambda out: 0 not in out.device.entry)]).card
    assert card is not None
    return card


def buffered(times: int = 1) -> Timeline:
    """Bursts, hints, loads and doorbells through buffers that lose parts."""
    parts = [burst(0x40), dgh(), load(0x48, type=NORMAL_NC), dmb("oshst"), store(0x1000, 4, 1), load(0x1008, 4)]
    parts += [burst(0x80, 32), burst(0x400, 16), store(0xC8, type=NORMAL_NC)]
    return recording(Program.of(*parts * times).events, PARTIAL, 3, title="bursts & <doorbells>")
