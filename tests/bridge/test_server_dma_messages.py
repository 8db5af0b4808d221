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
    size = 200_000
    memory = bytearray(os.urandom(256 * 1024))
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, len(memory)))
        with pytest.raises(DmaError):
            bench.memory.read_mapped(RAM, 4)
        reading = asyncio.create_task(bench.memory.read(RAM + 0x123, size))
        asked = await serve_dma(raw, memory, RAM, 7)
        assert await reading == memory[0x123 : 0x123 + size]
        assert asked == [(DMA_READ, RAM + 0x123 + at, min(32768, size - at)) for at in range(0, size, 32768)]
        data = os.urandom(size)
        writing = asyncio.create_task(bench.memory.write(RAM + 1, data))
        asked = await serve_dma(raw, memory, RAM, 4)
        await writing
        assert memory[1 : 1 + size] == data
        assert asked == [(DMA_WRITE, RAM + 1 + at, min(65536, size - at)) for at in range(0, size, 65536)]


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
    "error without a number": lambda request: struct.pack("<HHIII", request.id, request.command, 16, REPLY | ERROR, 0),
    "error without a name": lambda request: struct.pack(
        "<HHIII", request.id, request.command, 16, REPLY | ERROR, ~0 & 0xFFFFFFFF
    ),
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


@pytest.mark.asyncio
async def test_each_failure_says_why(bench: Bench) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        for wrong, error, reason in [
            (_error, errno.EFAULT, "failed at the client: Bad address"),
            (WRONG["error without a number"], errno.EIO, "failed at the client: Input/output error"),
            (WRONG["error without a name"], errno.EIO, "failed at the client: Input/output error"),
            (WRONG["too much"], errno.EBADMSG, "must be answered with its address, its length, and all its bytes"),
        ]:
            reading = asyncio.create_task(bench.memory.read(RAM, 4))
            await raw.send(wrong(await raw.receive()))
            with pytest.raises(DmaError) as caught:
                await reading
            assert (caught.value.errno, str(caught.value)) == (error, f"DMA read of 4 bytes at {RAM:#x} {reason}")


@pytest.mark.asyncio
async def test_segments_are_copied_one_after_another(bench: Bench) -> None:
    memory = bytearray(os.urandom(2 * PAGE))
    before = bytes(memory)
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, len(memory)))
        buffer = bytearray(9)
        reading = asyncio.create_task(
            bench.memory.read_segments([(RAM, 0), (RAM + 7, 3), (RAM, 0), (RAM + PAGE, 4), (RAM + 1, 2)], buffer)
        )
        assert await serve_dma(raw, memory, RAM, 3) == [
            (DMA_READ, RAM + 7, 3), (DMA_READ, RAM + PAGE, 4), (DMA_READ, RAM + 1, 2),
        ]  # fmt: skip
        await reading
        assert buffer == before[7:10] + before[PAGE : PAGE + 4] + before[1:3]
        writing = asyncio.create_task(bench.memory.write_segments([(RAM + 9, 2), (RAM + 3, 1)], b"abc"))
        assert await serve_dma(raw, memory, RAM, 2) == [(DMA_WRITE, RAM + 9, 2), (DMA_WRITE, RAM + 3, 1)]
        await writing
        assert memory == before[:3] + b"c" + before[4:9] + b"ab" + before[11:]


@pytest.mark.asyncio
async def test_four_messages_are_under_way_and_each_access_has_its_turn(bench: Bench) -> None:
    chunk = 32768
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, 1 << 20))
        long = asyncio.create_task(bench.memory.read(RAM, 6 * chunk))
        requests = [await raw.receive() for _ in range(4)]
        short = asyncio.create_task(bench.memory.read(RAM + 6 * chunk, 4))
        await asyncio.sleep(0)
        await raw.alive()  # its reply is all that comes
        order = []
        while requests:
            request = requests.pop(0)
            address, length = struct.unpack("<QQ", request.body)
            order.append((address - RAM) // chunk)
            await raw.send(message(DMA_READ, request.body + bytes(length), id=request.id, flags=REPLY))
            if len(order) <= 3:
                requests.append(await raw.receive())
        assert order == [0, 1, 2, 3, 4, 6, 5]
        assert (await long, await short) == (bytes(6 * chunk), bytes(4))


@pytest.mark.asyncio
async def test_what_fails_ends_the_access_and_later_answers_are_nobodys(bench: Bench) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, 64 * PAGE))
        buffer = bytearray(3 * 32768)
        reading = asyncio.create_task(bench.memory.read_segments([(RAM, len(buffer))], buffer))
        requests = [await raw.receive() for _ in range(3)]
        await raw.send(_error(requests[1]))
        with pytest.raises(
            DmaError, match=f"^DMA read of 32768 bytes at {RAM + 32768:#x} failed at the client: Bad addr"
        ):
            await reading
        for request in requests[::2]:
            await raw.send(message(DMA_READ, request.body + b"?" * 32768, id=request.id, flags=REPLY))
        await raw.alive()
        assert buffer == bytes(3 * 32768)


@pytest.mark.asyncio
async def test_who_cancels_an_access_has_its_buffer_back(bench: Bench) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        buffer = bytearray(4)
        reading = asyncio.create_task(bench.memory.read_segments([(RAM, 4)], buffer))
        request = await raw.receive()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        buffer += b"more"
        await raw.send(message(DMA_READ, request.body + b"late", id=request.id, flags=REPLY))
        await raw.alive()
        assert buffer == b"\0\0\0\0more"
        again = asyncio.create_task(bench.memory.read(RAM, 4))
        await serve_dma(raw, bytearray(b"text"), RAM, 1)
        assert await again == b"text"


@pytest.mark.asyncio
async def test_an_access_waits_for_a_client_that_is_slow_to_read(bench: Bench) -> None:
    """Those given up leave their messages behind: no more wait to be sent than there is room for."""
    size = 16 * 65536
    data = os.urandom(size)
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, size))
        given_up = []
        for _ in range(16):
            given_up.append(asyncio.create_task(bench.memory.write(RAM, bytes(size))))
            await asyncio.sleep(0)
            given_up[-1].cancel()
        memory = bytearray(size)
        writing = asyncio.create_task(bench.memory.write(RAM, data))
        await asyncio.gather(*given_up, return_exceptions=True)
        while not writing.done():
            await asyncio.wait_for(serve_dma(raw, memory, RAM, 1), 10)
        await writing
        assert memory == data


@pytest.mark.asyncio
async def test_descriptors_beside_an_answer_are_closed(bench: Bench) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE))
        before = bench.descriptors()
        reading = asyncio.create_task(bench.memory.read(RAM, 4))
        request = await raw.receive()
        fd = os.memfd_create("stray")
        await raw.send(message(DMA_READ, request.body + b"text", id=request.id, flags=REPLY), [fd])
        os.close(fd)
        assert await reading == b"text"
        assert bench.leaked(before) == []


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
