"""From instructions to effects: the single-copy-atomic units of each access (Arm ARM DDI 0487, B2.2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from ..attributes import GRE, PAGE, MemoryType
from ..errors import DefinitionError
from ..stream import BAR_CONFIG, Domain, Event, Flag, Kind
from .program import DEVICE, MSI_ADDRESS, ST64B, Program

_ST64B_MASK = 0xFFFFFC00
_NOT_WHOLE = Flag.STRUCTURE | Flag.SVE | Flag.MOPS
"""Of these only elements or bytes are single-copy atomic, and an event does not say how large an element is."""


@dataclass(frozen=True)
class Model:
    """What the specifications leave open, as this model has it [M]; all of it can be varied.

    `peripheral_size`: bytes of a memory-mapped peripheral, a power of two; None: the whole PCIe function (DDI 0487
    B2.4.1.1, IMPLEMENTATION DEFINED). `unaligned`: bytes that an unaligned access to Normal memory is cut into;
    `piece`: those that DC ZVA, MOPS, SVE and LDn, STn are. 1 is all that B2.2 permits, more is fewer behaviours; both
    must be powers of two up to 8. `gather_limit`: no gathering across multiples of it. A TLP crosses no 4 KiB boundary
    (PCIe 2.2.7). `domains`: those whose barriers order at a device; Device and Normal-NC are Outer Shareable.
    """

    peripheral_size: int | None = None
    unaligned: int = 1
    piece: int = 8
    gather_limit: int = PAGE
    domains: frozenset[Domain] = frozenset({Domain.OSH, Domain.SY})

    def __post_init__(self) -> None:
        """Check the ranges; raises DefinitionError."""
        for name, most in (("unaligned", 8), ("piece", 8), ("gather_limit", PAGE), ("peripheral_size", 1 << 63)):
            value = getattr(self, name)
            if value is not None and (not 1 <= value <= most or value & (value - 1)):
                raise DefinitionError(f"{name} must be a power of two up to {most}, not {value}")


DEFAULT_MODEL = Model()


class Op(Enum):
    """What an effect does."""

    READ = "R"
    WRITE = "W"
    ATOMIC = "RW"
    """Both at once: over PCIe an AtomicOp (6.15), never a read and a write."""


class Place(NamedTuple):
    """What has an order of arrival of its own: a peripheral, or RAM as the device's DMA sees it."""

    peripheral: int
    bar: int = 0
    part: int = 0

    @property
    def is_ram(self) -> bool:
        """Whether it is memory, not a device."""
        return self.peripheral < 0


RAM = Place(-1)


@dataclass(frozen=True, slots=True)
class Effect:
    """One single-copy-atomic read or write. Bytes `offset` to `offset + size` of a BAR; of RAM, physical addresses.

    `type` is how it behaves, which may be looser than its label, `event.type`; None: unknown, nothing is promised.
    `place` is None where it is not known which device it is. `optional`: it need not happen (a speculative read).
    `instruction` and `position` are positions of events in the program: of the instruction's first, and its own.
    """

    index: int
    op: Op
    place: Place | None
    offset: int
    size: int
    data: bytes | None
    type: MemoryType | None
    event: Event
    position: int
    instruction: int
    optional: bool = False

    @property
    def bit(self) -> int:
        """Its mask."""
        return 1 << self.index

    @property
    def vcpu(self) -> int:
        """Which vCPU made it."""
        return self.event.vcpu

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + self.size

    @property
    def reads(self) -> bool:
        """Whether barriers take it for a load."""
        return self.op is not Op.WRITE

    @property
    def writes(self) -> bool:
        """Whether barriers take it for a store."""
        return self.op is not Op.READ

    @property
    def at_device(self) -> bool:
        """Whether it is at a device and of a type that barriers order there: Device, or Normal Non-cacheable."""
        if self.place is None or self.place.is_ram or self.type is None:
            return False
        return self.type.is_device or self.type.is_non_cacheable

    @property
    def in_ram(self) -> bool:
        """Whether it is in memory that the device reads by DMA."""
        return self.place is not None and self.place.is_ram

    @property
    def by_device(self) -> bool:
        """Whether it is a write that the device sent, or an interrupt."""
        return self.event.vcpu == DEVICE

    @property
    def gathering(self) -> bool:
        """Whether its type permits Gathering; so does a type that is not known."""
        return self.type is None or self.type.gathering

    def overlaps(self, other: Effect) -> bool:
        """Whether they share a byte of a BAR or of RAM."""
        if self.in_ram != other.in_ram or self.offset >= other.end or other.offset >= self.end:
            return False
        one, two = self.event, other.event
        return one.bar == two.bar and (one.peripheral == two.peripheral or None in (one.peripheral, two.peripheral))

    def __str__(self) -> str:
        """As in `3: W nGnRE bar0+0x40 8`."""
        where = (
            "msi"
            if self.in_ram and self.offset == MSI_ADDRESS
            else "ram"
            if self.in_ram
            else "?"
            if self.event.bar is None
            else f"bar{self.event.bar}"
        )
        named = "unknown" if self.event.type is None else self.event.type.name.removeprefix("Device-")
        return f"{self.index}: {self.op.value} {named} {where}+{self.offset:#x} {self.size}"


