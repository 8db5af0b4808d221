"""Clients that come, work and leave, one after another, each in another way."""

from __future__ import annotations

import os
from pathlib import Path

from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.server import Server

from ..bridge.bench import DOORBELL, SCRATCH, BenchDevice
from ..bridge.raw import DMA_MAP, Raw, dma_map, message

RAM = 0x4000_0000


async def session(device: BenchDevice, server: Server, number: int) -> None:
    """One client, from its connect until the server saw it leave."""
    await (_works, _works, _vanishes, _says_nothing)[number % 4](device, server.path)
    await server.wait_disconnected()
    device.rings.clear()


async def _works(device: BenchDevice, path: Path) -> None:
    async with Client.connect(path) as client:
        await client.config.set_bus_master(True)
        ram = await client.add_memory(RAM, 1 << 16)
        await client.add_memory(2 * RAM, 1 << 16, shared=False)
        await client.config.enable_msix()
        device.interrupts.fire(1)
        assert await client.msix[1].wait() == 1
        await client.bars[0].write(SCRATCH, 5, 4)
        await client.bars[0].post(DOORBELL, 6, 4)
        assert await client.bars[0].read(SCRATCH, 4) == 5
        await device.memory.write(RAM, b"mapped")
        await device.memory.write(2 * RAM, b"by message")
        assert bytes(ram.memory[:6]) == b"mapped"
        client.mapped(2)[0] = 1


async def _vanishes(device: BenchDevice, path: Path) -> None:
    """In the middle of a message, whose descriptor has come."""
    fd = os.memfd_create("soak")
    os.truncate(fd, 4096)
    async with Raw.connect(path) as raw:
        assert (await raw.request(DMA_MAP, dma_map(0, 4096), [fd])).errno == 0
        await raw.send(message(DMA_MAP, dma_map(4096, 4096))[:20], [fd])
    os.close(fd)


async def _says_nothing(device: BenchDevice, path: Path) -> None:
    async with Raw.connect(path, negotiate=False):
        pass
