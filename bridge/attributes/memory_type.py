"""Memory types as one byte, the encoding of a MAIR_ELx field and of PAR_EL1.ATTR (Arm ARM DDI 0487, MAIR_EL1)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..errors import DefinitionError


class Cacheability(enum.IntEnum):
    """Cacheability of one domain, inner or outer; the lower value wins when stages combine (DDI 0487 D8.6.5)."""

    NC = 1
    WT = 2
    WB = 3


_DEVICE_NAMES = ("Device-nGnRnE", "Device-nGnRE", "Device-nGRE", "Device-GRE")
_WORDS = {Cacheability.NC: "Non-cacheable", Cacheability.WT: "Write-Through", Cacheability.WB: "Write-Back"}
_TAGGED = 0xF0
_NO_TAG_ACCESS = 0xE0
_NC_XS0 = 0x40
_WT_XS0 = 0xA0


@dataclass(frozen=True, slots=True)
class MemoryType:
    """A memory type, equal to another one when its byte is equal.

    `byte` is an attribute encoding of MAIR_ELx (0..0xff), the XS=0 variants (Device|1, 0x40, 0xa0) and the tagged
    types 0xf0 and 0xe0 (NoTagAccess, which only PAR_EL1 shows) included. Raises DefinitionError for reserved bytes.
    """

    byte: int

    def __post_init__(self) -> None:
        """Refuse bytes that MAIR_EL1 marks reserved or UNPREDICTABLE."""
        byte = self.byte
        if not 0 <= byte <= 0xFF:
            raise DefinitionError(f"memory type must be a byte, not {byte:#x}")
        reserved = byte & 0b10 if byte < 0x10 else byte & 0xF == 0 and byte not in (0x40, 0xA0, 0xE0, 0xF0)
        if reserved:
            raise DefinitionError(f"memory type must be an attribute encoding that is not reserved, not {byte:#04x}")

    @classmethod
    def parse(cls, text: str) -> MemoryType:
        """Read two hex digits, as `str()` writes them. Raises DefinitionError for anything else."""
        try:
            (byte,) = bytes.fromhex(text) if len(text) == 2 else b""
        except ValueError:
            raise DefinitionError(f"memory type must be two hex digits, not {text!r}") from None
        return cls(byte)

    def __str__(self) -> str:
        """Two lower-case hex digits."""
        return f"{self.byte:02x}"

    @property
    def is_device(self) -> bool:
        """Whether it is any Device type."""
        return self.byte < 0x10

    @property
    def canonical(self) -> MemoryType:
        """The same type with XS=1. FEAT_XS changes what a TLBI nXS waits for, not what an access may do.

        Hardware with FEAT_XS may report either in PAR_EL1.ATTR: Write-Back stage 1 has XS=0, so the pseudocode gives
        0x40, not 0x44, for Write-Back over a Non-cacheable stage 2. Compare canonical types.
        """
        if self.is_device:
            return MemoryType(self.byte & ~1)
        return MemoryType({_NC_XS0: 0x44, _WT_XS0: 0xAA}.get(self.byte, self.byte))

    @property
    def strength(self) -> int:
        """Device types only: 0 (nGnRnE, the strongest) to 3 (GRE); the lower one wins when stages combine."""
        if not self.is_device:
            raise DefinitionError(f"memory type must be a Device type to have a strength, not {self.name}")
        return self.byte >> 2

    @property
    def outer(self) -> Cacheability:
        """Normal types only: outer cacheability, from bits [7:4]."""
        return self._cacheability(self.byte >> 4)

    @property
    def inner(self) -> Cacheability:
        """Normal types only: inner cacheability, from bits [3:0]."""
        return self._cacheability(self.byte & 0xF)

    def _cacheability(self, nibble: int) -> Cacheability:
        if self.is_device:
            raise DefinitionError(f"memory type must be a Normal type to have a cacheability, not {self.name}")
        if self.tagged:
            return Cacheability.WB
        if self.byte in (_NC_XS0, _WT_XS0):
            return Cacheability.NC if self.byte == _NC_XS0 else Cacheability.WT
        if nibble == 0b0100:
            return Cacheability.NC
        # 00RW and 10RW are Write-Through (transient and not), 01RW and 11RW Write-Back; RW = 0b00 in 01 is NC, above.
        return Cacheability.WB if nibble & 0b0100 else Cacheability.WT

    @property
    def tagged(self) -> bool:
        """Allocation-tagged Normal Write-Back (FEAT_MTE2)."""
        return self.byte in (_TAGGED, _NO_TAG_ACCESS)

    @property
    def is_write_back(self) -> bool:
        """Normal, inner and outer Write-Back: the only type on which atomics are guaranteed (B2.2.6)."""
        return not self.is_device and self.inner is Cacheability.WB and self.outer is Cacheability.WB

    @property
    def is_non_cacheable(self) -> bool:
        """Normal, inner and outer Non-cacheable."""
        return not self.is_device and self.inner is Cacheability.NC and self.outer is Cacheability.NC

    @property
    def gathering(self) -> bool:
        """Whether accesses may be merged into one transaction (B2.10.2.1); always so for Normal memory."""
        return not self.is_device or self.strength == 3

    @property
    def reordering(self) -> bool:
        """Whether accesses may arrive out of program order (B2.10.2.2); always so for Normal memory."""
        return not self.is_device or self.strength >= 2

    @property
    def early_ack(self) -> bool:
        """Whether a write may be acknowledged before the endpoint has it (B2.10.2.3); always so for Normal memory."""
        return not self.is_device or self.strength >= 1

    @property
    def speculation(self) -> bool:
        """Whether a read may happen that the program never made (B2.10.1); never so for Device memory (B2.10.2)."""
        return not self.is_device

    @property
    def name(self) -> str:
        """The architecture's name, for people."""
        if self.is_device:
            return _DEVICE_NAMES[self.strength] + ("" if self.byte & 1 == 0 else " XS=0")
        if self.tagged:
            return "Tagged Normal Write-Back" + ("" if self.byte == _TAGGED else " NoTagAccess")
        suffix = " XS=0" if self.byte in (_NC_XS0, _WT_XS0) else ""
        if self.outer is self.inner:
            return f"Normal {_WORDS[self.outer]}{suffix}"
        return f"Normal outer {_WORDS[self.outer]}, inner {_WORDS[self.inner]}"


NGNRNE = MemoryType(0x00)
NGNRE = MemoryType(0x04)
NGRE = MemoryType(0x08)
GRE = MemoryType(0x0C)
NORMAL_NC = MemoryType(0x44)
NORMAL_WT = MemoryType(0xBB)
NORMAL_WB = MemoryType(0xFF)
TAGGED_WB = MemoryType(_TAGGED)
TAGGED_WB_NO_TAG_ACCESS = MemoryType(_NO_TAG_ACCESS)

#: The eight types a guest can choose among, in the order of their MAIR slots 0..7.
MEMORY_TYPES: tuple[MemoryType, ...] = (NGNRNE, NGNRE, NGRE, GRE, NORMAL_NC, NORMAL_WT, NORMAL_WB, TAGGED_WB)