@dataclass(frozen=True)
class Effects:
    """A program's effects, in program order of each vCPU, and what was assumed."""

    program: Program
    all: tuple[Effect, ...]
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int) -> Effect:
        return self.all[index]

    def __iter__(self) -> Iterator[Effect]:
        return iter(self.all)

    def of(self, mask: int) -> tuple[Effect, ...]:
        """The effects in a mask, in program order."""
        return tuple(effect for effect in self.all if mask >> effect.index & 1)

    def mask(self, position: int) -> int:
        """The effects of the instruction whose event is at `position`."""
        return sum(e.bit for e in self.all if e.instruction == position or e.position == position)


def effects(program: Program, model: Model = DEFAULT_MODEL) -> Effects:
    """The program's effects. What makes none (a fault, an exclusive at a BAR, tags) is in the notes."""
    notes: list[str] = []
    found: list[Effect] = []
    instructions = _instructions(program)
    for position, instruction in instructions.items():
        event = program.events[position]
        if _is_st64b(event):
            if position == instruction:
                parts = [program.events[p].data for p, first in instructions.items() if first == instruction]
                whole = event._replace(size=64, data=b"".join(parts))
                found.append(_effect(len(found), whole, whole.offset, 64, position, instruction, program, model))
        elif reason := _no_effect(event):
            notes.append(f"event {position}: {reason}")
        else:
            for offset, size in _cut(event, model):
                found.append(_effect(len(found), event, offset, size, position, instruction, program, model))
            notes.extend(f"event {position}: {note}" for note in _assumed(event))
    found, mismatched = _with_aliases(found)
    notes.extend(mismatched)
    return Effects(program, tuple(found), tuple(notes))


def _instructions(program: Program) -> dict[int, int]:
    """Of each access's position, that of the first one of the same execution of an instruction; ascending."""
    found: dict[int, int] = {}
    current: dict[int, int] = {}
    for position, event in enumerate(program.events):
        if event.kind in (Kind.BARRIER, Kind.DGH):
            continue
        first = current.get(event.vcpu)
        if event.element and first is not None and _alike(program.events[first], event):
            found[position] = first
        else:
            found[position] = current[event.vcpu] = position
    return found


def _alike(one: Event, two: Event) -> bool:
    """Whether two events may be of one instruction."""
    flags = (one.flags ^ two.flags) & ~(Flag.PART | Flag.NO_DATA | Flag.REPEATED)
    return (one.pc, one.instruction) == (two.pc, two.instruction) and not flags


def _is_st64b(event: Event) -> bool:
    return event.kind is Kind.STORE and event.instruction & _ST64B_MASK == ST64B


def _no_effect(event: Event) -> str:
    """Why an event arrives nowhere; empty when it does."""
    if event.kind is Kind.LOST:
        return f"{event.size} events of vCPU {event.vcpu} were lost here: their accesses and barriers are missing"
    if event.kind in (Kind.TAG_LOAD, Kind.TAG_STORE):
        return "allocation tags are no access to a device"
    if event.flags & Flag.EXCLUSIVE and event.bar is not None:
        return "an exclusive at a BAR faults or aborts: PCIe has no exclusives (6.15 has AtomicOps)"
    if event.size == 0:
        return "an access of no bytes"
    return ""


def _assumed(event: Event) -> Iterator[str]:
    if event.type is None:
        yield "its memory type is unknown: no order is promised, anything may be gathered"
    if None in (event.bar, event.peripheral) and not (event.type and event.type.is_write_back):
        yield "which device it is at is unknown: it has no order with others"
    if event.flags & Flag.PART or event.offset // PAGE != (event.offset + event.size - 1) // PAGE:
        yield "it crosses a 4 KiB boundary: CONSTRAINED UNPREDICTABLE (K1.2.13-14); here both parts are done"
    if event.kind is Kind.ATOMIC and event.bar is not None:
        yield "an atomic over PCIe needs a completer of AtomicOps (6.15); else it faults or aborts"


