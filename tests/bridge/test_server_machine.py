"""Region accesses of every kind, alone, pipelined and posted, against a model of the bench's registers."""

from __future__ import annotations

import errno
import struct

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from .bench import (
    BAR0_SIZE,
    CLEARED_BY_READ,
    COUNTER,
    DOORBELL,
    FAULTY,
    MEMORY,
    MEMORY_SIZE,
    SCRATCH,
    WRITE_ONES,
    WRITTEN,
)
from .machine import LENGTH, ServedMachine
from .raw import ERROR, NO_REPLY, REGION_READ, REGION_WRITE, REPLY, RESET, WRITE_MULTI, access, message, write_multi

WORDS = st.integers(0, 0xFFFF_FFFF)
REGISTERS = st.sampled_from([SCRATCH, WRITE_ONES, CLEARED_BY_READ, COUNTER, WRITTEN, DOORBELL, FAULTY])
RESET_VALUES = {SCRATCH: 0, WRITE_ONES: 0xFFFF, CLEARED_BY_READ: 0x44332211, WRITTEN: 0, DOORBELL: 0}
PLACES = st.integers(0, MEMORY_SIZE - 1)


class Model:
    """The registers and memory of BAR 0."""

    def __init__(self) -> None:
        self.memory = bytearray(MEMORY_SIZE)
        self.reads = 0
        self.written: list[int] = []
        self.rings: list[int] = []
        self.reset()

    def reset(self) -> None:
        """Registers only."""
        self.values = dict(RESET_VALUES)

    def read(self, register: int) -> int | None:
        """What a read of 4 bytes finds; None when it fails."""
        if register == FAULTY:
            return None
        if register == COUNTER:
            self.reads += 1
            return self.reads
        value = self.values[register]
        if register == CLEARED_BY_READ:
            self.values[register] = 0
        return value

    def write(self, register: int, value: int) -> bool:
        """Writes 4 bytes; did it work?"""
        if register == WRITE_ONES:
            self.values[register] &= ~value
        elif register in (SCRATCH, WRITTEN, DOORBELL):
            self.values[register] = value
        if register == WRITTEN:
            self.written.append(value)
        if register == DOORBELL:
            self.rings.append(value)
        return register != FAULTY


class ServerMachine(ServedMachine):
    """One client after another."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    @rule(register=REGISTERS)
    def read(self, register: int) -> None:
        """A register, with or without a handler."""
        expected = self.model.read(register)
        if expected is None:
            assert self.run(self.raw.refused(REGION_READ, access(0, register, 4))) == errno.EIO
        else:
            assert self.run(self.raw.read(0, register, 4)) == struct.pack("<I", expected)

    @rule(register=REGISTERS, value=WORDS)
    def write(self, register: int, value: int) -> None:
        """A register, with or without a handler."""
        data = struct.pack("<I", value)
        if self.model.write(register, value):
            self.run(self.raw.write(0, register, data))
        else:
            assert self.run(self.raw.refused(REGION_WRITE, access(0, register, 4, data))) == errno.EIO

    @rule(writes=st.lists(st.tuples(REGISTERS, WORDS), max_size=80))
    def posted_writes(self, writes: list[tuple[int, int]]) -> None:
        """No answers, whatever comes of them."""
        sent = []
        for register, value in writes:
            self.model.write(register, value)
            sent.append(message(REGION_WRITE, access(0, register, 4, struct.pack("<I", value)), flags=NO_REPLY))
        self.run(self.raw.send(b"".join(sent)))

    @rule(writes=st.lists(st.tuples(REGISTERS, WORDS), max_size=20))
    def several_in_one(self, writes: list[tuple[int, int]]) -> None:
        """REGION_WRITE_MULTI: all are done; the first error is told."""
        good = [self.model.write(register, value) for register, value in writes]
        body = write_multi(*[(0, register, struct.pack("<I", value)) for register, value in writes])
        reply = self.run(self.raw.request(WRITE_MULTI, body))
        assert (reply.flags, reply.errno) == ((REPLY, 0) if all(good) else (REPLY | ERROR, errno.EIO))

    @rule(at=PLACES, data=st.binary(min_size=1, max_size=300))
    def write_memory(self, at: int, data: bytes) -> None:
        """Any bytes, anywhere."""
        data = data[: MEMORY_SIZE - at]
        self.model.memory[at : at + len(data)] = data
        self.run(self.raw.write(0, MEMORY + at, data))

    @rule(at=PLACES, size=st.integers(1, 5000))
    def read_memory(self, at: int, size: int) -> None:
        """Any bytes, anywhere."""
        size = min(size, MEMORY_SIZE - at)
        assert self.run(self.raw.read(0, MEMORY + at, size)) == self.model.memory[at : at + size]

    @rule(registers=st.lists(REGISTERS, min_size=1, max_size=60), cut=st.integers(0, 32 * 60))
    def pipelined_reads(self, registers: list[int], cut: int) -> None:
        """Answered in their order, though sent in two pieces."""
        stream = b"".join(message(REGION_READ, access(0, where, 4), id=n) for n, where in enumerate(registers))
        self.run(self.raw.send(stream[:cut]))
        self.run(self.raw.send(stream[cut:]))
        for number, register in enumerate(registers):
            reply, expected = self.run(self.raw.receive()), self.model.read(register)
            flags = REPLY | ERROR if expected is None else REPLY
            assert (reply.id, reply.flags) == (number, flags)
            assert expected is None or reply.body[16:] == struct.pack("<I", expected)

    @rule(
        command=st.sampled_from([REGION_READ, REGION_WRITE]),
        region=st.sampled_from([1, 3, 5, 8, 9, 0xFFFF_FFFF]) | st.just(0),
        offset=st.sampled_from([BAR0_SIZE - 2, BAR0_SIZE, 1 << 63, (1 << 64) - 1]),
    )
    def beyond(self, command: int, region: int, offset: int) -> None:
        """Beyond a region, or of a region that there is not."""
        assert (
            self.run(self.raw.refused(command, access(region, offset, 4, b"1234"[: command - 9 << 2]))) == errno.EINVAL
        )

    @rule()
    def reset(self) -> None:
        """By the client."""
        assert self.run(self.raw.request(RESET)).flags == REPLY
        self.model.reset()

    @rule(unfinished=st.binary(max_size=40))
    def come_again(self, unfinished: bytes) -> None:
        """The client leaves, in the middle of a message perhaps; another comes."""
        stream = message(REGION_WRITE, access(0, SCRATCH, 24, bytes(24)))
        self.run(self.raw.send(stream[: len(unfinished)]))
        self.disconnect()
        self.model.reset()
        self.connect()

    @invariant()
    def handlers_heard_all_in_order(self) -> None:
        """Once an answer has come behind them."""
        self.run(self.raw.alive())
        device = self.bench.device
        assert (device.written, device.rings) == (self.model.written, self.model.rings)


TestServer = ServerMachine.TestCase
TestServer.settings = LENGTH
