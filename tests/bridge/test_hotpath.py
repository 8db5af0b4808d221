"""The hot path on a socket of its own: framing, rules, batches, order, descriptors, and what a client must not do."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.endpoint import Endpoint
from pyvfio_user.bridge.loop import Poller, run
from pyvfio_user.bridge.recorder import Recorder, Transaction
from pyvfio_user.bridge.regions import Region, Rules
from pyvfio_user.bridge.session import Session

from .raw import (
    HEADER,
    NO_REPLY,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    RESET,
    VERSION,
    WRITE_MULTI,
    Raw,
    access,
    dma_map,
    message,
    version,
    write_multi,
)

NONE, ONES = bytes(4), b"\xff" * 4

RW, MIXED, HOOKED, WIDE, BELL, FAULTY, MEMORY = 0x00, 0x04, 0x08, 0x10, 0x30, 0x38, 0x1000
"""Offsets in BAR 0 of the device below; between them is nothing."""


@dataclass
class Bed:
    """A device with one of everything, what its handlers were told, and a client's socket."""

    raw: Raw
    endpoint: Endpoint
    session: Session
    told: list[tuple[object, ...]] = field(default_factory=list)

    async def read(self, offset: int, size: int) -> bytes:
        reply = await self.raw.request(REGION_READ, access(0, offset, size))
        assert (reply.flags, reply.body[:16]) == (REPLY, access(0, offset, size))
        return reply.body[16:]

    async def write(self, offset: int, data: bytes) -> None:
        reply = await self.raw.request(REGION_WRITE, access(0, offset, len(data), data))
        assert (reply.flags, reply.body) == (REPLY, access(0, offset, len(data)))


def build(told: list[tuple[object, ...]]) -> Endpoint:
    bar = Region(0x4000)
    bar.add_registers(RW, Rules(NONE, ONES, NONE, NONE, NONE), record=True)
    # Byte 0 read-only, byte 1 write-1-to-clear, byte 2 cleared by reading, byte 3 writable once.
    mixed = Rules(ONES, NONE, b"\0\xff\0\0", b"\0\0\xff\0", b"\0\0\0\xff")
    bar.add_registers(MIXED, mixed)

    def ask(offset: int, size: int) -> int:
        told.append(("read", offset, size))
        return 0x1234_5678

    def tell(offset: int, size: int, value: int) -> None:
        told.append(("write", offset, size, value))

    def fail(*_: int) -> NoReturn:
        raise RuntimeError("broken")

    bar.add_registers(HOOKED, Rules(NONE, b"\xff\0\xff\xff", NONE, NONE, NONE), on_read=ask, on_write=tell, record=True)
    wide = Rules(bytes(16), b"\xff" * 16, bytes(16), bytes(16), bytes(16))
    bar.add_registers(WIDE, wide, on_read=lambda offset, size: 7 << 64, on_write=tell)
    bar.add_doorbell(BELL, 4, lambda value: told.append(("ring", value)), record=True)
    bar.add_registers(FAULTY, Rules(NONE, ONES, NONE, NONE, NONE), on_read=fail, on_write=fail)
    bar.add_memory(MEMORY, 0x2000, record=True)
    config, big = Region(4096), Region(1 << 20)
    config.add_memory(0, 4096)
    big.add_memory(0, 1 << 20)
    return Endpoint({0: bar, 2: big, 7: config}, recorder=Recorder(64), on_reset=lambda: told.append(("reset",)))


@asynccontextmanager
async def bed(*, negotiate: bool = True) -> AsyncIterator[Bed]:
    told: list[tuple[object, ...]] = []
    endpoint = build(told)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setblocking(False)
    with theirs:
        session = Session(
            endpoint, ours.detach(), Poller.of(asyncio.get_running_loop()), lambda: told.append(("left",))
        )
        found = Bed(Raw(theirs), endpoint, session, told)
        try:
            if negotiate:
                assert (await found.raw.request(VERSION, version())).flags == REPLY
            yield found
        finally:
            session.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.asyncio
