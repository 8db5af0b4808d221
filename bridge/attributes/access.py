"""An access of a program and what may come of it: the vocabulary of the fault rules."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ..errors import DefinitionError

PAGE = 4096  # bytes: the smallest translation granule, the boundary of K1.2.13 and K1.2.14


class Kind(enum.Enum):
    """The instruction classes that the rules tell apart."""

    PLAIN = "plain"  # loads and stores of registers, general or SIMD, one, a pair or a structure
    EXCLUSIVE = "exclusive"  # LDXR, STXR and their acquire, release and pair forms
    ATOMIC = "atomic"  # FEAT_LSE: LDADD, SWP, CAS, CASP
    ORDERED = "ordered"  # load-acquire and store-release without exclusive or atomic behaviour
    DC_ZVA = "dc-zva"
    LS64 = "ls64"  # LD64B, ST64B


@dataclass(frozen=True, slots=True)
class Access:
    """One instruction's access to memory.

    `address`: byte offset from any page boundary. `size`: bytes the instruction accesses in total. `element`: what it
    must be aligned to, in bytes: the register for a pair, 16 for a Q register, the element of LDn and STn (1 for .16b),
    the whole access for the others, which is the default (B2.8.2.1). `el`: the Exception level it runs at, 0 to 2; EL2
    has one stage of translation, EL1 and EL0 have two. `write`: False for an atomic, which reads first.
    """

    kind: Kind
    write: bool
    size: int
    address: int = 0
    element: int = 0
    el: int = 1

    def __post_init__(self) -> None:
        """Check the ranges; raises DefinitionError."""
        if self.size < 1:
            raise DefinitionError(f"size must be at least 1 byte, not {self.size}")
        if self.address < 0:
            raise DefinitionError(f"address must not be negative, not {self.address}")
        if self.el not in (0, 1, 2):
            raise DefinitionError(f"el must be 0, 1 or 2, not {self.el}")
        if self.element == 0:
            object.__setattr__(self, "element", self.size)
        if self.element < 1 or self.element & (self.element - 1):
            raise DefinitionError(f"element must be a power of two, not {self.element}")

    @property
    def start(self) -> int:
        """The first byte accessed: DC ZVA works on the whole block that holds its address."""
        return self.address - self.address % self.size if self.kind is Kind.DC_ZVA else self.address

    @property
    def unaligned(self) -> bool:
        """Whether it is unaligned in the sense of B2.8.2.1; DC ZVA never is."""
        return self.start % self.element != 0

    @property
    def within_16_bytes(self) -> bool:
        """Whether all bytes lie in one 16-byte block, as FEAT_LSE2 asks."""
        return self.start // 16 == (self.start + self.size - 1) // 16

    @property
    def crosses_page(self) -> bool:
        """Whether it touches two pages."""
        return self.start // PAGE != (self.start + self.size - 1) // PAGE


class Effect(enum.Enum):
    """What an instruction came to."""

    WORKS = "works"
    FAULT = "fault"
    NOP = "nop"  # executed, no access made
    SERROR = "serror"  # executed; the error arrives asynchronously


@dataclass(frozen=True, slots=True)
class Outcome:
    """One permitted outcome. For a fault: the level it is taken to, and ESR_ELx as value under mask (bits [31:0]).

    `rule` names the section that permits it and takes no part in comparison.
    """

    effect: Effect
    level: int = 0
    esr: int = 0
    mask: int = 0
    rule: str = field(default="", compare=False)

    def matches(self, effect: Effect, level: int = 0, esr: int = 0) -> bool:
        """Whether what was observed is this outcome; `level` and `esr` matter for faults alone."""
        if effect is not self.effect:
            return False
        return effect is not Effect.FAULT or (level == self.level and esr & self.mask == self.esr & self.mask)

    @property
    def dfsc(self) -> int:
        """The data fault status code, ESR_ELx.DFSC: 0x21 alignment, 0x35 unsupported atomic, 0x10 external."""
        return self.esr & 0x3F

    def __str__(self) -> str:
        """For people: `works`, `EL1 fault 96000061` (bits that may be anything are written as 0)."""
        if self.effect is not Effect.FAULT:
            return str(self.effect.value)
        return f"EL{self.level} fault {self.esr & self.mask:08x}"


def permitted(outcomes: frozenset[Outcome], effect: Effect, level: int = 0, esr: int = 0) -> bool:
    """Whether an observation is one of the permitted outcomes."""
    return any(outcome.matches(effect, level, esr) for outcome in outcomes)
