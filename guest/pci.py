"""PCI from the outside: configuration space through ECAM, and BARs placed as firmware would place them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

ECAM = 0x3F00_0000  # of QEMU's virt machine with highmem-ecam=off
MMIO_32 = (0x1000_0000, 0x3EFF_0000)  # its window for 32-bit BARs: start, end
MMIO_64 = (0x80_0000_0000, 0x100_0000_0000)  # its window for 64-bit BARs
PIO = 0x3EFF_0000  # where its I/O ports start, 64 KiB
_PIO_PORTS = (0x1000, 0x1_0000)

_COMMAND = 0x04
_STATUS = 0x06
_CAPABILITY_LIST = 1 << 4
_HEADER_TYPE = 0x0E
_MULTIFUNCTION = 0x80
_BAR0 = 0x10
_CAPABILITIES = 0x34


class Memory(Protocol):
    """What reaches guest-physical addresses, one access of 1, 2, 4 or 8 bytes at a time."""

    async def read(self, address: int, size: int) -> int:
        """Return what is there, little-endian."""

    async def write(self, address: int, size: int, value: int) -> None:
        """Write a value, little-endian."""


@dataclass(frozen=True)
class PlacedBar:
    """A BAR that was given an address: guest-physical, for an I/O BAR too; size in bytes."""

    index: int
    address: int
    size: int
    is_64_bit: bool
    prefetchable: bool
    is_io: bool


@dataclass
class PciBus:
    """The root bus of a machine whose ECAM is at `ecam`; BARs are placed upwards from the start of each window."""

    memory: Memory
    ecam: int = ECAM
    _free: dict[str, int] = field(default_factory=lambda: {"32": MMIO_32[0], "64": MMIO_64[0], "io": _PIO_PORTS[0]})

    async def scan(self) -> list[PciFunction]:
        """Return the functions on bus 0 except the host bridge's, in order of slot and function."""
        found: list[PciFunction] = []
        for slot in range(1, 32):
            for number in range(8):
                function = PciFunction(self, slot, number)
                present = await function.read_config(0, 4) not in (0xFFFF_FFFF, 0)
                if present:
                    found.append(function)
                if number == 0 and not (present and await function.read_config(_HEADER_TYPE, 1) & _MULTIFUNCTION):
                    break
        return found

    def allocate(self, window: str, size: int) -> int:
        """Take `size` bytes, aligned to their size, from window `32`, `64` or `io`. Raises `ValueError` when full."""
        address = (self._free[window] + size - 1) & -size
        end = {"32": MMIO_32[1], "64": MMIO_64[1], "io": _PIO_PORTS[1]}[window]
        if address + size > end:
            free = end - self._free[window]
            raise ValueError(f"BAR size must fit the {free} free bytes of window {window}, not {size}")
        self._free[window] = address + size
        return address


@dataclass
class PciFunction:
    """One function of a device on bus 0."""

    bus: PciBus
    slot: int
    function: int = 0

    def _address(self, offset: int) -> int:
        return self.bus.ecam + (self.slot << 15) + (self.function << 12) + offset

    async def read_config(self, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of configuration space."""
        return await self.bus.memory.read(self._address(offset), size)

    async def write_config(self, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of configuration space."""
        await self.bus.memory.write(self._address(offset), size, value)

    async def identity(self) -> tuple[int, int]:
        """Return the vendor and device id."""
        value = await self.read_config(0, 4)
        return value & 0xFFFF, value >> 16

    async def capabilities(self) -> dict[int, int]:
        """Return the offset of each capability by its id (the first, where an id stands twice)."""
        found: dict[int, int] = {}
        if not await self.read_config(_STATUS, 2) & _CAPABILITY_LIST:
            return found
        seen: set[int] = set()
        offset = await self.read_config(_CAPABILITIES, 1) & 0xFC
        while offset and offset not in seen:
            seen.add(offset)
            header = await self.read_config(offset, 2)
            found.setdefault(header & 0xFF, offset)
            offset = header >> 8 & 0xFC
        return found

    async def place_bars(self, *, master: bool = True) -> dict[int, PlacedBar]:
        """Size every BAR, give it an address, and enable memory and I/O decoding, and DMA (`master`)."""
        placed: dict[int, PlacedBar] = {}
        decoding = 0
        slots = iter(range(6))
        for index in slots:
            bar = await self._place(index, slots)
            if bar is not None:
                placed[index] = bar
                decoding |= 1 if bar.is_io else 2
        await self.write_config(_COMMAND, 2, decoding | (4 if master else 0))
        return placed

    async def _place(self, index: int, slots: Iterator[int]) -> PlacedBar | None:
        offset = _BAR0 + 4 * index
        await self.write_config(offset, 4, 0xFFFF_FFFF)
        low = await self.read_config(offset, 4)
        is_io = bool(low & 1)
        is_64_bit = not is_io and low & 6 == 4
        mask = low & (~3 if is_io else ~15) & 0xFFFF_FFFF
        if is_64_bit:
            next(slots)
            await self.write_config(offset + 4, 4, 0xFFFF_FFFF)
            mask |= await self.read_config(offset + 4, 4) << 32
        elif mask:
            mask |= 0xFFFF_FFFF << 32 | (0xFFFF_0000 if is_io and not mask >> 16 else 0)
        if not mask:
            return None
        size = -mask & 0xFFFF_FFFF_FFFF_FFFF
        address = self.bus.allocate("io" if is_io else "64" if is_64_bit else "32", size)
        await self.write_config(offset, 4, address & 0xFFFF_FFFF)
        if is_64_bit:
            await self.write_config(offset + 4, 4, address >> 32)
        return PlacedBar(index, address + (PIO if is_io else 0), size, is_64_bit, bool(low & 8) and not is_io, is_io)
