"""A real QEMU without a guest that is reset, and in which a device is plugged and unplugged, again and again."""

from __future__ import annotations

import asyncio

from pyvfio_user.bridge.server import Server
from pyvfio_user.guest.qtest import QtestMachine

from ..bridge.bench import SCRATCH, BenchDevice
from ..qemu.attached import COMMAND, RAM, Attached
from ..qemu.hotplug import MsiOnly, RootPort


class Soak:
    """A device that stays, one that comes and goes, and the machine with both."""

    def __init__(self, machine: QtestMachine, fixed: BenchDevice, plugged: MsiOnly, server: Server) -> None:
        self._machine = machine
        self._fixed = fixed
        self._plugged = plugged
        self._server = server

    async def turn(self, number: int) -> None:
        """Plug, work, reset, work, unplug; and a reset of the empty slot."""
        port = await RootPort.of(self._machine)
        attached = await port.plug(self._server.path)
        await self._work(attached, number)
        await self._reset()
        port = await RootPort.of(self._machine)
        await port.power(on=True)
        attached = Attached(self._machine, port.slot, await port.slot.place_bars())
        await self._work(attached, ~number)
        await port.unplug()
        await asyncio.wait_for(self._server.wait_disconnected(), 5)
        await self._reset()

    async def _work(self, plugged: Attached, number: int) -> None:
        fixed = (await self._machine.pci.scan())[0]
        self._machine.pci = type(self._machine.pci)(self._machine)  # what was placed before is free again
        bench = Attached(self._machine, fixed, await fixed.place_bars())
        await bench.write(0, SCRATCH, number & 0xFFFF)
        assert await bench.read(0, SCRATCH) == number & 0xFFFF
        await bench.enable_msix({2: (RAM, number & 0xFFFF)}, bar=4)
        assert self._fixed.interrupts.fire(2)
        await bench.until(RAM, number & 0xFFFF)
        await plugged.write(0, 0, number & 0xFFFF)
        await plugged.enable_msi(RAM + 4, number & 0xFFFE | 1)
        assert self._plugged.interrupts.fire()
        await plugged.until(RAM + 4, number & 0xFFFE | 1)
        self._plugged.memory.write_mapped(RAM + 8, b"soak")
        assert await self._machine.read(RAM + 8, 4) == int.from_bytes(b"soak", "little")

    async def _reset(self) -> None:
        before = self._fixed.resets
        await self._machine.vm.execute("system_reset")
        async with asyncio.timeout(5):
            while self._fixed.resets == before or int.from_bytes(
                self._fixed.endpoint.regions[7].memory[COMMAND : COMMAND + 2], "little"
            ):
                await asyncio.sleep(0)
        self._fixed.endpoint.recorder.drain()
