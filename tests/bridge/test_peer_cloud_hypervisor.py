"""A client as cloud-hypervisor is: it sizes BARs in the device's own config space, and gives 16 descriptors at once."""

from __future__ import annotations

import os
import struct

import pytest

from .bench import MSI_VECTORS, MSIX_VECTORS, SCRATCH, Bench
from .raw import ERROR, REPLY, RESET, SET_IRQS, VERSION, Raw, capabilities, message, set_irqs, version

JSON = b'{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0'
BARS = range(0x10, 0x28, 4)


async def config(raw: Raw, offset: int) -> int:
    value: int = struct.unpack("<I", await raw.read(7, offset, 4))[0]
    return value


@pytest.mark.asyncio
async def test_bars_are_sized_by_config_writes(bench: Bench) -> None:
    async with bench.connect() as raw:
        masks = []
        for offset in BARS:
            before = await config(raw, offset)
            await raw.write(7, offset, b"\xff\xff\xff\xff")
            masks.append(await config(raw, offset))
            await raw.write(7, offset, struct.pack("<I", before))
            assert await config(raw, offset) == before
        assert masks == [0xFFFF_0000, 0, 0xFFFF_000C, 0xFFFF_FFFF, 0xFFFF_F000, 0]
        await raw.write(7, 0x30, b"\xff\xff\xff\xff")
        assert await config(raw, 0x30) == 0, "no expansion ROM"
        for offset, address in zip(BARS, (0x1000_0000, 0, 0x8000_0000, 0x12, 0x2000_0000, 0), strict=True):
            await raw.write(7, offset, struct.pack("<I", address))
        assert [await config(raw, offset) for offset in BARS] == [
            0x1000_0000, 0, 0x8000_000C, 0x12, 0x2000_0000, 0,
        ]  # fmt: skip
        await raw.write(0, SCRATCH, b"BARs")
        assert await raw.read(0, SCRATCH, 4) == b"BARs", "an access goes by region, wherever its BAR is"


@pytest.mark.asyncio
async def test_it_gives_more_descriptors_than_it_negotiated(bench: Bench) -> None:
    eventfds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(MSIX_VECTORS)]
    before = bench.descriptors()
    async with Raw.connect(bench.path, negotiate=False) as raw:
        reply = await raw.request(VERSION, version(JSON, minor=1))
        assert capabilities(reply)["max_msg_fds"] == 16
        await raw.write(7, 4, b"\6\0")
        for start in range(0, MSIX_VECTORS, 16):
            part = eventfds[start : start + 16]
            reply = await raw.request(SET_IRQS, set_irqs(0x24, 2, start, len(part)), part)
            assert reply.flags == REPLY
        for vector, eventfd in enumerate(eventfds):
            assert bench.interrupts.fire(vector)
            assert os.eventfd_read(eventfd) == 1
        reply = await raw.request(SET_IRQS, set_irqs(0x24, 1, 0, MSI_VECTORS), eventfds[:16])
        assert reply.flags == REPLY | ERROR, "16 for 4 vectors"
        await raw.alive()
    await bench.check_alive()
    assert bench.leaked(before) == []
    for eventfd in eventfds:
        os.close(eventfd)


@pytest.mark.asyncio
async def test_it_resets_before_it_asks_whether_it_may(bench: Bench) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        await raw.send(message(VERSION, version(JSON, minor=1), id=1) + message(RESET, id=2))
        assert [(reply.id, reply.flags) for reply in (await raw.receive(), await raw.receive())] == [
            (1, REPLY),
            (2, REPLY),
        ]
        assert bench.device.resets == 1
        await raw.alive()
