"""Three drivers that hardware would break, the devices that they are for, and how each should have been written."""

from __future__ import annotations

from pyvfio_user.bridge.attributes import NGNRE, NGNRNE, NORMAL_NC
from pyvfio_user.bridge.explore import Outcome, Property
from pyvfio_user.bridge.interconnect import Part, Program, burst, dmb, load, speculative, store

WINDOW, DOORBELL, FIFO = 0x40, 0x1000, 0x2000


class Sender:
    """Sends what is in its 16-byte window whenever the doorbell rings: the window must be whole then."""

    def __init__(self) -> None:
        self.window = bytearray(16)

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        if offset == DOORBELL:
            assert 0 not in self.window, "the entry is whole when the doorbell rings"
        elif WINDOW <= offset < WINDOW + 16:
            self.window[offset - WINDOW : offset - WINDOW + len(data)] = data

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        return bytes(size)


def send(*before_doorbell: Part) -> Program:
    """An entry into the write-combining window, then the doorbell on strongly ordered memory."""
    return Program.of(burst(WINDOW, 16), *before_doorbell, store(DOORBELL, 4, 1, type=NGNRNE))


class BlueFlame:
    """Does an entry as soon as both halves of a 16-byte buffer have its number, in whatever order they came."""

    def __init__(self) -> None:
        self.buffers = bytearray(32)
        self.done: set[int] = set()

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        self.buffers[offset - WINDOW : offset - WINDOW + len(data)] = data
        for first, second in ((0, 8), (16, 24)):
            if self.buffers[first] == self.buffers[second] != 0:
                self.done.add(self.buffers[first])

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        return bytes(size)


BOTH_DONE = Property("both entries are done", lambda outcome: outcome.device.done == {1, 2})


def entry(number: int, buffer: int) -> Part:
    """An entry of 16 bytes, in two stores, into buffer 0 or 1."""
    at = WINDOW + 16 * buffer
    return store(at, 8, number, type=NORMAL_NC) + store(at + 8, 8, number, type=NORMAL_NC)


def post_twice(*between: Part, second_buffer: int = 0) -> Program:
    """Two entries: into the same buffer, or as the device's authors meant it, alternately."""
    return Program.of(entry(1, 0), *between, entry(2, second_buffer))


class Fifo:
    """Each read of its register takes an entry: 1, 2, 3..."""

    def __init__(self) -> None:
        self.taken = 0

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        raise AssertionError("nobody writes to the FIFO")

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        self.taken += 1
        return self.taken.to_bytes(size, "little")


def _none_lost(outcome: Outcome) -> bool:
    return [int.from_bytes(value, "little") for value in outcome.loads.values()] == [1, 2]


NONE_LOST = Property("the driver gets every entry, in order", _none_lost)


def drain(in_window: bool) -> Program:
    """Two reads of the FIFO's register, as readl has them, in the write-combining range or not."""
    read = load(FIFO, 4, type=NORMAL_NC if in_window else NGNRE)
    unasked = speculative(FIFO, 4) if in_window else ()
    return Program.of(read, dmb("oshld"), unasked, read, dmb("oshld"))
