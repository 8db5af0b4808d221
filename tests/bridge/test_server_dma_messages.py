"""DMA_READ and DMA_WRITE: the device's accesses to guest memory that came without a descriptor."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import struct
from collections.abc import Awaitable, Callable

import pytest

from pyvfio_user.bridge.dma import DmaError

from .bench import SCRATCH, START, Bench
from .raw import (
    DMA_MAP,
    DMA_READ,
    DMA_UNMAP,
    DMA_WRITE,
    ERROR,
    REGION_WRITE,
    REPLY,
    Raw,
    Received,
    access,
    dma_map,
    dma_unmap,
    message,
)

RAM = 0x4000_0000
PAGE = mmap.PAGESIZE


async def done(raw: Raw, command: int, body: bytes, fds: list[int] | None = None) -> bytes:
    reply = await raw.request(command, body, fds or [])
    assert (reply.flags, reply.fds) == (REPLY, []), reply
    return reply.body


def outside(bench: Bench, address: int, length: int) -> None:
    with pytest.raises(DmaError) as caught:
        bench.memory.read_mapped(address, length)
    assert str(caught.value) == (
        f"DMA read of {length} bytes at {address:#x} must lie within memory the guest mapped, not outside it"
    )


async def serve_dma(raw: Raw, memory: bytearray, base: int, count: int) -> list[tuple[int, int, int]]:
    """Answers `count` DMA requests out of `memory` at `base`; what was asked, as (command, address, length)."""
    asked = []
    for _ in range(count):
        request = await raw.receive()
        address, length = struct.unpack_from("<QQ", request.body)
        asked.append((request.command, address, length))
        at = address - base
        body = struct.pack("<QQ", address, length)
        if request.command == DMA_READ:
            assert len(request.body) == 16
            body += memory[at : at + length]
        else:
            assert len(request.body) == 16 + length
            memory[at : at + length] = request.body[16:]
        await raw.send(message(request.command, body, id=request.id, flags=REPLY))
    return asked


@pytest.mark.asyncio
async def test_memory_without_a_descriptor_is_asked_for_in_chunks(bench: Bench) -> None:
    chunk, size = 65536, 200_000
    memory = bytearray(os.urandom(256 * 1024))
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, len(memory)))
        with pytest.raises(DmaError):
            bench.memory.read_mapped(RAM, 4)
        reading = asyncio.create_task(bench.memory.read(RAM + 0x123, size))
        asked = await serve_dma(raw, memory, RAM, 4)
        assert await reading == memory[0x123 : 0x123 + size]
        assert asked == [(DMA_READ, RAM + 0x123 + at, min(chunk, size - at)) for at in range(0, size, chunk)]
        data = os.urandom(size)
        writing = asyncio.create_task(bench.memory.write(RAM + 1, data))
        asked = await serve_dma(raw, memory, RAM, 4)
        await writing
        assert memory[1 : 1 + size] == data
        assert asked == [(DMA_WRITE, RAM + 1 + at, min(chunk, size - at)) for at in range(0, size, chunk)]


@pytest.mark.asyncio
async def test_a_synchronous_access_is_answered_before_the_dma_that_it_starts(bench: Bench) -> None:
    """QEMU answers no DMA while it waits for a region access: the other order is a deadlock of five seconds."""
    memory = bytearray(b"text" * 1024)
    tasks: list[asyncio.Task[bytes]] = []
    bench.device.started = lambda: tasks.append(asyncio.create_task(bench.memory.read(RAM, 4)))
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        await raw.send(message(REGION_WRITE, access(0, START, 4, bytes(4)), id=77))
        reply = await raw.receive()
        assert (reply.id, reply.command, reply.flags) == (77, REGION_WRITE, REPLY)
        assert await serve_dma(raw, memory, RAM, 1) == [(DMA_READ, RAM, 4)]
        assert await tasks[0] == b"text"


@pytest.mark.asyncio
async def test_accesses_are_served_while_dma_waits(bench: Bench) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        reading = asyncio.create_task(bench.memory.read(RAM, 4))
        request = await raw.receive()
        await raw.write(0, SCRATCH, b"busy")
        assert await raw.read(0, SCRATCH, 4) == b"busy"
        body = request.body + b"late"
        await raw.send(message(DMA_READ, body, id=request.id, flags=REPLY))
        assert await reading == b"late"


@pytest.mark.asyncio
async def test_replies_in_the_other_order(bench: Bench) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        tasks = [asyncio.create_task(bench.memory.read(RAM + 4 * n, 4)) for n in range(3)]
        requests = [await raw.receive() for _ in range(3)]
        assert len({request.id for request in requests}) == 3
        for request in reversed(requests):
            await raw.send(message(DMA_READ, request.body + request.body[:4], id=request.id, flags=REPLY))
        assert [await task for task in tasks] == [struct.pack("<I", RAM + 4 * n) for n in range(3)]


def _error(request: Received) -> bytes:
    return struct.pack("<HHIII", request.id, request.command, 16, REPLY | ERROR, errno.EFAULT)


def _answer(body: Callable[[Received], bytes]) -> Callable[[Received], bytes]:
    return lambda request: message(request.command, body(request), id=request.id, flags=REPLY)


WRONG: dict[str, Callable[[Received], bytes]] = {
    "error": _error,
    "no data": _answer(lambda request: request.body),
    "too little": _answer(lambda request: request.body + b"123"),
    "too much": _answer(lambda request: request.body + b"12345"),
    "empty": _answer(lambda request: b""),
    "other address": _answer(lambda request: struct.pack("<QQ", RAM + 4, 4) + b"1234"),
    "other length": _answer(lambda request: struct.pack("<QQ", RAM, 3) + b"1234"),
    "huge length": _answer(lambda request: struct.pack("<QQ", RAM, (1 << 64) - 1) + b"1234"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.asyncio
async def test_a_wrong_answer_is_a_dma_error_and_the_server_lives(bench: Bench, wrong: str) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        reading = asyncio.create_task(bench.memory.read(RAM, 4))
        await raw.send(WRONG[wrong](await raw.receive()))
        with pytest.raises(DmaError) as caught:
            await reading
        assert str(caught.value).startswith(f"DMA read of 4 bytes at {RAM:#x} ")
    await bench.check_alive()


@pytest.mark.asyncio
async def test_a_reply_of_another_command_is_no_answer(bench: Bench) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        reading = asyncio.create_task(bench.memory.read(RAM, 4))
        request = await raw.receive()
        await raw.send(message(REGION_WRITE, request.body + b"1234", id=request.id, flags=REPLY))
        await bench.until(reading.done)
        with pytest.raises(DmaError):
            await reading
    await bench.check_alive()


@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.asyncio
async def test_a_client_that_leaves_in_the_middle_of_dma(bench: Bench, access: str) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, 64 * PAGE))
        doing: Awaitable[object] = (
            bench.memory.read(RAM, 200_000) if access == "read" else bench.memory.write(RAM, bytes(200_000))
        )
        task = asyncio.ensure_future(doing)
        await raw.receive()
    with pytest.raises(DmaError) as caught:
        await task
    assert caught.value.errno in (errno.ECONNRESET, errno.ENOTCONN)
    with pytest.raises(DmaError):
        await bench.memory.read(RAM, 4)
    await bench.check_alive()


@pytest.mark.asyncio
async def test_memory_unmapped_while_a_message_is_under_way(bench: Bench) -> None:
    """QEMU may answer with an error then, or with the data; either ends the access."""
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        reading = asyncio.create_task(bench.memory.read(RAM, 4))
        request = await raw.receive()
        await done(raw, DMA_UNMAP, dma_unmap(RAM, PAGE))
        await raw.send(_error(request))
        with pytest.raises(DmaError):
            await reading
        outside(bench, RAM, 4)


@pytest.mark.asyncio
async def test_a_client_that_negotiated_small_transfers_gets_small_ones(bench: Bench) -> None:
    memory = bytearray(os.urandom(3 * 4096))
    async with Raw.connect(bench.path, negotiate=False) as raw:
        reply = await raw.request(1, bytes(4) + b'{"capabilities":{"max_data_xfer_size":4096}}\0')
        assert reply.flags == REPLY
        await raw.write(7, 4, b"\x06\0")
        await done(raw, DMA_MAP, dma_map(RAM, len(memory)))
        reading = asyncio.create_task(bench.memory.read(RAM, 10_000))
        asked = await serve_dma(raw, memory, RAM, 3)
        assert await reading == memory[:10_000]
        assert [length for _, _, length in asked] == [4096, 4096, 1808]
