"""How many behaviours of a program are checked a second: in C, with a device in Python, and drawn from a profile."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from statistics import median

from pyvfio_user.bridge.explore.replay import Replay
from pyvfio_user.bridge.inprocess import InProcess
from pyvfio_user.bridge.interconnect import (
    PROFILES,
    Behaviours,
    Packets,
    Program,
    Tlp,
    arrives_before,
    behaviours,
    burst,
    final_image,
    in_one_block,
)
from pyvfio_user.devices import Bar, Device, PciId, WriteCombineWindow

from .whole import Found

_IMAGE = bytes(range(1, 65))


class Window:
    """A device with a window of 64 bytes, which notes whether each write is the next one."""

    def __init__(self) -> None:
        self.memory = bytearray(64)
        self.next = 0
        self.in_order = True

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        """What the device does with one memory write."""
        self.in_order &= offset == self.next
        self.next = offset + len(data)
        self.memory[offset : offset + len(data)] = data

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        """What is in the window."""
        return bytes(self.memory[offset : offset + size])


class Kit(Device):
    """A window of the kit, which C writes."""

    identity = PciId(vendor=0x1AF4, device=0x10F0, class_code=0xFF0000)
    bar0 = Bar(WriteCombineWindow(4096))


def orders(repetitions: int, seconds: float) -> list[Found]:
    """The rates, of CPU time on one core: of eight 8-byte stores to one line, which have 545,835 behaviours."""
    found = behaviours(Program.of(burst(0)))
    invariants = [arrives_before(0x0F, 0xF0), in_one_block(0xFF), final_image(0, _IMAGE)]
    packets = Packets(found.effects)
    profile = PROFILES["wc-64x4"]

    def in_c(count: int) -> None:
        assert found.check(invariants, limit=count).count == count

    def in_python(count: int) -> None:
        replay = Replay(found.effects, Window)
        for behaviour in islice(found, count):
            assert replay.run(behaviour).device.memory == _IMAGE

    def in_kit(count: int) -> None:
        with InProcess(Kit()) as device:
            replay = Replay(found.effects, device.restarted)
            for behaviour in islice(found, count):
                assert replay.run(behaviour).device.bar0.memory[:64] == _IMAGE

    def drawn(count: int) -> None:
        for seed in range(count):
            apply(packets(profile.run(found.order, seed)))

    return [
        _rate("behaviours of 8 stores, device check in C", in_c, found, repetitions, seconds, 100_000),
        _rate("behaviours of 8 stores, device in Python", in_python, found, repetitions, seconds, 5_000),
        _rate("behaviours of 8 stores, device of the kit", in_kit, found, repetitions, seconds, 5_000),
        _rate("8 stores through write buffers, device in Python", drawn, found, repetitions, seconds, None),
    ]


def apply(sent: list[Tlp]) -> None:
    """Gives TLPs to a new device, which must have all bytes in the end."""
    device = Window()
    for tlp in sent:
        assert tlp.data is not None
        device.write(0, tlp.address, tlp.data)
    assert device.memory == _IMAGE


def _rate(
    name: str, do: Callable[[int], None], found: Behaviours, repetitions: int, seconds: float, least: int | None
) -> Found:
    count = 1000
    while (taken := _seconds(do, count)) < seconds and count < found.count:
        count = min(found.count, 4 * count)
    rates = [count / taken, *(count / _seconds(do, count) for _ in range(repetitions - 1))]
    value = median(rates)
    target = "" if least is None else f">= {least:,}/s"
    spread = f"[{min(rates):,.0f}..{max(rates):,.0f}] by CPU time, {count:,} each"
    return Found(name, "one core", f"{value:,.0f}/s", spread, target, None if least is None else value >= least)


def _seconds(do: Callable[[int], None], count: int) -> float:
    begun = time.process_time()
    do(count)
    return max(time.process_time() - begun, 1e-6)
