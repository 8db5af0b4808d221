"""A slot that devices come to and leave: a root port, worked by the test as a guest's driver would (PCIe 7.5.3.10)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from pyvfio_user.devices import RO, Bar, Device, KiB, Msi, PciId, Register, Registers
from pyvfio_user.guest.machines import device_option
from pyvfio_user.guest.pci import ECAM, PciBus, PciFunction
from pyvfio_user.guest.qtest import QtestMachine

from .attached import Attached

ROOT_PORT = ("-device", "pcie-root-port,id=root,bus=pcie.0,addr=2,chassis=1,slot=1")
_EXPRESS = 0x10
_SLOT_CONTROL, _SLOT_STATUS = 0x18, 0x1A
_INDICATOR, _INDICATOR_ON, _INDICATOR_OFF = 0x300, 0x100, 0x300
_POWER_OFF = 0x400
_PRESENT = 0x40
_MIB = 1 << 20
_WINDOW = 0x2000_0000  # for the BARs of what is plugged; those of other devices are placed below


class Control(Registers):
    scratch = Register(0x00)
    constant = Register(0x04, access=RO, reset=0xC0FFEE)


class MsiOnly(Device):
    """What QEMU 11.1.3 can unplug: a device with MSI-X makes it abort."""

    identity = PciId(vendor=0x1234, device=0xBEC2, class_code=0xFF0000)
    bar0 = Bar(Control, size=4 * KiB)
    msi = Msi(1)


@dataclass
class RootPort:
    """The port, and where its slot's registers are."""

    machine: QtestMachine
    port: PciFunction
    express: int

    @classmethod
    async def of(cls, machine: QtestMachine) -> RootPort:
        """Sets up the port of a machine that was started with `ROOT_PORT`: bus 1, a MiB for BARs, DMA."""
        port = PciFunction(machine.pci, 2)
        await port.write_config(0x18, 4, 0x0001_0100)
        base = _WINDOW >> 16
        await port.write_config(0x20, 4, base << 16 | base)
        await port.write_config(0x04, 2, 6)
        return cls(machine, port, (await port.capabilities())[_EXPRESS])

    @property
    def slot(self) -> PciFunction:
        """What is in the slot, on a bus whose BARs nobody else has."""
        return PciFunction(PciBus(self.machine, ECAM + _MIB, {"32": _WINDOW}), 0)

    async def plug(self, path: Path) -> Attached:
        """Attaches the device served at `path`, gives the slot power and the device addresses."""
        option = json.loads(device_option(path))
        await self.machine.vm.execute("device_add", **option, id="plugged", bus="root")
        assert await self._status() & _PRESENT
        await self.power(on=True)
        function = self.slot
        return Attached(self.machine, function, await function.place_bars())

    async def unplug(self) -> None:
        """Asks for the device's removal and takes the slot's power, which is what removes it; waits until it did."""
        await self.machine.vm.execute("device_del", id="plugged")
        await self.power(on=False)
        async with asyncio.timeout(5):
            while await self._status() & _PRESENT:
                pass

    async def power(self, *, on: bool) -> None:
        """Gives the slot power, or takes it."""
        at = self.express + _SLOT_CONTROL
        control = await self.port.read_config(at, 2) & ~(_INDICATOR | _POWER_OFF)
        await self.port.write_config(self.express + _SLOT_STATUS, 2, 0xFFFF)
        await self.port.write_config(at, 2, control | (_INDICATOR_ON if on else _INDICATOR_OFF | _POWER_OFF))

    async def _status(self) -> int:
        return await self.port.read_config(self.express + _SLOT_STATUS, 2)