async def test_each_bit_follows_its_rule() -> None:
    async with bed() as it:
        assert await it.read(MIXED, 4) == ONES
        assert await it.read(MIXED, 4) == b"\xff\xff\0\xff"
        await it.write(MIXED, b"\x00\x0f\xff\x12")
        assert await it.read(MIXED, 4) == b"\xff\xf0\0\x12"
        await it.write(MIXED + 3, b"\x34")
        assert await it.read(MIXED + 3, 1) == b"\x12"
        it.endpoint.regions[0].reset()
        await it.write(MIXED + 3, b"\x34")
        assert await it.read(MIXED, 4) == b"\xff\xff\xff\x34"


@pytest.mark.asyncio
async def test_an_access_is_split_at_the_edges_of_spans_and_gaps_are_zero() -> None:
    async with bed() as it:
        await it.write(0, bytes(range(1, 0x39)))
        image = await it.read(0, 0x38)
        assert image[:4] == b"\1\2\3\4"
        assert image[HOOKED : HOOKED + 8] == b"\x78\x56\x34\x12" + NONE
        assert image[WIDE : WIDE + 16] == bytes(8) + b"\7" + bytes(7)
        assert image[BELL:] == b"\x31\x32\x33\x34" + NONE
        assert [each for each in it.told if each[0] != "read"] == [
            ("write", 0, 4, 0x0C0B0A09),
            ("write", 0, 16, int.from_bytes(bytes(range(0x11, 0x21)), "little")),
            ("ring", 0x34333231),
        ]


@pytest.mark.asyncio
async def test_a_handler_is_told_the_part_that_was_accessed_and_answers_for_the_whole() -> None:
    async with bed() as it:
        assert await it.read(HOOKED + 1, 2) == b"\x56\x34"
        await it.write(HOOKED, b"\xaa\xbb\xcc\xdd")
        assert it.told == [("read", 1, 2), ("write", 0, 4, 0xDDCCBBAA)]
        assert bytes(it.endpoint.regions[0].memory[HOOKED : HOOKED + 4]) == b"\xaa\x56\xcc\xdd"


@pytest.mark.asyncio
async def test_a_partial_write_rings_a_doorbell_with_all_it_holds() -> None:
    async with bed() as it:
        await it.write(BELL, b"\1\2\3\4")
        await it.write(BELL + 2, b"\xff")
        assert await it.read(BELL, 4) == b"\1\2\xff\4"
        assert it.told == [("ring", 0x04030201), ("ring", 0x04FF0201)]


@pytest.mark.asyncio
async def test_a_handler_that_raises_makes_an_error_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async with bed() as it:
        for command, body in ((REGION_READ, access(0, FAULTY, 4)), (REGION_WRITE, access(0, FAULTY, 4, b"\1\0\0\0"))):
            reply = await it.raw.request(command, body)
            assert (reply.flags, reply.errno, reply.body) == (REPLY | 0x20, errno.EIO, b"")
        await it.raw.send(message(REGION_WRITE, access(0, FAULTY, 4, NONE), flags=NO_REPLY))
        assert await it.read(RW, 4) == NONE
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [
        "device: read of 4 bytes in region 0 at 0x38 failed",
        "device: write of 4 bytes in region 0 at 0x38, value 0x1, failed",
        "device: write of 4 bytes in region 0 at 0x38, value 0x0, failed",
    ]


@pytest.mark.asyncio
async def test_a_stream_cut_anywhere_is_served_as_if_it_were_whole() -> None:
    stream = (
        message(REGION_WRITE, access(0, RW, 4, b"abcd"), id=1)
        + message(REGION_WRITE, access(0, HOOKED, 4, b"\1\2\3\4"), id=2, flags=NO_REPLY)
        + message(WRITE_MULTI, write_multi((0, BELL, b"\5\0\0\0"), (0, MEMORY, b"x")), id=3, flags=NO_REPLY)
        + message(RESET, id=4)
        + message(REGION_READ, access(0, RW, 4), id=5)
    )
    for cut in range(1, len(stream)):
        async with bed() as it:
            await it.raw.send(stream[:cut])
            for _ in range(3):
                await asyncio.sleep(0)
            await it.raw.send(stream[cut:])
            replies = [await it.raw.receive() for _ in range(3)]
            assert [(reply.id, reply.flags) for reply in replies] == [(1, REPLY), (4, REPLY), (5, REPLY)]
            assert replies[2].body[16:] == b"abcd"
            assert it.told == [("write", 0, 4, 0x04030201), ("ring", 5), ("reset",)]


