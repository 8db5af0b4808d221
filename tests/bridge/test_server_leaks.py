"""Nothing of the server's memory gets out: not what a reply before had, not what a client before left."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import mmap
import os
import struct

import pytest

from pyvfio_user.bridge.client import Client

from .bench import BAR2_AREAS, BAR2_SIZE, FAULTY, MEMORY, MEMORY_SIZE, MSIX_VECTORS, NOWHERE, Bench
from .raw import (
    DMA_MAP,
    DMA_UNMAP,
    ERROR,
    GET_IRQ_INFO,
    GET_REGION_INFO,
    NO_REPLY,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    RESET,
    SET_IRQS,
    Raw,
    access,
    dma_map,
    dma_unmap,
    message,
    set_irqs,
)

PBA = 0x800


async def stain(raw: Raw) -> None:
    """Fills the server's buffers with 0xAA, both ways."""
    await raw.write(0, MEMORY, b"\xaa" * MEMORY_SIZE)
    for _ in range(4):
        assert await raw.read(0, MEMORY, MEMORY_SIZE) == b"\xaa" * MEMORY_SIZE


@pytest.mark.asyncio
async def test_bytes_that_nothing_claims_read_zero(bench: Bench) -> None:
    async with bench.connect() as raw:
        await stain(raw)
        assert await raw.read(0, NOWHERE, MEMORY - NOWHERE) == bytes(MEMORY - NOWHERE)
        assert await raw.read(0, MEMORY - 8, 16) == bytes(8) + b"\xaa" * 8
        assert await raw.read(2, 0x1000, 0x1000) == bytes(0x1000), "between two mapped areas"
        assert await raw.read(2, 0x4000, BAR2_SIZE - 0x4000) == bytes(BAR2_SIZE - 0x4000)
        await raw.write(2, 0x1000, b"\xaa" * 0x1000)
        assert await raw.read(2, 0x1000, 0x1000) == bytes(0x1000)


@pytest.mark.asyncio
async def test_an_error_is_a_header_and_nothing_of_what_was_read_before_it(bench: Bench) -> None:
    async with bench.connect() as raw:
        await stain(raw)
        for region, offset, count, error in [
            (0, FAULTY, 4, errno.EIO),
            (0, FAULTY - 4, 8, errno.EIO),  # its first half was read
            (0, MEMORY, MEMORY_SIZE + 1, errno.EINVAL),
            (1, 0, 4, errno.EINVAL),
            (9, 0, 4, errno.EINVAL),
        ]:
            reply = await raw.request(REGION_READ, access(region, offset, count))
            assert (reply.flags, reply.errno, reply.body) == (REPLY | ERROR, error, b"")
        await raw.alive()


@pytest.mark.asyncio
async def test_replies_have_no_bytes_but_those_they_are_made_of(bench: Bench) -> None:
    fill = b"\xaa" * 64
    async with bench.connect() as raw:
        await stain(raw)
        reply = await raw.request(REGION_WRITE, access(0, NOWHERE, 64, fill))
        assert reply.body == access(0, NOWHERE, 64)
        reply = await raw.request(
            GET_REGION_INFO, struct.pack("<IIIIQQ", 32, *[0xAAAA_AAAA, 5, 0xAAAA_AAAA], 1, 1) + fill
        )
        assert reply.body == struct.pack("<IIIIQQ", 32, 0, 5, 0, 0, 0)
        reply = await raw.request(GET_IRQ_INFO, struct.pack("<IIII", 16, 0xAAAA_AAAA, 4, 0xAAAA_AAAA) + fill)
        assert reply.body == struct.pack("<IIII", 16, 1, 4, 0)
        assert (await raw.request(DMA_MAP, dma_map(0, 4096) + fill)).body == b""
        reply = await raw.request(DMA_UNMAP, dma_unmap(0, 4096) + fill)
        assert reply.body == dma_unmap(0, 4096)
        assert (await raw.request(SET_IRQS, set_irqs(0x21, 2, 0, 0) + fill)).body == b""
        assert (await raw.request(RESET, fill)).body == b""
        await raw.send(message(REGION_WRITE, access(0, NOWHERE, 64, fill), flags=NO_REPLY))
        await raw.alive()


@pytest.mark.asyncio
async def test_config_space_is_what_it_was_for_the_client_before(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        fresh = await raw.read(7, 0, 4096)
        await stain(raw)
        assert await raw.read(7, 0, 4096) == fresh
        for offset in range(0, 4096, 4):
            await raw.write(7, offset, b"\xff\xff\xff\xff")
    await asyncio.wait_for(bench.server.wait_disconnected(), 5)
    async with Raw.connect(bench.path) as raw:
        assert await raw.read(7, 0, 4096) == fresh
    end = max(offset for offset in range(4096) if fresh[offset])
    assert end < 0x100, "no extended capability: all beyond the capabilities is zero"


@pytest.mark.asyncio
async def test_pending_bits_are_zero_but_for_what_fired_for_this_client(bench: Bench) -> None:
    async with bench.connect() as raw:
        await stain(raw)
        assert await raw.read(4, PBA, 0x100) == bytes(0x100)
        await raw.write(4, PBA, b"\xff" * 16)
        assert await raw.read(4, PBA, 0x100) == bytes(0x100), "read-only"
        await raw.request(SET_IRQS, set_irqs(0x24, 2, 0, 1), [fd := os.eventfd(0)])
        os.close(fd)
        for vector in range(1, MSIX_VECTORS):
            bench.interrupts.fire(vector)
        assert await raw.read(4, PBA, 8) == ((1 << MSIX_VECTORS) - 2).to_bytes(8, "little")
    await asyncio.wait_for(bench.server.wait_disconnected(), 5)
    async with bench.connect() as raw:
        assert await raw.read(4, PBA, 8) == bytes(8)


@pytest.mark.asyncio
async def test_a_window_is_sealed_against_its_client(bench: Bench) -> None:
    """No size but its own, no further seal, and a hole in it is zeros: nothing of it can end the server."""
    async with Client.connect(bench.path) as client:
        client.mapped(2)[0:4] = b"here"
        fd = os.dup(bench.device.endpoint.regions[2].fd or -1)  # the same open file that a client is sent
        try:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == seals
            for size in (0, 4096, BAR2_SIZE - 1, BAR2_SIZE + 1, 1 << 40):
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, size)
            with pytest.raises(PermissionError):
                os.posix_fallocate(fd, BAR2_SIZE, 4096)
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", BAR2_SIZE)
            with pytest.raises(PermissionError):
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
            assert os.fstat(fd).st_size == BAR2_SIZE
            offset, length = BAR2_AREAS[0]
            with mmap.mmap(fd, length, offset=offset) as area:
                area.madvise(mmap.MADV_REMOVE)  # punches a hole
        finally:
            os.close(fd)
        assert bytes(bench.device.bar2.memory[0:4]) == bytes(4)
        await client.bars[2].write(0, 0x6572_6568, 4)
        assert bytes(client.mapped(2)[0:4]) == b"here"
