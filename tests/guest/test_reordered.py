"""A driver behind a real QEMU, and a device that sees its posted writes in an order that the types permit."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.explore.live import Live
from pyvfio_user.bridge.explore.served import Assumed, Reordered
from pyvfio_user.devices import Bar, Device, Doorbell, PciId, Register, Registers, WriteCombineWindow
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest

WINDOW, BELL = Assumed(2, 0, 4096, NORMAL_NC), Assumed(0, 0, 16, NGNRE)
WHOLE = b"".join(bytes([at] * 8) for at in (1, 2, 3, 4))


class Control(Registers):
    """A doorbell, and how many entries were sent."""

    bell = Doorbell(0x00)
    sent = Register(0x08)


class Sender(Device):
    """Takes the 32 bytes in the window when the doorbell rings, and clears it."""

    identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    bar2 = Bar(WriteCombineWindow(4096), prefetchable=True)

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []

    @Control.bell.rung
    def take(self, index: int, value: int) -> None:
        self.taken.append(bytes(self.bar2.memory[:32]))
        self.bar2.memory[:32] = bytes(32)
        self.bar0.sent += 1


@pytest.mark.asyncio
async def test_the_seed_decides_what_a_driver_s_entries_come_to(
    serve_device: ServeDevice, qemu_qtest: StartQtest
) -> None:
    sender = Sender()
    front = Reordered(sender, [WINDOW, BELL], seed=0, wait=60)
    machine = await qemu_qtest(await serve_device(front))
    (function,) = await machine.pci.scan()
    bars = await function.place_bars()

    async def send(seed: int) -> bytes:
        front.live = Live(seed)
        for at in range(4):
            await machine.write(bars[2].address + 8 * at, 8, 0x0101_0101_0101_0101 * (at + 1))
        await machine.write(bars[0].address, 4, 1)
        assert await machine.read(bars[0].address + 8, 4) == len(sender.taken)
        front.settle()
        sender.bar2.memory[:32] = bytes(32)
        return sender.taken[-1]

    found = [await send(seed) for seed in range(20)]
    assert WHOLE in found
    assert any(entry != WHOLE for entry in found)
    assert found == [await send(seed) for seed in range(20)]
