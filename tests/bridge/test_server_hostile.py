"""Clients that are broken or mean: the server answers with an error or disconnects them, and serves the next."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

import pytest

from .bench import COUNTER, MEMORY, MEMORY_SIZE, SCRATCH, Bench
from .raw import (
    DEVICE_GET_INFO,
    DMA_MAP,
    DMA_READ,
    DMA_WRITE,
    ERROR,
    NO_REPLY,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    RESET,
    SET_IRQS,
    VERSION,
    Raw,
    access,
    dma_map,
    message,
    set_irqs,
    version,
)

SESSION = [
    message(VERSION, version(), id=1),
    message(DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0), id=2),
    message(REGION_WRITE, access(0, SCRATCH, 4, b"1234"), id=3),
    message(REGION_READ, access(0, COUNTER, 4), id=4),
    message(SET_IRQS, set_irqs(0x21, 2, 0, 0), id=5),
    message(REGION_WRITE, access(7, 4, 2, b"\6\0"), id=6),
    message(RESET, id=7),
]
"""A short session of every kind of message: C's, Python's, and those that C and Python share."""


async def answers(raw: Raw) -> None:
    for number in range(1, len(SESSION) + 1):
        reply = await raw.receive()
        assert (reply.id, reply.flags) == (number, REPLY)


# Pieces of messages


@pytest.mark.asyncio
async def test_messages_byte_by_byte(bench: Bench) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        for byte in b"".join(SESSION):
            await raw.send(bytes([byte]))
            await asyncio.sleep(0)
        await answers(raw)


@pytest.mark.asyncio
async def test_messages_split_at_every_byte(bench: Bench) -> None:
    stream = b"".join(SESSION[1:])
    async with Raw.connect(bench.path) as raw:
        for at in range(len(stream) + 1):
            await raw.send(stream[:at])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await raw.send(stream[at:])
            for number in range(2, len(SESSION) + 1):
                reply = await raw.receive()
                assert (reply.id, reply.flags) == (number, REPLY), f"split at {at}"


@pytest.mark.asyncio
async def test_a_client_that_vanishes_at_every_byte(bench: Bench) -> None:
    stream = b"".join(SESSION)
    before = bench.descriptors()
    for at in range(len(stream) + 1):
        async with Raw.connect(bench.path, negotiate=False) as raw:
            await raw.send(stream[:at])
    await bench.check_alive()
    assert bench.leaked(before) == []


@pytest.mark.asyncio
async def test_a_client_that_vanishes_between_a_header_with_descriptors_and_its_body(bench: Bench) -> None:
    whole = message(DMA_MAP, dma_map(0, 4096))
    fd = os.memfd_create("left-behind")
    os.truncate(fd, 4096)
    before = bench.descriptors()
    for at in range(1, len(whole)):
        async with Raw.connect(bench.path) as raw:
            await raw.send(whole[:at], [fd])
    await bench.check_alive()
    assert bench.leaked(before) == []
    os.close(fd)


@pytest.mark.asyncio
async def test_descriptors_stay_with_their_message(bench: Bench) -> None:
    """Pipelined messages, some with a descriptor and some without, and split ones between them."""
    files = [os.memfd_create(f"file{n}") for n in range(4)]
    async with bench.connect() as raw:
        for number, fd in enumerate(files):
            os.truncate(fd, 4096)
            os.pwrite(fd, b"file%d" % number, 0)
            await raw.send(message(REGION_READ, access(0, SCRATCH, 4), id=100 + number))
            whole = message(DMA_MAP, dma_map(number * 4096, 4096), id=number)
            await raw.send(whole[:20], [fd])
            await raw.send(whole[20:] + message(DMA_MAP, dma_map((10 + number) * 4096, 4096), id=200 + number))
        replies = [await raw.receive() for _ in range(12)]
        assert all(reply.flags == REPLY for reply in replies)
        for number in range(4):
            assert bench.memory.read_mapped(number * 4096, 5) == b"file%d" % number
            with pytest.raises(OSError, match="not be reachable by message only"):
                bench.memory.read_mapped((10 + number) * 4096, 5)
    for fd in files:
        os.close(fd)


# Headers


@pytest.mark.parametrize("size", [0, 1, 15, (1 << 20) + 33, 1 << 24, 1 << 31, 0xFFFF_FFFF])
@pytest.mark.parametrize("negotiate", [True, False])
@pytest.mark.asyncio
async def test_a_size_that_cannot_be_ends_the_connection(bench: Bench, size: int, negotiate: bool) -> None:
    async with Raw.connect(bench.path, negotiate=negotiate) as raw:
        await raw.send(message(REGION_READ, access(0, 0, 4), size=size))
        await raw.ended()
    await bench.check_alive()


@pytest.mark.asyncio
async def test_the_largest_message_is_served(bench: Bench) -> None:
    """A WRITE that fills max_data_xfer_size; here it fails, for no region is as large, but as a whole."""
    count = 1 << 20
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(REGION_WRITE, access(0, 0, count, bytes(count)), id=3))
        reply = await raw.receive()
        assert (reply.id, reply.flags) == (3, REPLY | ERROR)
        await raw.alive()


@pytest.mark.parametrize("command", [0, 6, 14, 16, 17, 18, 0xFFFF, DMA_READ, DMA_WRITE])
@pytest.mark.asyncio
async def test_an_unknown_command_is_refused(bench: Bench, command: int) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await raw.refused(command, bytes(16)) > 0
        await raw.send(message(command, bytes(16), flags=NO_REPLY))
        await raw.alive()


@pytest.mark.parametrize("kind", range(2, 16))
@pytest.mark.asyncio
async def test_a_message_that_is_neither_command_nor_reply_ends_the_connection(bench: Bench, kind: int) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0), flags=kind))
        await raw.ended()
    await bench.check_alive()


@pytest.mark.parametrize("flags", [REPLY, REPLY | ERROR, REPLY | NO_REPLY])
@pytest.mark.parametrize("command", [VERSION, REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET, 0, 0xFFFF])
@pytest.mark.asyncio
async def test_a_reply_to_nothing_is_dropped_or_ends_the_connection(bench: Bench, flags: int, command: int) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(command, access(0, SCRATCH, 4, b"1234"), flags=flags))
        with contextlib.suppress(EOFError, ConnectionError):
            await raw.alive()
    assert bench.device.resets <= 1, "a client that left is a reset; the reply must be none"
    await bench.check_alive()


@pytest.mark.asyncio
async def test_control_messages_with_no_reply_are_done_and_not_answered(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(RESET, flags=NO_REPLY))
        await raw.send(message(DMA_MAP, dma_map(0, 4096), flags=NO_REPLY))
        await raw.send(message(DMA_MAP, dma_map(1, 1), flags=NO_REPLY))
        await raw.alive()
        assert (bench.device.resets, bench.memory.maps) == (1, 1)


# Floods


@pytest.mark.parametrize("count", [1, 16, 17, 64, 253])
@pytest.mark.parametrize("command", [DMA_MAP, SET_IRQS, REGION_READ, RESET, 0x99])
@pytest.mark.asyncio
async def test_descriptors_that_nobody_asked_for_are_closed(bench: Bench, command: int, count: int) -> None:
    reading, writing = os.pipe()
    before = bench.descriptors()
    async with Raw.connect(bench.path) as raw:
        for _ in range(20):
            await raw.send(message(command, bytes(32)), [reading] * count)
            with contextlib.suppress(EOFError, ConnectionError):
                await raw.receive()
    await bench.check_alive()
    assert bench.leaked(before) == []
    os.close(reading)
    os.close(writing)


@pytest.mark.asyncio
async def test_a_descriptor_beside_every_byte(bench: Bench) -> None:
    fd = os.eventfd(0)
    before = bench.descriptors()
    whole = message(SET_IRQS, set_irqs(0x24, 2, 0, 1))
    async with Raw.connect(bench.path) as raw:
        with contextlib.suppress(EOFError, ConnectionError):
            for byte in whole * 3:
                await raw.send(bytes([byte]), [fd])
                await asyncio.sleep(0)
            for _ in range(3):
                assert (await raw.receive()).flags == REPLY | ERROR, "48 descriptors for one vector"
    await bench.check_alive()
    assert bench.leaked(before) == []
    os.close(fd)


@pytest.mark.asyncio
async def test_a_client_that_never_reads_stops_only_itself(bench: Bench) -> None:
    """Replies fill the socket, then the server's buffer; it stops reading, or ends the connection; it never grows."""
    request = message(REGION_READ, access(0, MEMORY, MEMORY_SIZE))
    async with Raw.connect(bench.path) as raw:
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(0.3):
                while sent < 100_000:
                    await raw.send(request * 100)
                    sent += 100
        assert sent < 100_000, "6 GB of replies cannot have been taken"
        assert bench.device.interrupts.mode == "none", "and the event loop runs"
    await bench.check_alive()


