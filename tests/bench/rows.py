"""What is measured, and what is to be reached: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Placement(Enum):
    """Who runs where, and who sleeps. Figures of different placements are never compared."""

    SAME = "same core"
    POLLING = "across, both poll"
    BLOCKING = "across, client sleeps"


class Unit(Enum):
    """How a rate is told."""

    RATE = "/s"
    BYTES = "GB/s"
    TIME = "us"


@dataclass(frozen=True)
class Row:
    """One operation in one placement.

    `ratio` is what to reach of the limit in the same run; `most` is that of a time: how many of the limit's `measured`;
    `least` is an absolute rate in `unit`; `peers` says that any other server is to be reached, too. `measured` is what
    the limit program is measured by, if not the same; with `bulk` it receives what there is, with `room` it has room
    for descriptors. With `kit` ours is the device of `kit.py`, which no other server has.
    """

    name: str
    operation: str
    placement: Placement = Placement.SAME
    ratio: float | None = None
    least: float | None = None
    most: float | None = None
    peers: bool = False
    measured: str = ""
    kit: bool = False
    bulk: bool = False
    room: bool = False
    length: int = 4096
    unit: Unit = Unit.RATE

    @property
    def target(self) -> str:
        """What to reach, in words."""
        if self.ratio is not None:
            return f">= {self.ratio:g} x limit"
        if self.least is not None:
            return f">= {self.least:g} {self.unit.value}"
        if self.most is not None:
            return f"<= {self.most:g} x limit" + (", peers" if self.peers else "")
        return ">= peers" if self.peers else ""


KiB = 1024

ROWS = (
    Row("register read", "read", ratio=0.97),
    Row("register read, Python handler", "handled-read", ratio=0.65),
    Row("register write with reply", "write", ratio=0.97),
    Row("register write, Python handler", "handled-write", ratio=0.65),
    Row("posted write (limit: one receive each)", "posted"),
    Row("posted write (limit: bulk receive)", "posted", ratio=0.91, bulk=True),
    Row("posted writes, 32 a call", "posted-batched", ratio=0.66, bulk=True),
    Row("32 reads in flight", "reads-in-flight", ratio=0.8, bulk=True),
    Row("register read", "read", Placement.POLLING, ratio=0.95),
    Row("register read (limit: takes descriptors)", "read", Placement.POLLING, room=True),
    Row("register read", "read", Placement.BLOCKING, ratio=0.95),
    Row("write that raises an interrupt", "interrupt", ratio=0.85),
    Row(
        "connect to described device (limit: one read)",
        "connect",
        most=24.6,
        peers=True,
        measured="read",
        unit=Unit.TIME,
    ),
    Row("DMA read, mapped, 64 KiB, 16 a call", "dma-mapped-read", ratio=0.9, length=64 * KiB, unit=Unit.BYTES),
    Row("DMA write, mapped, 64 KiB, 16 a call", "dma-mapped-write", ratio=0.9, length=64 * KiB, unit=Unit.BYTES),
    Row("DMA read, mapped, 4 KiB, 16 a call", "dma-mapped-read", least=5, unit=Unit.BYTES),
    Row("DMA write, mapped, 4 KiB, 16 a call", "dma-mapped-write", least=5, unit=Unit.BYTES),
    Row("DMA read by message, 64 KiB", "dma-message-read", peers=True, length=64 * KiB, unit=Unit.BYTES),
    Row("DMA write by message, 64 KiB", "dma-message-write", peers=True, length=64 * KiB, unit=Unit.BYTES),
    Row("doorbell in a mapped page", "mapped-doorbell", Placement.POLLING, ratio=0.9),
    Row("doorbell in a mapped page, Python handler", "kit-doorbell", Placement.POLLING, least=100_000, kit=True),
)
"""Ratios of posted, batched and pipelined messages are the rates to reach over the limit's where they were set. Posted
writes are held against bulk receives, since nothing is faster; beside it is what one receive each would give, which is
no slower where the client's own sends are what takes the time. A client may send descriptors beside
any message, so a server must receive with room for them, by recvmsg, and that alone slows a read between two CPUs that
poll: that row is there twice. To connect, be described and leave is 20 exchanges: it was to take the 85 us of
libvfio-user, on a machine whose limit was 3.46 us for a read."""

QEMU_ROWS = (
    Row("through QEMU: register read", "qtest-read", peers=True),
    Row("through QEMU: register write", "qtest-write", peers=True),
    Row("through QEMU: mapped BAR read", "qtest-mapped-read", peers=True),
)
"""The limit is a read of a device that is QEMU's own (`qtest-own-read`)."""
