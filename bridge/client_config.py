"""Config space as a VMM and a guest use it, over the client's region 7: header, capabilities, enabling a device."""

from __future__ import annotations

from .client_irqs import ClientInterrupts, set_irqs
from .client_link import Link
from .client_regions import ClientRegion

_COMMAND = 0x04
_COMMAND_MEMORY, _COMMAND_MASTER, _COMMAND_INTX_DISABLE = 1 << 1, 1 << 2, 1 << 10
_STATUS = 0x06
_CAPABILITIES = 0x34
_EXTENDED = 0x100
_MSI, _MSIX = 0x05, 0x11
_NONE_TRIGGER, _EVENTFD_TRIGGER = 0x21, 0x24  # SET_IRQS: DATA_NONE or DATA_EVENTFD, with ACTION_TRIGGER


class ConfigSpace:
    """The device's config space (PCI Express Base Specification, section 7.5), read and written by message."""

    def __init__(self, link: Link, region: ClientRegion, irqs: dict[int, ClientInterrupts], max_fds: int) -> None:
        self._link = link
        self._irqs = irqs
        self._max_fds = max_fds
        self.region = region

    async def read(self, offset: int, size: int) -> int:
        """Reads 1, 2 or 4 bytes."""
        return await self.region.read(offset, size)

    async def write(self, offset: int, value: int, size: int) -> None:
        """Writes 1, 2 or 4 bytes."""
        await self.region.write(offset, value, size)

    async def image(self) -> bytes:
        """The whole config space in one message, as QEMU reads it at realize."""
        return await self.region.read_bytes(0, self.region.size)

    async def capabilities(self) -> dict[int, int]:
        """Offsets of the capabilities in the list that starts at 0x34, by capability id."""
        image, found = await self.image(), dict[int, int]()
        at = image[_CAPABILITIES] & 0xFC
        while at and at not in found.values():
            found[image[at]] = at
            at = image[at + 1] & 0xFC
        return found

    async def extended_capabilities(self) -> dict[int, int]:
        """Offsets of the extended capabilities (from 0x100 on), by capability id."""
        image, found, at = await self.image(), dict[int, int](), _EXTENDED
        while _EXTENDED <= at < len(image) and at not in found.values():
            header = int.from_bytes(image[at : at + 4], "little")
            if header & 0xFFFF:
                found[header & 0xFFFF] = at
            at = header >> 20 & 0xFFC
        return found

    async def status(self) -> int:
        """The Status register, 16 bits."""
        return await self.read(_STATUS, 2)

    async def set_bus_master(self, enabled: bool) -> None:
        """Sets or clears Bus Master Enable: without it the device must not access memory nor send MSIs."""
        await self._command(_COMMAND_MASTER, enabled)

    async def set_memory_space(self, enabled: bool) -> None:
        """Sets or clears Memory Space Enable."""
        await self._command(_COMMAND_MEMORY, enabled)

    async def set_intx_disabled(self, disabled: bool) -> None:
        """Sets or clears Interrupt Disable, which holds the INTx line low but not the Interrupt Status bit."""
        await self._command(_COMMAND_INTX_DISABLE, disabled)

    async def enable_msix(self, vectors: int | None = None) -> None:
        """Enables MSI-X as QEMU does: control register, INTx off, vector 0 without fd, then an eventfd a vector.

        Args:
            vectors: how many vectors get an eventfd, all of them by default.
        """
        irqs = self._irqs[2]
        await self._set_control(_MSIX, 1 << 15, True)
        await set_irqs(self._link, _NONE_TRIGGER, 0, 0, 0)
        await set_irqs(self._link, _EVENTFD_TRIGGER, irqs.index, 0, 1)
        await irqs.assign(irqs.count if vectors is None else vectors, 1)

    async def disable_msix(self) -> None:
        """Disables MSI-X: control register, then SET_IRQS without fds."""
        await self._set_control(_MSIX, 1 << 15, False)
        await self._irqs[2].disable()

    async def enable_msi(self, vectors: int | None = None) -> None:
        """Enables MSI as QEMU does: control register, INTx off, then all eventfds in one message.

        Args:
            vectors: how many, a power of two, all that the device offers by default.
        """
        irqs = self._irqs[1]
        count = irqs.count if vectors is None else vectors
        at = await self._capability(_MSI)
        control = await self.read(at + 2, 2) & ~0x70
        await self.write(at + 2, control | 1 | (count.bit_length() - 1) << 4, 2)
        await set_irqs(self._link, _NONE_TRIGGER, 0, 0, 0)
        await irqs.assign(count, self._max_fds)

    async def disable_msi(self) -> None:
        """Disables MSI: control register, then SET_IRQS without fds."""
        await self._set_control(_MSI, 1, False)
        await self._irqs[1].disable()

    async def _capability(self, identity: int) -> int:
        found = await self.capabilities()
        if identity not in found:
            raise LookupError(f"the device must have capability {identity:#04x}, and has not")
        return found[identity]

    async def _set_control(self, identity: int, bits: int, enabled: bool) -> None:
        at = await self._capability(identity) + 2
        control = await self.read(at, 2)
        await self.write(at, control | bits if enabled else control & ~bits, 2)

    async def _command(self, bits: int, enabled: bool) -> None:
        command = await self.read(_COMMAND, 2)
        await self.write(_COMMAND, command | bits if enabled else command & ~bits, 2)
