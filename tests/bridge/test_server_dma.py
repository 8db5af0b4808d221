"""DMA_MAP and DMA_UNMAP in all their forms, and the device's accesses to memory that was mapped."""

from __future__ import annotations

import errno
import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvfio_user.bridge.dma import DmaError

from .bench import Bench
from .raw import (
    DMA_MAP,
    DMA_UNMAP,
    REPLY,
    Raw,
    dma_map,
    dma_unmap,
    message,
)

RAM = 0x4000_0000
PAGE = mmap.PAGESIZE


@pytest.fixture
def ram() -> Iterator[int]:
    """A descriptor of 16 pages."""
    fd = os.memfd_create("test-ram")
    os.truncate(fd, 16 * PAGE)
    yield fd
    os.close(fd)


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


@pytest.mark.asyncio
async def test_mapped_memory_is_shared_both_ways(bench: Bench, ram: int) -> None:
    async with bench.connect() as raw:
        assert await done(raw, DMA_MAP, dma_map(RAM, 4 * PAGE, offset=PAGE), [ram]) == b""
        os.pwrite(ram, b"from the guest", PAGE + 0x10)
        assert bench.memory.read_mapped(RAM + 0x10, 14) == b"from the guest"
        bench.memory.write_mapped(RAM + 4 * PAGE - 4, b"tail")
        assert os.pread(ram, 4, 5 * PAGE - 4) == b"tail"
        assert await bench.memory.read(RAM + 4 * PAGE - 4, 4) == b"tail"


@pytest.mark.asyncio
async def test_bounds_are_kept_at_both_ends(bench: Bench, ram: int) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE), [ram])
        outside(bench, RAM - 1, 1)
        outside(bench, RAM - 1, 2)
        outside(bench, RAM + PAGE - 1, 2)
        outside(bench, RAM + PAGE, 1)
        outside(bench, 0, 1)
        outside(bench, (1 << 64) - 1, 2)
        assert bench.memory.read_mapped(RAM, PAGE) == bytes(PAGE)


@pytest.mark.asyncio
async def test_an_access_may_cross_maps_that_touch(bench: Bench, ram: int) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM + PAGE, PAGE, offset=0), [ram])
        await done(raw, DMA_MAP, dma_map(RAM, PAGE, offset=8 * PAGE), [ram])
        bench.memory.write_mapped(RAM + PAGE - 2, b"abcd")
        assert os.pread(ram, 2, 9 * PAGE - 2) == b"ab"
        assert os.pread(ram, 2, 0) == b"cd"


@pytest.mark.asyncio
async def test_read_only_memory_cannot_be_written(bench: Bench, ram: int) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE, flags=1), [ram])
        assert bench.memory.read_mapped(RAM, 1) == b"\0"
        with pytest.raises(DmaError):
            bench.memory.write_mapped(RAM, b"x")
        with pytest.raises(DmaError):
            await bench.memory.write(RAM, b"x")
        assert os.pread(ram, 1, 0) == b"\0"


@pytest.mark.asyncio
async def test_the_last_page_of_the_address_space(bench: Bench, ram: int) -> None:
    top = (1 << 64) - PAGE
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(top, PAGE), [ram])
        bench.memory.write_mapped((1 << 64) - 2, b"zz")
        assert os.pread(ram, 2, PAGE - 2) == b"zz"
        assert await done(raw, DMA_UNMAP, dma_unmap(top, PAGE)) == dma_unmap(top, PAGE)


