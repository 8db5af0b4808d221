"""A client as the Rust vfio-user crate is: it checks no error flag, and reads replies of the sizes it expects.

So whatever it may ask for must be answered with success, in exactly that size: a byte less and it waits for ever.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .bench import BAR2_SIZE, COUNTER, MEMORY, MSIX_VECTORS, SCRATCH, Bench
from .raw import (
    DEVICE_GET_INFO,
    DMA_MAP,
    DMA_READ,
    DMA_UNMAP,
    GET_IRQ_INFO,
    GET_REGION_INFO,
    HEADER,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    RESET,
    SET_IRQS,
    VERSION,
    Raw,
    Received,
    access,
    capabilities,
    dma_map,
    dma_unmap,
    message,
    set_irqs,
    version,
)

JSON = b'{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0'


class Crate:
    """Counts the bytes of each reply, and takes nothing for an error."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self._next_id = 0

    async def ask(self, command: int, body: bytes, size: int, *fds: int) -> Received:
        """Sends a command; its reply must be of `size` bytes, header included, with at most one descriptor."""
        self._next_id += 1
        await self.raw.send(message(command, body, id=self._next_id), fds)
        reply = await self.raw.receive()
        assert (reply.id, reply.command, reply.flags, reply.errno) == (self._next_id, command, REPLY, 0)
        assert HEADER.size + len(reply.body) == size
        assert len(reply.fds) <= 1
        return reply

    async def read(self, region: int, offset: int, count: int) -> bytes:
        """REGION_READ."""
        return (await self.ask(REGION_READ, access(region, offset, count), 32 + count)).body[16:]

    async def write(self, region: int, offset: int, data: bytes) -> None:
        """REGION_WRITE."""
        await self.ask(REGION_WRITE, access(region, offset, len(data), data), 32)

    async def region(self, index: int) -> tuple[int, list[int]]:
        """The size of a region and its descriptors, asked for as the crate does: twice when there is more."""
        reply = await self.ask(GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0), 48)
        argsz, _, _, _, size, _ = struct.unpack_from("<IIIIQQ", reply.body)
        if argsz > 32:
            assert reply.fds == []
            reply = await self.ask(GET_REGION_INFO, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0), 16 + argsz)
            assert struct.unpack_from("<I", reply.body) == (argsz,), "the crate asserts that it is the message's size"
        return size, reply.fds


@asynccontextmanager
async def crate(bench: Bench) -> AsyncIterator[Crate]:
    """A client that has negotiated as the crate does: version 0.1, one descriptor a message."""
    async with Raw.connect(bench.path, negotiate=False) as raw:
        reply = await raw.request(VERSION, version(JSON, minor=1))
        assert reply.flags == REPLY
        offered = capabilities(reply)
        assert offered["max_data_xfer_size"] == 1 << 20
        assert "write_multiple" not in offered, "it was not proposed"
        yield Crate(raw)


@pytest.mark.asyncio
async def test_it_finds_the_device(bench: Bench) -> None:
    async with crate(bench) as client:
        reply = await client.ask(DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0), 32)
        _, _, regions, irqs = struct.unpack("<IIII", reply.body)
        found = [await client.region(index) for index in range(regions)]
        assert [size for size, _ in found] == [0x10000, 0, BAR2_SIZE, 0, 0x1000, 0, 0, 0x1000, 0]
        assert [len(fds) for _, fds in found] == [0, 0, 1, 0, 0, 0, 0, 0, 0]
        os.close(found[2][1][0])
        counts = []
        for index in range(irqs):
            reply = await client.ask(GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0), 32)
            counts.append(struct.unpack("<IIII", reply.body)[3])
        assert counts == [1, 4, MSIX_VECTORS, 1, 0]


@pytest.mark.asyncio
async def test_every_reply_has_the_size_it_waits_for(bench: Bench) -> None:
    fd = os.memfd_create("ram")
    os.truncate(fd, 1 << 20)
    async with crate(bench) as client:
        await client.write(7, 4, b"\6\0")
        await client.write(0, SCRATCH, b"\1\2\3\4")
        assert await client.read(0, SCRATCH, 4) == b"\1\2\3\4"
        assert await client.read(0, COUNTER, 4) == b"\1\0\0\0", "by a handler"
        for count in (1, 2, 4, 8, 4096):
            await client.write(0, MEMORY, bytes(range(256)) * 16)
            assert await client.read(0, MEMORY, count) == (bytes(range(256)) * 16)[:count]
        assert await client.read(7, 0, 256) == await client.read(7, 0, 128) + await client.read(7, 128, 128)
        await client.ask(DMA_MAP, dma_map(0x10_0000, 1 << 20), 16, fd)
        bench.memory.write_mapped(0x10_0000, b"to the guest")
        assert os.pread(fd, 12, 0) == b"to the guest"
        await client.ask(DMA_UNMAP, dma_unmap(0x10_0000, 1 << 20), 40)
        eventfd = os.eventfd(0, os.EFD_NONBLOCK)
        for vector in range(MSIX_VECTORS):
            await client.ask(SET_IRQS, set_irqs(0x24, 2, vector, 1), 16, eventfd)
        assert bench.interrupts.fire(MSIX_VECTORS - 1)
        assert os.eventfd_read(eventfd) == 1
        await client.ask(SET_IRQS, set_irqs(0x21, 2, 0, 0), 16)
        await client.ask(RESET, b"", 16)
        os.close(eventfd)
    os.close(fd)


@pytest.mark.asyncio
async def test_dma_that_it_does_not_know_holds_nothing_up(bench: Bench) -> None:
    """It has no DMA_READ: the request lies there, the crate's own go on, and it fails when the client leaves."""
    async with crate(bench) as client:
        await client.write(7, 4, b"\6\0")
        await client.ask(DMA_MAP, dma_map(0, 4096), 16)
        reading = asyncio.create_task(bench.memory.read(0, 4))
        unknown = await client.raw.receive()
        assert (unknown.command, unknown.flags, unknown.body) == (DMA_READ, 0, struct.pack("<QQ", 0, 4))
        for value in range(100):
            await client.write(0, SCRATCH, bytes([value]))
            assert await client.read(0, SCRATCH, 1) == bytes([value])
        assert not reading.done()
    with pytest.raises(OSError, match=r"^DMA read of 4 bytes at 0x0 failed at the client: ") as caught:
        await asyncio.wait_for(reading, 5)
    assert caught.value.errno == errno.ECONNRESET
