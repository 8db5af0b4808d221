"""The bytes and access rules of a type-0 config space, with its chain of capabilities.

PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification 4.0, chapter 7; PCI Bus Power Management
Interface Specification 1.2, chapter 3. Offsets and sizes are in bytes. There is no extended capability: the header at
0x100 reads 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .errors import DefinitionError, check_integer
from .regions import Rules

SIZE = 4096
COMMAND = 0x04
STATUS = 0x06
BAR0 = 0x10
ROM_BAR = 0x30
CAPABILITIES = 0x40

COMMAND_MEMORY = 1 << 1
COMMAND_BUS_MASTER = 1 << 2
COMMAND_INTX_DISABLE = 1 << 10
STATUS_READY = 1 << 0
STATUS_INTERRUPT = 1 << 3
STATUS_CAPABILITIES = 1 << 4
DEVICE_CONTROL_FLR = 1 << 15

_COMMAND_WRITABLE = COMMAND_MEMORY | COMMAND_BUS_MASTER | 1 << 6 | 1 << 8 | COMMAND_INTX_DISABLE
_STATUS_W1C = 0xF900  # parity error, signalled and received aborts, system error, detected parity error


@dataclass(frozen=True)
class PciId:
    """What a function is: vendor, device and class code (24 bits: base class, subclass, interface), and the rest."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0

    def __post_init__(self) -> None:
        for name, bits in _ID_BITS.items():
            value = getattr(self, name)
            check_integer(name, value)
            if not 0 <= value < 1 << bits:
                raise DefinitionError(f"{name} must be an integer of {bits} bits, not {value:#x}")
        if self.vendor == 0xFFFF:
            raise DefinitionError("vendor must be a vendor's, not 0xffff, which says that no function is there")


_ID_BITS = {"vendor": 16, "device": 16, "class_code": 24, "revision": 8, "subsystem_vendor": 16, "subsystem": 16}


@dataclass(frozen=True)
class BarShape:
    """A memory BAR: `size` is a power of two of at least 16 bytes; one of 64 bits takes the next index too."""

    index: int
    size: int
    bits: int = 32
    prefetchable: bool = False


@dataclass(frozen=True)
class MsixShape:
    """An MSI-X capability of 1 to 2048 vectors: where table and pending bits lie, BAR index and offset in it."""

    vectors: int
    table_bar: int
    table_offset: int
    pba_bar: int
    pba_offset: int


