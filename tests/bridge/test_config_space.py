"""The config space at work: what a guest's writes do, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.config_image import BarShape, MsixShape, PciId
from pyvfio_user.bridge.config_space import ConfigSpace
from pyvfio_user.bridge.endpoint import Endpoint
from pyvfio_user.bridge.interrupts import Interrupts
from pyvfio_user.bridge.server import serve

PMCSR = 0x44
MSI = 0x48
DEVICE_CONTROL = 0x64 + 8


class Function:
    """As little of a device as can be served: a config space that counts what it is told."""

    def __init__(self) -> None:
        self.changes = 0
        self.function_resets = 0
        self.config = ConfigSpace(
            PciId(0x1234, 0x5678, 0xFF0000),
            [BarShape(0, 0x1000), BarShape(2, 1 << 33, 64, True)],
            intx=True,
            msi=8,
            msix=MsixShape(4, 0, 0x0, 0, 0x800),
            changed=self.changed,
            function_reset=self.function_reset,
        )
        self.endpoint = Endpoint({7: self.config.region}, Interrupts(intx=True))

    def changed(self) -> None:
        self.changes += 1

    def function_reset(self) -> None:
        self.function_resets += 1
        self.config.region.reset()


@asynccontextmanager
async def attached(function: Function, folder: Path) -> AsyncIterator[Client]:
    async with serve(function, folder / "sock"), Client.connect(folder / "sock") as client:
        yield client


@pytest.mark.asyncio
async def test_flags_follow_the_command_register(tmp_path: Path) -> None:
    function = Function()
    config = function.config
    async with attached(function, tmp_path) as client:
        assert (config.memory_enabled, config.bus_master, config.intx_disabled) == (False, False, False)
        await client.config.write(0x04, 0x0002, 2)
        assert (config.memory_enabled, config.bus_master, config.intx_disabled) == (True, False, False)
        await client.config.write(0x04, 0x06, 1)
        assert (config.memory_enabled, config.bus_master, config.intx_disabled) == (True, True, False)
        await client.config.write(0x05, 0x04, 1)
        assert (config.memory_enabled, config.bus_master, config.intx_disabled) == (True, True, True)
        await client.config.write(0x04, 0xFFFF_FFFF, 4)
        assert await client.config.read(0x04, 4) == 0x0011_0546
        assert function.changes == 4


@pytest.mark.asyncio
async def test_a_sleeping_function_neither_answers_nor_masters(tmp_path: Path) -> None:
    function = Function()
    config = function.config
    async with attached(function, tmp_path) as client:
        await client.config.write(0x04, 0x0006, 2)
        await client.config.write(PMCSR, 0xFFFB, 2)
        assert await client.config.read(PMCSR, 2) == 0x000B
        assert (config.power_state, config.memory_enabled, config.bus_master) == (3, False, False)
        await client.config.write(PMCSR, 0, 1)
        assert (config.power_state, config.memory_enabled, config.bus_master) == (0, True, True)


@pytest.mark.asyncio
async def test_function_level_reset(tmp_path: Path) -> None:
    function = Function()
    async with attached(function, tmp_path) as client:
        await client.config.write(0x04, 0x0006, 2)
        await client.config.write(DEVICE_CONTROL + 1, 0x80 | 0x28, 1)
        assert function.function_resets == 1
        assert await client.config.read(DEVICE_CONTROL, 2) == 0x2810
        assert await client.config.read(0x04, 2) == 0
        await client.config.write(DEVICE_CONTROL, 0x5000, 2)
        assert await client.config.read(DEVICE_CONTROL, 2) == 0x5000
        assert function.function_resets == 1


@pytest.mark.asyncio
async def test_bars_tell_their_size(tmp_path: Path) -> None:
    async with attached(Function(), tmp_path) as client:
        for offset in range(0x10, 0x28, 4):
            await client.config.write(offset, 0xFFFF_FFFF, 4)
        found = [await client.config.read(offset, 4) for offset in range(0x10, 0x28, 4)]
        assert found == [0xFFFF_F000, 0, 0x0000_000C, 0xFFFF_FFFE, 0, 0]
        await client.config.write(0x10, 0x1234_5678, 4)
        assert await client.config.read(0x10, 4) == 0x1234_5000
        await client.config.write(0x30, 0xFFFF_FFFF, 4)
        assert await client.config.read(0x30, 4) == 0


@pytest.mark.asyncio
async def test_interrupt_status_and_the_w1c_bits_beside_it(tmp_path: Path) -> None:
    function = Function()
    async with attached(function, tmp_path) as client:
        function.config.set_interrupt_status(True)
        assert function.config.interrupt_status
        assert await client.config.status() == 0x0019
        await client.config.write(0x06, 0xFFFF, 2)
        assert await client.config.status() == 0x0019
        function.config.set_interrupt_status(False)
        assert not function.config.interrupt_status
        assert await client.config.status() == 0x0011


@pytest.mark.asyncio
async def test_accesses_of_any_size_and_alignment(tmp_path: Path) -> None:
    async with attached(Function(), tmp_path) as client:
        assert (await client.regions[7].read_bytes(1, 3)).hex() == "127856"
        assert await client.config.read(0x3D, 1) == 1
        await client.regions[7].write_bytes(MSI + 2, bytes.fromhex("ffffffffffffefcdab893412"))
        assert (await client.regions[7].read_bytes(MSI, 14)).hex() == "0558f700fcffffffefcdab893412"
        assert await client.regions[7].read(0xFFC, 4) == 0


@pytest.mark.asyncio
async def test_identity_is_read_only(tmp_path: Path) -> None:
    async with attached(Function(), tmp_path) as client:
        before = await client.config.image()
        await client.config.write(0x00, 0, 4)
        await client.config.write(0x08, 0, 4)
        await client.config.write(0x2C, 0xFFFF_FFFF, 4)
        await client.config.write(0x34, 0, 1)
        assert await client.config.image() == before