@pytest.mark.asyncio
async def test_a_client_that_reads_late_gets_every_reply(bench: Bench) -> None:
    count = 200
    async with Raw.connect(bench.path) as raw:
        await raw.write(0, MEMORY, bytes(range(256)) * (MEMORY_SIZE // 256))
        sending = asyncio.create_task(
            raw.send(b"".join(message(REGION_READ, access(0, MEMORY, MEMORY_SIZE), id=n) for n in range(count)))
        )
        for _ in range(50):
            await asyncio.sleep(0)
        for number in range(count):
            reply = await raw.receive()
            assert (reply.id, reply.flags, len(reply.body)) == (number, REPLY, 16 + MEMORY_SIZE)
        await sending
        await raw.alive()


@pytest.mark.asyncio
async def test_dma_to_a_client_that_never_reads_fails_and_the_server_lives(bench: Bench) -> None:
    async with bench.connect() as raw:
        assert (await raw.request(DMA_MAP, dma_map(0, 1 << 26))).flags == REPLY
        tasks = [asyncio.ensure_future(bench.memory.write(0, bytes(1 << 20))) for _ in range(50)]
        for _ in range(100):
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, OSError) for result in results)
    await bench.check_alive()


@pytest.mark.asyncio
async def test_a_half_closed_connection_ends(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(REGION_READ, access(0, SCRATCH, 4), id=1))
        raw.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(EOFError):
            assert (await raw.receive()).id == 1
            await raw.receive()
    await bench.check_alive()
