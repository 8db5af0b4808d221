"""Upcase: puts text in guest memory into capitals. The driver says where the text is, and rings."""

from __future__ import annotations

from . import RO, Bar, Device, DmaError, Doorbell, Intx, KiB, Msi, MsiX, PciId, Register, Registers


class Control(Registers):
    """What the driver sees."""

    address = Register(0x00, width=8)
    length = Register(0x08, width=2)
    status = Register(0x0C, access=RO)
    ring = Doorbell(0x10)


class Upcase(Device):
    """Reads `length` bytes at `address`, writes them back in capitals, and interrupts."""

    identity = PciId(vendor=0x1234, device=0x11CA, class_code=0xFF0000)
    bar0 = Bar(Control, size=4 * KiB)
    intx, msi, msix = Intx(), Msi(), MsiX(1)

    @Control.ring.rung
    async def capitalise(self, doorbell: int, value: int) -> None:
        """Do it; status is then 1, or 2 when the guest's memory cannot be reached."""
        registers = self.bar0
        address, length = registers.address, registers.length  # once: the driver may write others meanwhile
        try:
            text = await self.memory.read(address, length)
            await self.memory.write(address, text.upper())
            registers.status = 1
        except DmaError:
            registers.status = 2
        self.interrupts.fire()