class ConfigImage:
    """Reset bytes and access masks of a config space under construction."""

    def __init__(self) -> None:
        self._reset = bytearray(SIZE)
        self._writable = bytearray(SIZE)
        self._w1c = bytearray(SIZE)
        self._next = CAPABILITIES
        self._link = 0x34

    def put(self, offset: int, width: int, reset: int, *, writable: int = 0, w1c: int = 0) -> None:
        """Lay down a register of `width` bytes; bits in neither mask are read-only."""
        for image, value in ((self._reset, reset), (self._writable, writable), (self._w1c, w1c)):
            image[offset : offset + width] = value.to_bytes(width, "little")

    def capability(self, identity: int, length: int) -> int:
        """Append a capability of `length` bytes to the chain; its offset."""
        offset = self._next
        self.put(self._link, 1, offset)
        self.put(offset, 2, identity)
        self._link = offset + 1
        self._next = (offset + length + 3) & ~3
        return offset

    def rules(self, start: int = 0, end: int = SIZE) -> Rules:
        """The access rules of the bytes from `start` to `end`."""
        none = bytes(end - start)
        return Rules(
            reset=bytes(self._reset[start:end]),
            writable=bytes(self._writable[start:end]),
            w1c=bytes(self._w1c[start:end]),
            rc=none,
            once=none,
        )

    def header(self, identity: PciId, bars: Iterable[BarShape], interrupt_pin: int, rom: int = 0) -> None:
        """The type-0 header; `interrupt_pin` is 1 for INTA, 0 for none; `rom` is the ROM's bytes, a power of two."""
        self.put(0x00, 2, identity.vendor)
        self.put(0x02, 2, identity.device)
        self.put(COMMAND, 2, 0, writable=_COMMAND_WRITABLE)
        # A reset is over when the write that asks for it is: drivers need not wait 100 ms (PCIe 7.5.1.1.4, 6.6.2).
        self.put(STATUS, 2, STATUS_CAPABILITIES | STATUS_READY, w1c=_STATUS_W1C)
        self.put(0x08, 4, identity.class_code << 8 | identity.revision)
        self.put(0x0C, 1, 0, writable=0xFF)  # cache line size: writable, without meaning (PCIe 7.5.1.1.7)
        for bar in bars:
            kind = (0x4 if bar.bits == 64 else 0) | (0x8 if bar.prefetchable else 0)
            self.put(BAR0 + 4 * bar.index, bar.bits // 8, kind, writable=(1 << bar.bits) - bar.size & ~0xF)
        self.put(0x2C, 2, identity.subsystem_vendor)
        self.put(0x2E, 2, identity.subsystem)
        if rom:
            self.put(ROM_BAR, 4, 0, writable=(1 << 32) - rom | 1)  # the address, and enable
        self.put(0x3C, 1, 0, writable=0xFF)  # interrupt line, for software's own use
        self.put(0x3D, 1, interrupt_pin)

    def power_management(self) -> int:
        """PM 1.2 with D0, D1, D2 and D3hot, no PME, and registers that survive D3hot (No_Soft_Reset); its offset."""
        offset = self.capability(0x01, 8)
        self.put(offset + 2, 2, 0x0603)
        self.put(offset + 4, 2, 0x0008, writable=0x0003)
        return offset

    def msi(self, vectors: int) -> int:
        """MSI with a 64-bit address and no per-vector mask; `vectors` is a power of two up to 32. Its offset."""
        offset = self.capability(0x05, 14)
        self.put(offset + 2, 2, 0x0080 | vectors.bit_length() - 1 << 1, writable=0x0071)
        self.put(offset + 4, 4, 0, writable=0xFFFF_FFFC)
        self.put(offset + 8, 4, 0, writable=0xFFFF_FFFF)
        self.put(offset + 12, 2, 0, writable=0xFFFF)
        return offset

    def msix(self, shape: MsixShape) -> int:
        """MSI-X; its offset."""
        offset = self.capability(0x11, 12)
        self.put(offset + 2, 2, shape.vectors - 1, writable=0xC000)
        self.put(offset + 4, 4, shape.table_offset | shape.table_bar)
        self.put(offset + 8, 4, shape.pba_offset | shape.pba_bar)
        return offset

    def express(self) -> int:
        """PCI Express version 2, an endpoint with function-level reset on a 2.5 GT/s x1 link; its offset."""
        offset = self.capability(0x10, 60)
        self.put(offset + 0x02, 2, 0x0002)
        self.put(offset + 0x04, 4, 1 << 28 | 1 << 15)  # function-level reset, role-based error reporting
        self.put(offset + 0x08, 2, 0x2810, writable=0xFFFF & ~(1 << 9 | 1 << 10))  # no phantom functions, no aux power
        self.put(offset + 0x0A, 2, 0, w1c=0x000F)
        self.put(offset + 0x0C, 4, 1 << 22 | 1 << 4 | 1)  # ASPM optionality compliance, x1, 2.5 GT/s
        self.put(offset + 0x10, 2, 0, writable=0x00CB)
        self.put(offset + 0x12, 2, 1 << 4 | 1)
        self.put(offset + 0x24, 4, 1 << 4)  # completion timeout disable
        self.put(offset + 0x28, 2, 0, writable=1 << 4)
        self.put(offset + 0x2C, 4, 1 << 1)  # 2.5 GT/s
        self.put(offset + 0x30, 2, 1, writable=0x000F)
        return offset
