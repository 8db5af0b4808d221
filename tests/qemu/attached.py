"""A device in a QEMU without a guest: what its tests do over and over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pyvfio_user.guest.pci import PciFunction, PlacedBar
from pyvfio_user.guest.qtest import QtestMachine

RAM = 0x4100_0000
"""Guest memory that is zero at first: QEMU puts a device tree at its start, 0x40000000."""
RAM_END = 0x4400_0000
MSI, MSIX = 0x05, 0x11
COMMAND, STATUS = 0x04, 0x06


@dataclass
class Attached:
    """The machine, the function in slot 1, and where its BARs were placed."""

    machine: QtestMachine
    function: PciFunction
    bars: dict[int, PlacedBar]

    @classmethod
    async def place(cls, machine: QtestMachine) -> Attached:
        """Places the BARs of the only function on the bus; memory space and bus mastering are then enabled."""
        (function,) = await machine.pci.scan()
        return cls(machine, function, await function.place_bars())

    async def read(self, bar: int, offset: int, size: int = 4) -> int:
        """Reads a register."""
        return await self.machine.read(self.bars[bar].address + offset, size)

    async def write(self, bar: int, offset: int, value: int, size: int = 4) -> None:
        """Writes a register."""
        await self.machine.write(self.bars[bar].address + offset, size, value)

    async def enable_msi(self, address: int, data: int, *, vectors: int = 1) -> None:
        """Points MSI at `address`, where vector n writes `data` + n, and enables 2**k `vectors`."""
        at = (await self.function.capabilities())[MSI]
        await self.function.write_config(at + 4, 4, address)
        await self.function.write_config(at + 8, 4, 0)
        await self.function.write_config(at + 12, 2, data)
        await self.function.write_config(at + 2, 2, (vectors.bit_length() - 1) << 4 | 1)

    async def disable_msi(self) -> None:
        """Disables MSI."""
        await self.function.write_config((await self.function.capabilities())[MSI] + 2, 2, 0)

    async def enable_msix(self, targets: dict[int, tuple[int, int]], *, bar: int, table: int = 0) -> None:
        """Points each vector at an (address, data), unmasks it, and enables MSI-X. The table is in `bar` at `table`."""
        at = (await self.function.capabilities())[MSIX]
        for vector, (address, data) in targets.items():
            entry = table + 16 * vector
            for word, value in enumerate((address, 0, data, 0)):
                await self.write(bar, entry + 4 * word, value)
        await self.function.write_config(at + 2, 2, 1 << 15)

    async def disable_msix(self) -> None:
        """Disables MSI-X."""
        await self.function.write_config((await self.function.capabilities())[MSIX] + 2, 2, 0)

    async def until(self, address: int, value: int) -> None:
        """Waits until the four bytes of guest RAM at `address` are `value`."""
        async with asyncio.timeout(5):
            while await self.machine.read(address, 4) != value:
                pass

    async def until_irq(self, line: int, level: bool) -> None:
        """Waits until an interrupt line has a level."""
        async with asyncio.timeout(5):
            while self.machine.irq_levels.get(line, False) != level:
                await self.machine.read(RAM, 1)