@pytest.mark.asyncio
async def test_what_is_pipelined_is_answered_in_order() -> None:
    async with bed() as it:
        offsets = [(RW, HOOKED, MEMORY, BELL)[n % 4] for n in range(1000)]
        stream = b"".join(message(REGION_READ, access(0, at, 4), id=n) for n, at in enumerate(offsets))
        await it.raw.send(stream)
        replies = [await it.raw.receive() for _ in offsets]
        assert [reply.id for reply in replies] == list(range(1000))
        assert {reply.body[16:] for reply in replies[1::4]} == {b"\x78\x56\x34\x12"}


@pytest.mark.asyncio
async def test_a_read_and_a_handler_come_after_the_doorbells_before_them() -> None:
    async with bed() as it:
        bell = message(REGION_WRITE, access(0, BELL, 4, b"\1\0\0\0"), flags=NO_REPLY)
        hooked = message(REGION_WRITE, access(0, HOOKED, 4, NONE), flags=NO_REPLY)
        await it.raw.send(bell * 3 + hooked + bell + message(REGION_READ, access(0, HOOKED, 4)))
        await it.raw.receive()
        assert it.told == [*[("ring", 1)] * 3, ("write", 0, 4, 0), ("ring", 1), ("read", 0, 4)]


@pytest.mark.asyncio
async def test_more_doorbells_than_fit_into_a_batch_all_ring() -> None:
    async with bed() as it:
        count = 5000
        rings = (
            message(REGION_WRITE, access(0, BELL, 4, n.to_bytes(4, "little")), flags=NO_REPLY) for n in range(count)
        )
        await it.raw.send(b"".join(rings))
        await it.read(RW, 4)
        assert it.told == [("ring", n) for n in range(count)]


@pytest.mark.asyncio
async def test_transactions_are_recorded_in_order_and_the_oldest_dropped() -> None:
    async with bed() as it:
        await it.write(RW, b"\1\2\3\4")
        await it.read(HOOKED + 2, 2)
        await it.write(MEMORY + 4, bytes(range(12)))
        await it.write(MIXED, NONE)
        assert it.endpoint.recorder.drain() == [
            Transaction(0, True, 0, RW, 4, b"\1\2\3\4"),
            Transaction(1, False, 0, HOOKED + 2, 2, b"\x34\x12"),
            Transaction(2, True, 0, MEMORY + 4, 8, bytes(range(8))),
            Transaction(3, True, 0, MEMORY + 12, 4, bytes(range(8, 12))),
        ]
        await it.write(MEMORY, bytes(0x1000))
        left = it.endpoint.recorder.drain()
        assert [each.sequence for each in left] == list(range(4 + 512 - 64, 4 + 512))
        assert (it.endpoint.recorder.dropped, it.endpoint.recorder.drain()) == (448, [])


@pytest.mark.parametrize(
    "body",
    [
        access(0, 0x4000, 1),
        access(0, 0x3FFF, 2),
        access(0, 2**64 - 1, 2),
        access(0, 0, 0),
        access(0, 0, 2**32 - 1),
        access(0, 0, (1 << 20) + 1),
        access(1, 0, 4),
        access(9, 0, 4),
        access(2**32 - 1, 0, 4),
        access(0, 0, 4)[:-1],
        access(0, 0, 4) + b"?",
        b"",
    ],
    ids=lambda body: body.hex() or "empty",
)
@pytest.mark.asyncio
async def test_an_access_outside_the_device_or_the_message_is_an_error(body: bytes) -> None:
    async with bed() as it:
        for command in (REGION_READ, REGION_WRITE):
            reply = await it.raw.request(command, body)
            assert (reply.flags, reply.errno, reply.body) == (REPLY | 0x20, errno.EINVAL, b"")
        await it.raw.send(message(REGION_WRITE, body, flags=NO_REPLY))
        assert await it.read(RW, 4) == NONE


