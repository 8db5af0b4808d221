"""Bench: a device made for measuring a vfio-user server, and any client of one.

Its registers are a contract between measuring programs and servers (`tests/bench/` measures this one and others):

    BAR 0, 4 KiB, trapped
    0x00 scratch             C answers
    0x04 reads, 0x08 writes  of BAR 0 that were done before this access; C counts them
    0x0c magic               0x76667562
    0x10, 0x14, 0x18         DMA address (low, high) and length, in bytes
    0x20 command             low byte 1 read guest memory by DMA_READ messages, 2 write it by DMA_WRITE messages,
                             3 read it through the mapping, 4 write it so, 5 and 6 as 1 and 2, 0 nothing;
                             upper bytes: how many times, 0 is once
    0x24 status              of the command: 0 done, else an errno; 0xffffffff still going
    0x30 interrupt           write v: MSI-X vector v
    0x40 poll                write 1: copy what appears at BAR 2 offset 0 to BAR 2 offset 0x80, until 0 is written
    0x50 handled             scratch whose reads and writes go through a Python handler
    BAR 2, 16 MiB, memory that a client can map and also reach by message; BAR 4, MSI-X

A server may exchange the messages of commands 1 and 2 before it answers the write; this one, which never makes a
synchronous access wait for its client, answers first, as 5 and 6 have it. A read keeps what it read, and a write gives
that back.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
from enum import IntEnum

from ..bridge.regions import Echo
from . import RO, Bar, Device, DmaError, KiB, MiB, MsiX, PciId, Register, Registers, SegmentList, WriteCombineWindow

MAGIC = 0x76667562
GOING = 0xFFFF_FFFF
MAX_LENGTH = 16 * MiB
"""Bytes of one DMA: more is EINVAL."""

_SLICE = 32 * MiB  # copied in one go; the event loop has its turn between two
_BATCH = 16  # copies handed to the hot path in one call
_VECTORS = 8
_POLL, _ECHO = 0x00, 0x80


class Control(Registers):
    """What a measuring client sees of it in BAR 0."""

    scratch = Register(0x00)
    reads = Register(0x04, access=RO)
    writes = Register(0x08, access=RO)
    magic = Register(0x0C, access=RO, reset=MAGIC)
    address_low = Register(0x10)
    address_high = Register(0x14)
    length = Register(0x18)
    command = Register(0x20)
    status = Register(0x24, access=RO)
    interrupt = Register(0x30)
    poll = Register(0x40)
    handled = Register(0x50)


class Command(IntEnum):
    """Low byte of `Control.command`."""

    MESSAGE_READ = 1
    MESSAGE_WRITE = 2
    MAPPED_READ = 3
    MAPPED_WRITE = 4
    LATER_MESSAGE_READ = 5
    LATER_MESSAGE_WRITE = 6


_MAPPED = (Command.MAPPED_READ, Command.MAPPED_WRITE)
_COMMANDS = frozenset(Command)
_READS = (Command.MESSAGE_READ, Command.MAPPED_READ, Command.LATER_MESSAGE_READ)


class Bench(Device):
    """Registers to read and write at speed, DMA on command, an interrupt for a write, a window that is polled."""

    identity = PciId(vendor=0x1234, device=0xBE9C, class_code=0xFF0000)
    bar0 = Bar(Control, size=4 * KiB)
    bar2 = Bar(WriteCombineWindow(16 * MiB, mapped=True), bits=64, prefetchable=True)
    bar4 = Bar(size=4 * KiB)
    msix = MsiX(_VECTORS, bar=bar4, table=0, pba=0x800)

    def __init__(self) -> None:
        super().__init__()
        self.endpoint.regions[0].count_accesses(reads_at=Control.reads.offset, writes_at=Control.writes.offset)
        self.endpoint.regions[0].signal(Control.interrupt.offset, self.interrupts.msix_eventfds)
        self._data = memoryview(bytearray())  # what was read last, as often as it was read in one call
        self._segments = SegmentList([])
        self._transfer: asyncio.Task[None] | None = None
        self._echo: Echo | None = None

    def on_reset(self) -> None:
        """Stop what goes on."""
        self._stop_polling()
        if self._transfer is not None:
            self._transfer.cancel()
            self._transfer = None

    @Control.handled.on_read
    def read_handled(self) -> int:
        """Give what was written."""
        return self.bar0.handled

    @Control.handled.on_write
    def write_handled(self, value: int) -> None:
        """Take it: the register holds it already."""

    @Control.interrupt.on_write
    def fire(self, vector: int) -> None:
        """Fire; a vector that there is not is none."""
        if vector < _VECTORS:
            self.msix[vector].fire()

    @Control.command.on_write
    def start(self, value: int) -> None:
        """Begin a DMA: short ones through the mapping are over when the write is answered."""
        registers = self.bar0
        if self._transfer is not None and not self._transfer.done():
            return
        command, times = value & 0xFF, max(value >> 8, 1)
        length = registers.length
        if command not in _COMMANDS or length > MAX_LENGTH:
            registers.status = errno.EINVAL if command else 0
            return
        address = registers.address_high << 32 | registers.address_low
        if command in _MAPPED and times * length <= _SLICE:
            registers.status = self._copy(command, address, length, times)
        else:
            registers.status = GOING
            self._transfer = asyncio.get_running_loop().create_task(self._run(command, address, length, times))

    @Control.poll.on_write
    def set_polling(self, value: int) -> None:
        """Start or stop to look at the window."""
        self._stop_polling()
        if value == 1:
            self._echo = self.endpoint.regions[2].echo(_POLL, _ECHO)

    def _stop_polling(self) -> None:
        if self._echo is not None:
            self._echo.stop()
            self._echo = None

    async def _run(self, command: int, address: int, length: int, times: int) -> None:
        """Does a DMA, a slice at a time."""
        registers = self.bar0
        try:
            if command in _MAPPED:
                step = max(_SLICE // max(length, 1), 1)
                for done in range(0, times, step):
                    if status := self._copy(command, address, length, min(step, times - done)):
                        registers.status = status
                        return
                    await asyncio.sleep(0)
            else:
                await self._exchange(command, address, length, times)
            registers.status = 0
        except DmaError as error:
            registers.status = error.errno or errno.EIO

    async def _exchange(self, command: int, address: int, length: int, times: int) -> None:
        """Copies by messages, several pieces in a call."""
        pieces, data = self._batch(address, length, times)
        move = self.memory.read_segments if command in _READS else self.memory.write_segments
        for done in range(0, times, len(pieces)):
            now = min(len(pieces), times - done)
            await move(pieces[:now], data[: length * now])

    def _batch(self, address: int, length: int, times: int) -> tuple[SegmentList, memoryview]:
        """What one call copies, and its other end: what was read last."""
        most = min(_BATCH, times, max(_SLICE // max(length, 1), 1))
        if len(self._data) != length * most:
            kept = bytes(self._data[:length]).ljust(length, b"\0")
            self._data = memoryview(
                mmap.mmap(-1, length * most) if length else bytearray()
            )  # whole pages are copied faster
            self._data[:] = kept * most
        if len(self._segments) != most or self._segments[0] != (address, length):
            self._segments = SegmentList([(address, length)] * most)
        return self._segments, self._data

    def _copy(self, command: int, address: int, length: int, times: int) -> int:
        """Copies through the mapping, several pieces in a call; 0 or an errno."""
        pieces, data = self._batch(address, length, times)
        move = self.memory.gather_into if command == Command.MAPPED_READ else self.memory.scatter
        try:
            for _ in range(times // len(pieces)):
                move(pieces, data)
            if rest := times % len(pieces):
                move(pieces[:rest], data[: length * rest])
        except DmaError as error:
            return error.errno or errno.EIO
        return 0