@pytest.mark.asyncio
async def test_unmap_answers_with_the_request_and_takes_the_memory(bench: Bench, ram: int) -> None:
    async with bench.connect() as raw:
        before = bench.descriptors()
        await done(raw, DMA_MAP, dma_map(RAM, PAGE), [ram])
        await done(raw, DMA_MAP, dma_map(RAM + PAGE, PAGE, offset=PAGE), [ram])
        assert await done(raw, DMA_UNMAP, dma_unmap(RAM, PAGE)) == dma_unmap(RAM, PAGE)
        outside(bench, RAM, 1)
        assert bench.memory.read_mapped(RAM + PAGE, 1) == b"\0"
        assert await done(raw, DMA_UNMAP, dma_unmap(RAM + PAGE, PAGE)) == dma_unmap(RAM + PAGE, PAGE)
        assert bench.leaked(before) == []
        assert "test-ram" not in Path("/proc/self/maps").read_text()


@pytest.mark.asyncio
async def test_unmap_all(bench: Bench, ram: int) -> None:
    async with bench.connect() as raw:
        for page in range(8):
            await done(raw, DMA_MAP, dma_map(RAM + 2 * page * PAGE, PAGE), [ram])
        assert await done(raw, DMA_UNMAP, dma_unmap(0, 0, flags=2)) == dma_unmap(0, 0, flags=2)
        assert bench.memory.maps == 0
        for page in range(8):
            outside(bench, RAM + 2 * page * PAGE, 1)
        await done(raw, DMA_MAP, dma_map(RAM, PAGE), [ram])
        assert bench.memory.maps == 1


@pytest.mark.asyncio
async def test_qemus_maps_before_device_info(bench: Bench, ram: int) -> None:
    """QEMU maps each RAM section and mapped BARs of other devices, pipelined, right after VERSION."""
    async with Raw.connect(bench.path) as raw:
        for number in range(10):
            fds = [ram] if number % 2 else []
            await raw.send(
                message(DMA_MAP, dma_map(RAM + number * PAGE, PAGE, offset=number % 2 * PAGE), id=number), fds
            )
        for number in range(10):
            reply = await raw.receive()
            assert (reply.id, reply.flags, reply.body) == (number, REPLY, b"")
        await raw.alive()
        assert bench.memory.maps == 10


@pytest.mark.parametrize(("base", "size"), [
    (RAM, PAGE), (RAM, 4 * PAGE), (RAM - PAGE, 2 * PAGE), (RAM + PAGE, PAGE), (RAM + 3 * PAGE, 2 * PAGE),
    (RAM - PAGE, 6 * PAGE),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_map_over_another_is_eexist(bench: Bench, ram: int, base: int, size: int) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, 4 * PAGE), [ram])
        before = bench.descriptors()
        assert await raw.refused(DMA_MAP, dma_map(base, size), [ram]) == errno.EEXIST
        assert await raw.refused(DMA_MAP, dma_map(base, size)) == errno.EEXIST
        assert bench.leaked(before) == []
        assert bench.memory.read_mapped(RAM, 4 * PAGE) == bytes(4 * PAGE)