@pytest.mark.asyncio
async def test_write_multi_does_what_it_can_and_answers_only_when_asked() -> None:
    async with bed() as it:
        good = write_multi(
            (0, RW, b"ab"), (0, 0x4000, b"?"), (2**32 - 1, 0, b"?"), (0, FAULTY, b"!"), (0, MEMORY, b"12345678")
        )
        await it.raw.send(message(WRITE_MULTI, good, flags=NO_REPLY))
        assert await it.read(RW, 4) == b"ab\0\0"
        assert await it.read(MEMORY, 8) == b"12345678"
        reply = await it.raw.request(WRITE_MULTI, good)
        assert (reply.flags, reply.errno) == (REPLY | 0x20, errno.EINVAL)
        reply = await it.raw.request(WRITE_MULTI, write_multi((0, RW, b"cd"), (0, HOOKED, b"\1\0\0\0")))
        assert (reply.flags, reply.body) == (REPLY, (2).to_bytes(8, "little"))
        lies = (b"", (2).to_bytes(8, "little") + good[8:32], (2**61).to_bytes(8, "little"), good[:-1])
        for body in lies:
            reply = await it.raw.request(WRITE_MULTI, body)
            assert (reply.flags, reply.errno) == (REPLY | 0x20, errno.EINVAL)