def _cut(event: Event, model: Model) -> Iterator[tuple[int, int]]:
    """Offsets and sizes of the single-copy-atomic units (B2.2.1).

    A general register aligned to its size is one. STR Q is two of 8 bytes; so is each register of STP Q.
    """
    offset, size = event.offset, event.size
    whole = event.kind is not Kind.ZERO and not event.flags & _NOT_WHOLE
    if whole and size in (1, 2, 4, 8) and offset % size == 0:
        yield offset, size
        return
    step = 8 if whole and size % 8 == 0 and offset % 8 == 0 else model.unaligned if whole else model.piece
    at = offset
    while at < offset + size:
        until = min((at // step + 1) * step, offset + size)
        yield at, until - at
        at = until


def _effect(
    index: int, event: Event, offset: int, size: int, position: int, instruction: int, program: Program, model: Model
) -> Effect:
    op = Op.ATOMIC if event.kind is Kind.ATOMIC else Op.WRITE if event.kind in (Kind.STORE, Kind.ZERO) else Op.READ
    kind = event.type
    if kind is not None and kind.is_device and event.flags & (Flag.SVE | Flag.MOPS):
        kind = GRE  # B2.10.2.5-6: SVE may behave as GRE; B2.10.2.1-2: MOPS gathers, and nR is without effect on it
    return Effect(
        index,
        op,
        _place(event, offset, program, model),
        offset,
        size,
        _data(event, offset, size) if op is not Op.READ else None,
        kind,
        event,
        position,
        instruction,
        event.kind is Kind.SPECULATIVE,
    )


def _place(event: Event, offset: int, program: Program, model: Model) -> Place | None:
    if event.bar is None and event.peripheral is None:
        cacheable = event.type is not None and event.type.is_write_back
        return RAM if cacheable and (offset in program.ram or offset == MSI_ADDRESS) else None
    if event.peripheral is None or event.bar is None:
        return None
    if event.bar == BAR_CONFIG:
        return Place(event.peripheral, BAR_CONFIG)
    if model.peripheral_size is None:
        return Place(event.peripheral)
    return Place(event.peripheral, event.bar, offset // model.peripheral_size)


def _data(event: Event, offset: int, size: int) -> bytes | None:
    if event.flags & Flag.NO_DATA:
        return None
    if event.flags & Flag.REPEATED:
        return event.data[:1] * size
    found = event.data[offset - event.offset :][:size]
    return found if len(found) == size else None


def _with_aliases(found: list[Effect]) -> tuple[list[Effect], list[str]]:
    """Mismatched attributes (B2.11): locations that are accessed under several types lose what Device promises.

    With a cacheable alias coherency goes too: then nothing is known of the type's order.
    """
    blocks: dict[tuple[int | None, int | None, int], list[Effect]] = defaultdict(list)
    for effect in found:
        for block in range(effect.offset // 8, (effect.end - 1) // 8 + 1):
            blocks[effect.event.peripheral, effect.event.bar, block].append(effect)
    loose: dict[int, MemoryType | None] = {}
    for sharing in blocks.values():
        if len({effect.event.type for effect in sharing}) == 1:
            continue
        for effect in sharing:
            others = [o for o in sharing if o is not effect and o.overlaps(effect) and _mismatched(o, effect)]
            if effect.event.type is None or not others:
                continue
            if any(_cacheable(o.event.type) for o in (effect, *others)):
                loose[effect.index] = None
            elif loose.get(effect.index, GRE) is not None:
                loose[effect.index] = GRE if effect.event.type.is_device else effect.event.type
    notes = [
        f"effect {i}: its location has mismatched types (B2.11): it behaves as {_named(t)}" for i, t in loose.items()
    ]
    return [replace(e, type=loose[e.index]) if e.index in loose else e for e in found], notes


def _mismatched(one: Effect, two: Effect) -> bool:
    first, second = one.event.type, two.event.type
    return first is not None and second is not None and first.canonical != second.canonical


def _cacheable(kind: MemoryType | None) -> bool:
    return kind is not None and not kind.is_device and not kind.is_non_cacheable


def _named(kind: MemoryType | None) -> str:
    return "a type that is not known" if kind is None else kind.name
