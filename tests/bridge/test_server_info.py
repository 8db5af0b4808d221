"""DEVICE_GET_INFO, GET_REGION_INFO and GET_IRQ_INFO: what QEMU asks while it realizes the device."""

from __future__ import annotations

import errno
import mmap
import os
import struct

import pytest

from .bench import BAR0_SIZE, BAR2_AREAS, BAR2_SIZE, MSI_VECTORS, MSIX_SIZE, MSIX_VECTORS, Bench
from .raw import DEVICE_GET_INFO, GET_IRQ_INFO, GET_REGION_INFO, REPLY, Raw, Received


async def region_info(raw: Raw, index: int, argsz: int) -> Received:
    return await raw.request(GET_REGION_INFO, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0))


async def irq_info(raw: Raw, index: int) -> tuple[int, ...]:
    reply = await raw.request(GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0))
    assert reply.flags == REPLY
    return struct.unpack("<IIII", reply.body)


@pytest.mark.asyncio
async def test_device_info(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        reply = await raw.request(DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
    argsz, flags, regions, irqs = struct.unpack("<IIII", reply.body)
    assert (argsz, flags) == (16, 3)
    assert 8 <= regions <= 100
    assert 4 <= irqs <= 50, "QEMU asks for ERR (3) too"


@pytest.mark.parametrize("body", [b"", bytes(15), struct.pack("<IIII", 15, 0, 0, 0), struct.pack("<I", 16)])
@pytest.mark.asyncio
async def test_a_device_info_request_too_short_is_refused(bench: Bench, body: bytes) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await raw.refused(DEVICE_GET_INFO, body) == errno.EINVAL
        await raw.alive()


@pytest.mark.parametrize(("index", "flags", "size"), [
    (0, 3, BAR0_SIZE), (1, 0, 0), (3, 0, 0), (4, 3, MSIX_SIZE), (5, 0, 0), (6, 0, 0), (7, 3, 4096), (8, 0, 0),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_region_without_areas_needs_32_bytes_and_carries_no_descriptor(
    bench: Bench, index: int, flags: int, size: int
) -> None:
    async with Raw.connect(bench.path) as raw:
        reply = await region_info(raw, index, 32)
    assert (reply.flags, reply.fds, len(reply.body)) == (REPLY, [], 32)
    argsz, got_flags, got_index, cap_offset, got_size, _ = struct.unpack("<IIIIQQ", reply.body)
    assert (argsz, got_index, cap_offset, got_size) == (32, index, 0, size)
    assert got_flags == flags or size == 0, "an absent region's access flags are of no account"


@pytest.mark.asyncio
async def test_sparse_areas_are_announced_first_and_sent_when_there_is_room(bench: Bench) -> None:
    needed = 32 + 16 + 16 * len(BAR2_AREAS)
    async with Raw.connect(bench.path) as raw:
        reply = await region_info(raw, 2, 32)
        assert (reply.flags, len(reply.body)) == (REPLY, 32)
        argsz, flags, index, _, size, offset = struct.unpack("<IIIIQQ", reply.body)
        assert (argsz, index, size) == (needed, 2, BAR2_SIZE)
        assert flags == 7, "readable, writable and mapped, but without CAPS: they did not fit"
        assert len(reply.fds) <= 1
        for fd in reply.fds:
            os.close(fd)

        reply = await region_info(raw, 2, needed)
        assert (reply.flags, len(reply.fds)) == (REPLY, 1), "exactly one descriptor a region"
        expected = struct.pack("<IIIIQQ", needed, 15, 2, 32, BAR2_SIZE, offset)
        expected += struct.pack("<HHIII", 1, 1, 0, len(BAR2_AREAS), 0)
        expected += b"".join(struct.pack("<QQ", start, length) for start, length in BAR2_AREAS)
        assert reply.body == expected
        (fd,) = reply.fds
        try:
            assert os.fstat(fd).st_size >= offset + BAR2_SIZE
            for start, length in BAR2_AREAS:
                with mmap.mmap(fd, length, offset=offset + start) as area:
                    area[8:16] = b"%08x" % start
                    assert await raw.read(2, start + 8, 8) == b"%08x" % start
                    await raw.write(2, start + length - 4, b"tail")
                    assert area[-4:] == b"tail"
            with pytest.raises(OSError, match="Operation not permitted"):
                os.ftruncate(fd, 4096)
            with pytest.raises(OSError, match="Operation not permitted"):
                os.ftruncate(fd, 1 << 30)
        finally:
            os.close(fd)


@pytest.mark.parametrize("spare", [0, 1, 4000, 0xFFFF_FF00])
@pytest.mark.asyncio
async def test_more_room_than_needed_changes_nothing(bench: Bench, spare: int) -> None:
    needed = 32 + 16 + 16 * len(BAR2_AREAS)
    async with Raw.connect(bench.path) as raw:
        reply = await region_info(raw, 2, needed + spare)
        assert len(reply.body) == needed
        assert struct.unpack_from("<I", reply.body)[0] == needed
        for fd in reply.fds:
            os.close(fd)


@pytest.mark.parametrize("argsz", [33, 48, 79])
@pytest.mark.asyncio
async def test_too_little_room_for_all_capabilities_gets_none(bench: Bench, argsz: int) -> None:
    async with Raw.connect(bench.path) as raw:
        reply = await region_info(raw, 2, argsz)
        assert len(reply.body) == 32, "a reply larger than argsz breaks QEMU"
        assert struct.unpack_from("<II", reply.body) == (32 + 16 + 16 * len(BAR2_AREAS), 7)
        for fd in reply.fds:
            os.close(fd)


@pytest.mark.parametrize("body", [
    b"", bytes(31), struct.pack("<IIIIQQ", 31, 0, 0, 0, 0, 0), struct.pack("<IIIIQQ", 0, 0, 0, 0, 0, 0),
    struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0), struct.pack("<IIIIQQ", 32, 0, 0xFFFF_FFFF, 0, 0, 0),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_bad_region_info_request_is_refused(bench: Bench, body: bytes) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await raw.refused(GET_REGION_INFO, body) == errno.EINVAL
        await raw.alive()


@pytest.mark.asyncio
async def test_intx_is_automasked(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await irq_info(raw, 0) == (16, 7, 0, 1)


@pytest.mark.asyncio
async def test_msi_and_msix_vectors_without_noresize(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        argsz, flags, index, count = await irq_info(raw, 1)
        assert (argsz, flags & 1, index, count) == (16, 1, 1, MSI_VECTORS)
        assert await irq_info(raw, 2) == (16, 1, 2, MSIX_VECTORS)


@pytest.mark.asyncio
async def test_err_is_offered_once(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await irq_info(raw, 3) == (16, 1, 3, 1)


@pytest.mark.parametrize("body", [
    b"", bytes(15), struct.pack("<IIII", 15, 0, 0, 0), struct.pack("<IIII", 16, 0, 50, 0),
    struct.pack("<IIII", 16, 0, 0xFFFF_FFFF, 0),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_bad_irq_info_request_is_refused(bench: Bench, body: bytes) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await raw.refused(GET_IRQ_INFO, body) == errno.EINVAL
        await raw.alive()