@pytest.mark.parametrize(
    "garbage",
    [
        HEADER.pack(1, REGION_READ, 15, 0, 0),
        HEADER.pack(1, REGION_READ, 0, 0, 0),
        HEADER.pack(1, REGION_READ, 2**32 - 1, 0, 0),
        HEADER.pack(1, REGION_READ, 32, 2, 0),
        b"\xff" * 16,
    ],
    ids=lambda each: each.hex(),
)
@pytest.mark.asyncio
async def test_a_stream_that_cannot_be_followed_ends(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with bed() as it:
        await it.raw.send(garbage)
        with pytest.raises(EOFError):
            await it.raw.receive()
        assert it.told == [("left",)]
    assert "disconnecting a client that sent a malformed message" in caplog.text


@pytest.mark.asyncio
async def test_region_accesses_wait_for_the_version() -> None:
    async with bed(negotiate=False) as it:
        for command in (REGION_READ, REGION_WRITE, WRITE_MULTI, RESET, 99):
            reply = await it.raw.request(command, access(0, 0, 4))
            assert (reply.flags, reply.errno) == (REPLY | 0x20, errno.EINVAL)
        assert (await it.raw.request(VERSION, version())).flags == REPLY
        assert (await it.raw.request(99)).errno == errno.ENOTSUP


@pytest.mark.asyncio
async def test_a_reply_that_nobody_waits_for_is_dropped() -> None:
    async with bed() as it:
        await it.raw.send(
            message(REGION_READ, access(0, 0, 4), flags=REPLY) + message(11, bytes(16), flags=REPLY | 0x20)
        )
        assert await it.read(RW, 4) == NONE


@pytest.mark.asyncio
async def test_a_client_that_never_reads_is_not_read_any_more() -> None:
    async with bed() as it:
        ask = message(REGION_READ, access(0, MEMORY, 0x2000), id=3)
        sent = 0
        for _ in range(20):
            while True:
                try:
                    sent += it.raw.sock.send(ask * 256)
                except BlockingIOError:
                    break
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert sent < 2 << 20, "requests are taken in although their replies are not"
        whole = sent // len(ask)
        for _ in range(whole):
            reply = await it.raw.receive()
            assert (reply.id, reply.flags, len(reply.body)) == (3, REPLY, 16 + 0x2000)
        await it.raw.send(ask[sent % len(ask) :] if sent % len(ask) else b"")
        if sent % len(ask):
            await it.raw.receive()
        assert await it.read(RW, 4) == NONE


@pytest.mark.asyncio
async def test_the_largest_access_goes_through_whole() -> None:
    async with bed() as it:
        data = bytes(range(256)) * 4096
        reply = await it.raw.request(REGION_WRITE, access(2, 0, len(data), data))
        assert (reply.flags, reply.body) == (REPLY, access(2, 0, len(data)))
        reply = await it.raw.request(REGION_READ, access(2, 0, len(data)))
        assert reply.body[16:] == data


@pytest.mark.asyncio
async def test_descriptors_go_with_their_message_and_others_are_closed(pipe: tuple[int, int]) -> None:
    async with bed() as it:
        before = len(os.listdir("/proc/self/fd"))
        write = message(REGION_WRITE, access(0, RW, 4, b"abcd"), id=1)
        await it.raw.send(write, [pipe[0]] * 16)
        assert (await it.raw.receive()).id == 1
        memory = os.memfd_create("guest")
        os.ftruncate(memory, 0x2000)
        # No descriptor, one that is wanted, one too many, and again none: pipelined.
        await it.raw.send(message(2, dma_map(0x10000, 0x1000), id=2))
        await it.raw.send(message(2, dma_map(0x20000, 0x2000), id=3), [memory])
        await it.raw.send(message(2, dma_map(0x30000, 0x1000), id=4), [memory, memory])
        await it.raw.send(message(2, dma_map(0x40000, 0x1000), id=5))
        replies = [await it.raw.receive() for _ in range(4)]
        assert [(reply.id, reply.errno) for reply in replies] == [(2, 0), (3, 0), (4, errno.EINVAL), (5, 0)]
        it.endpoint.memory.bus_master = True
        it.endpoint.memory.write_mapped(0x20000, b"mine")
        assert os.pread(memory, 4, 0) == b"mine"
        os.close(memory)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.asyncio
async def test_descriptors_stay_with_a_message_that_comes_in_pieces(pipe: tuple[int, int]) -> None:
    async with bed() as it:
        before = len(os.listdir("/proc/self/fd"))
        memory = os.memfd_create("guest")
        os.ftruncate(memory, 0x2000)
        first, second = message(2, dma_map(0, 0x1000), id=1), message(2, dma_map(0x2000, 0x2000), id=2)
        await it.raw.send(first[:20], [memory])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await it.raw.send(first[20:])
        await it.raw.send(second, [memory])
        assert [((await it.raw.receive()).id, it.endpoint.memory.maps) for _ in range(2)] == [(1, 2), (2, 2)]
        drip = message(2, bytes(200))
        for n in range(100):
            await it.raw.send(drip[n : n + 1], pipe * 8)
            await asyncio.sleep(0)
        os.close(memory)
        it.session.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.asyncio
async def test_what_was_posted_before_the_client_left_is_served() -> None:
    async with bed() as it:
        bell = message(REGION_WRITE, access(0, BELL, 4, b"\1\0\0\0"), flags=NO_REPLY)
        await it.raw.send(bell * 3 + bell[:10])
        it.raw.sock.close()
        while not it.session.peer_left() or ("left",) not in it.told:
            await asyncio.sleep(0)
        assert it.told == [("ring", 1), ("ring", 1), ("ring", 1), ("left",)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 0x3FFF), st.integers(1, 64), st.binary(max_size=64)), max_size=20)
)
def test_memory_is_memory_whatever_the_access(accesses: list[tuple[bool, int, int, bytes]]) -> None:
    """Against a model that knows only that bytes in the memory span keep what is written."""

    async def check() -> None:
        model = bytearray(0x4000)
        async with bed() as it:
            for write, offset, size, data in accesses:
                start = MEMORY + offset % 0x2000
                size = min(size, MEMORY + 0x2000 - start)
                if write:
                    data = data[:size].ljust(size, b"\0")
                    await it.write(start, data)
                    model[start : start + size] = data
                else:
                    assert await it.read(start, size) == model[start : start + size]

    run(check())


def resident() -> dict[str, int]:
    """KiB in memory of each mapping of this process, by its address."""
    found, address = dict[str, int](), ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if name == "Rss:":
            found[address] = int(rest[0])
        elif not name.endswith(":"):
            address = name.partition("-")[0]
    return found


@pytest.mark.asyncio
async def test_what_big_messages_needed_is_given_back_when_their_client_is_gone() -> None:
    async with bed() as it:
        data = os.urandom(1 << 20)
        assert (await it.raw.request(REGION_WRITE, access(2, 0, 1 << 20, data))).flags == REPLY
        assert (await it.raw.request(REGION_READ, access(2, 0, 1 << 20))).body[16:] == data
        before = resident()
    after = resident()
    assert max(kib - after.get(address, 0) for address, kib in before.items()) >= 2 * (1024 - 64)
    async with bed() as it:
        assert (await it.raw.request(REGION_READ, access(2, 0, 1 << 20))).body[16:] == bytes(1 << 20)
