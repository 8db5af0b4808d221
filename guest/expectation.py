"""What the architecture says one operation of the battery may come to, instruction by instruction.

Computed from `bridge.attributes` alone, before anything has run: never from an observation, and never from what QEMU
is known to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from ..bridge.attributes import (
    NORMAL_WB,
    Effect,
    Implementation,
    Kind,
    MemoryType,
    Outcome,
    Page,
    combine,
    decode_stage2,
    outcomes,
)
from ..bridge.attributes import Access as ArmAccess
from .operation import PAGE, SLOT, Access, Element, Op

_WRITE_BACK = Page(NORMAL_WB)

_KINDS = {
    Access.EXCLUSIVE: Kind.EXCLUSIVE,
    Access.ATOMIC: Kind.ATOMIC,
    Access.ORDERED: Kind.ORDERED,
    Access.ZERO: Kind.DC_ZVA,
    Access.SINGLE_COPY_64: Kind.LS64,
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """The types under which an operation runs: stage 1, stage-2 MemAttr (None at EL2, which has one stage), FWB.

    ``beyond`` is the stage-2 MemAttr, or at EL2 the type, of the next page, for operations that cross into it.
    """

    s1: MemoryType
    s2: int | None
    fwb: bool
    beyond: Page | None = None

    @property
    def page(self) -> Page:
        """The types of the first page."""
        return Page(self.s1, self.s2)

    @property
    def effective(self) -> MemoryType:
        """The combined type of the first page."""
        return self.s1 if self.s2 is None else combine(self.s1, self.s2, self.fwb)

    @property
    def s2_device(self) -> bool | None:
        """Whether stage 2's own type is Device; None without a stage 2."""
        return None if self.s2 is None else decode_stage2(self.s2, self.fwb).type.is_device


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of an operation that accesses memory, and all that it may come to."""

    number: int
    elements: tuple[Element, ...]
    kind: Kind
    permitted: frozenset[Outcome]
    by_type: bool
    """Whether it may fault only because of the memory type: on Write-Back it must work."""

    @property
    def may_work(self) -> bool:
        """Whether working is permitted."""
        return any(outcome.effect is Effect.WORKS for outcome in self.permitted)

    @property
    def text(self) -> str:
        """For people: "works", "EL1 fault 96000061", alternatives joined by "or"."""
        return " or ".join(
            sorted({str(outcome) for outcome in self.permitted}, key=lambda text: (text != "works", text))
        )


@dataclass(frozen=True, slots=True)
class Expectation:
    """All instructions of an operation that access the range under test, in program order."""

    op: Op
    instructions: tuple[Instruction, ...]

    @property
    def text(self) -> str:
        """What the operation comes to: that of the first instruction which may not simply work."""
        for instruction in self.instructions:
            if instruction.text != "works":
                return instruction.text
        return "works"

    def before(self, number: int) -> tuple[Element, ...]:
        """The accesses of the instructions before this one."""
        return tuple(
            e for instruction in self.instructions if instruction.number < number for e in instruction.elements
        )

    def instruction(self, number: int) -> Instruction | None:
        """The instruction with this number in ``op.asm``, or None if it makes no access to the range."""
        return next((each for each in self.instructions if each.number == number), None)


def _arm_access(elements: tuple[Element, ...], el: int) -> ArmAccess:
    """The architecture's view of one instruction. Slots end at a page's end where an operation crosses."""
    first = elements[0]
    start = min(element.offset for element in elements)
    end = max(element.offset + element.size for element in elements)
    base = PAGE - SLOT
    return ArmAccess(
        kind=_KINDS.get(first.access, Kind.PLAIN),
        write=first.write,
        size=end - start,
        address=base + start,
        element=first.alignment,
        el=el,
    )


def expect(op: Op, mapping: Mapping, el: int, implementation: Implementation) -> Expectation:
    """What ``op`` may come to under ``mapping`` at an exception level."""

    def instructions() -> Iterator[Instruction]:
        for number, group in groupby(op.elements, key=lambda element: element.instruction):
            elements = tuple(group)
            access = _arm_access(elements, el)
            beyond = (mapping.beyond or mapping.page) if access.crosses_page else None
            permitted = outcomes(access, mapping.page, beyond, fwb=mapping.fwb, implementation=implementation)
            write_back = outcomes(access, _WRITE_BACK, _WRITE_BACK, implementation=implementation)
            by_type = all(outcome.effect is Effect.WORKS for outcome in write_back)
            yield Instruction(number, elements, access.kind, permitted, by_type)

    return Expectation(op, tuple(instructions()))