@pytest.mark.parametrize("body", [
    b"", dma_map(RAM, PAGE)[:-1], dma_map(RAM, PAGE, argsz=31), dma_map(RAM, 0), dma_map(RAM + 1, PAGE),
    dma_map(RAM, PAGE - 1), dma_map(RAM, PAGE, offset=1), dma_map((1 << 64) - PAGE, 2 * PAGE),
    dma_map(RAM, (1 << 64) - PAGE), dma_map(RAM, 17 * PAGE), dma_map(RAM, PAGE, offset=16 * PAGE),
    dma_map(RAM, PAGE, offset=(1 << 64) - PAGE), dma_map(RAM, PAGE, flags=4), dma_map(RAM, PAGE, flags=0xFFFF_FFFF),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_map_that_makes_no_sense_is_refused(bench: Bench, ram: int, body: bytes) -> None:
    """A file that is too short would be a SIGBUS in the server."""
    async with bench.connect() as raw:
        before = bench.descriptors()
        assert await raw.refused(DMA_MAP, body, [ram]) == errno.EINVAL
        assert bench.leaked(before) == []
        assert bench.memory.maps == 0
        await raw.alive()


@pytest.mark.asyncio
async def test_a_descriptor_that_cannot_be_mapped_is_refused(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    try:
        async with bench.connect() as raw:
            before = bench.descriptors()
            assert await raw.refused(DMA_MAP, dma_map(RAM, PAGE), [reading]) == errno.EOPNOTSUPP
            assert "DMA_MAP was refused: [Errno 95] guest memory must be a memfd, or a file on " in caplog.text
            assert bench.leaked(before) == []
            assert bench.memory.maps == 0
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.asyncio
async def test_an_unmap_of_nothing_is_refused_and_is_no_offence(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """QEMU does it behind an IOMMU, of a page of the ITS, which it could not map either."""
    caplog.set_level(logging.INFO, "pyvfio_user.bridge")
    async with bench.connect() as raw:
        assert await raw.refused(DMA_UNMAP, dma_unmap(0x800_0000, PAGE)) == errno.ENOENT
        await raw.alive()
    refused = [each for each in caplog.records if "DMA_UNMAP was refused: [Errno 2]" in each.getMessage()]
    assert [each.levelno for each in refused] == [logging.INFO]


@pytest.mark.asyncio
async def test_two_descriptors_are_refused(bench: Bench, ram: int) -> None:
    async with bench.connect() as raw:
        before = bench.descriptors()
        assert await raw.refused(DMA_MAP, dma_map(RAM, PAGE), [ram, ram]) == errno.EINVAL
        assert bench.leaked(before) == []


@pytest.mark.parametrize("body", [
    b"", dma_unmap(RAM, 4 * PAGE)[:-1], dma_unmap(RAM, 4 * PAGE, argsz=23), dma_unmap(RAM, PAGE),
    dma_unmap(RAM + PAGE, PAGE), dma_unmap(RAM + PAGE, 4 * PAGE), dma_unmap(RAM, 0), dma_unmap(0x1000, PAGE),
    dma_unmap(RAM, 4 * PAGE, flags=1), dma_unmap(RAM, 4 * PAGE, flags=2), dma_unmap(0, PAGE, flags=2),
    dma_unmap(RAM, (1 << 64) - 1),
])  # fmt: skip
@pytest.mark.asyncio
async def test_an_unmap_that_makes_no_sense_is_refused(bench: Bench, ram: int, body: bytes) -> None:
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, 4 * PAGE), [ram])
        assert await raw.refused(DMA_UNMAP, body) in (errno.EINVAL, errno.ENOENT)
        assert bench.memory.maps == 1
        assert bench.memory.read_mapped(RAM, 4 * PAGE) == bytes(4 * PAGE)


@pytest.mark.asyncio
async def test_bus_master_enable_is_honoured(bench: Bench, ram: int) -> None:
    async with Raw.connect(bench.path) as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE), [ram])
        await done(raw, DMA_MAP, dma_map(RAM + PAGE, PAGE))
        for address in (RAM, RAM + PAGE):
            with pytest.raises(DmaError) as caught:
                await bench.memory.read(address, 4)
            assert caught.value.errno == errno.EPERM
            with pytest.raises(DmaError):
                await bench.memory.write(address, b"1234")
        with pytest.raises(DmaError):
            bench.memory.write_mapped(RAM, b"1234")
        assert os.pread(ram, 4, 0) == bytes(4)
        await raw.write(7, 4, b"\x04\0")
        bench.memory.write_mapped(RAM, b"1234")
        await raw.write(7, 4, b"\0\0")
        with pytest.raises(DmaError):
            bench.memory.read_mapped(RAM, 4)
        await raw.alive()


@pytest.mark.asyncio
async def test_a_client_that_leaves_takes_its_memory_along(bench: Bench, ram: int) -> None:
    before = bench.descriptors()
    async with bench.connect() as raw:
        await done(raw, DMA_MAP, dma_map(RAM, PAGE), [ram])
    await bench.server.wait_disconnected()
    assert bench.memory.maps == 0
    assert bench.leaked(before) == []
