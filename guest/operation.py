"""What one operation of the access battery is: its instructions, the accesses they make, and their effect in memory.

An operation runs on a *slot*: ``SLOT`` bytes at an address aligned to ``SLOT``. Its data come from a *pattern* that
differs from one experiment to the next, so that a store that never arrived is not hidden by the one before it.
The accesses are those of the architecture (Arm ARM DDI 0487, B2.2 single-copy atomicity); how QEMU's TCG cuts them
into bus transactions is `qemu_transactions`, which is an observation about QEMU and not a rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..bridge.errors import DefinitionError

SLOT = 128
"""Bytes of device memory that one operation may touch, and the alignment of its slot."""

PATTERN_SIZE = 128
"""Bytes of data an operation can store."""

RESULT_OFFSET = 128
"""Where, from the start of the pattern, the guest's stubs leave what was loaded: two 64-bit values."""

PAGE = 4096


def pattern(mark: int) -> bytes:
    """The 128 bytes that the experiment with this mark has to store: all different, and different from its neighbours'.

    Byte ``i`` is ``(i + 1) ^ (mark & 0xff)``; ``guest/baremetal/run.c`` computes the same.
    """
    return _PATTERNS[mark & 0xFF]


_PATTERNS = tuple(bytes((i + 1) ^ seed for i in range(PATTERN_SIZE)) for seed in range(256))


class Kind(StrEnum):
    """What an operation does to memory."""

    LOAD = "load"
    STORE = "store"
    UPDATE = "update"
    """Loads, then stores what follows from the loaded value: exclusives and atomics."""
    TRANSLATE = "translate"
    """Makes no access: AT, whose value is PAR_EL1."""


class Access(StrEnum):
    """The class of instruction, as the rules on alignment and memory types distinguish them."""

    SINGLE = "single"
    """One general or SIMD&FP register."""
    PAIR = "pair"
    """LDP, STP: no order and no visible sizes outside the PE (B2.2)."""
    VECTOR = "vector"
    """LDn, STn of Advanced SIMD."""
    EXCLUSIVE = "exclusive"
    ATOMIC = "atomic"
    ORDERED = "ordered"
    """LDAR, STLR."""
    ZERO = "zero"
    """DC ZVA: an alignment fault on Device memory whatever the address (D24, DC ZVA)."""
    SINGLE_COPY_64 = "single-copy-64"
    """ST64B of FEAT_LS64."""
    IDIOM = "idiom"
    """Several instructions, as drivers and libraries write them."""
    TRANSLATE = "translate"


class Update(StrEnum):
    """What an update leaves in memory."""

    ADD = "add"
    SWAP = "swap"
    COMPARE_ZERO = "compare-zero"
    """The pattern if memory was zero, else what was there."""


@dataclass(frozen=True, slots=True)
class Element:
    """One access of the architecture: ``size`` bytes at ``offset`` in the slot.

    ``alignment`` is what its address must be a multiple of on Device memory. ``instruction`` counts the instructions
    of ``Op.asm``: two elements of one instruction have no order. ``source`` is where in the pattern the stored bytes
    come from; -1: zeros.
    """

    offset: int
    size: int
    write: bool
    alignment: int
    instruction: int = 0
    source: int = 0
    access: Access = Access.SINGLE

    @property
    def faults_on_device(self) -> bool:
        """Whether this access is an alignment fault on Device memory (B2.10.2, DDI 0487)."""
        return self.access is Access.ZERO or self.offset % self.alignment != 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Op:
    """One operation of the battery; there is one object of each.

    ``asm`` are the instructions under test (x0: the target's address, x1: the pattern, x2: the doorbell's address);
    ``setup`` and ``finish`` load the pattern before and leave the result after. ``offset`` is where in the slot the
    operation starts, ``size`` how many bytes from there it covers. ``levels`` are the exception levels it may run at.

    Raises:
        DefinitionError: An element lies outside the operation's bytes, or they lie outside the slot.
    """

    name: str
    kind: Kind
    access: Access
    asm: tuple[str, ...]
    setup: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()
    offset: int = 0
    size: int = 0
    elements: tuple[Element, ...] = ()
    update: Update | None = None
    feature: str | None = None
    """The field of `plan.Features` that the CPU must have; without it the operation is an undefined instruction."""
    levels: tuple[int, ...] = (0, 1, 2)
    crossing: bool = False
    """The operation starts in the last slot of a page and ends in the next page."""
    doorbell: bool = False
    """The operation ends with a 4-byte store of pattern[64:68] to a second address, the doorbell's."""
    barrier: str | None = None
    """What stands between the payload and the doorbell."""
    once: bool = False
    """Run in the first mode of a battery alone, where the device keeps a record: that is all it is for."""

    def __post_init__(self) -> None:
        if not 0 <= self.offset < SLOT:
            raise DefinitionError(f"offset of {self.name} must be between 0 and {SLOT - 1}, not {self.offset}")
        end = self.offset + self.size
        if (end > SLOT) != self.crossing:
            where = "past" if self.crossing else "within"
            raise DefinitionError(f"{self.name} must end {where} its {SLOT}-byte slot, not at {end}")
        for element in self.elements:
            if not self.offset <= element.offset <= element.offset + element.size <= end:
                raise DefinitionError(f"elements of {self.name} must lie in {self.offset}..{end}, not {element}")

    @property
    def loads(self) -> bool:
        """Whether the operation reads memory."""
        return any(not element.write for element in self.elements)

    @property
    def stores(self) -> bool:
        """Whether the operation writes memory."""
        return any(element.write for element in self.elements)

    @property
    def aligned(self) -> bool:
        """Whether no access of it is an alignment fault on Device memory."""
        return self.first_fault is None

    @property
    def first_fault(self) -> Element | None:
        """The access that is an alignment fault on Device memory, or None. Those before it are made."""
        return next((element for element in self.elements if element.faults_on_device), None)

    @property
    def span(self) -> int:
        """Bytes of device memory, from the start of the slot, that the operation can reach."""
        return 2 * SLOT if self.crossing else SLOT

    def stored(self, data: bytes, before: bytes, *, elements: tuple[Element, ...] | None = None) -> bytes:
        """The slot's bytes after the operation, from the pattern and the slot's bytes before it (``span`` of them).

        ``elements`` restricts it to some of the accesses, as when a later one faults.
        """
        after = bytearray(before)
        for element in self.elements if elements is None else elements:
            if element.write:
                end = element.offset + element.size
                after[element.offset : end] = self._data(element, data, bytes(before[element.offset : end]))
        return bytes(after)

    def _data(self, element: Element, data: bytes, old: bytes) -> bytes:
        if element.source < 0:
            return bytes(element.size)
        new = data[element.source : element.source + element.size]
        if self.update is Update.ADD:
            total = int.from_bytes(old, "little") + int.from_bytes(new, "little")
            return (total % (1 << 8 * element.size)).to_bytes(element.size, "little")
        if self.update is Update.COMPARE_ZERO and any(old):
            return old
        return new

    def loaded(self, before: bytes) -> bytes:
        """What the operation loads, at most the first 16 bytes; empty if it loads nothing."""
        first = bytearray()
        for element in self.elements:
            if not element.write:
                first += before[element.offset : element.offset + element.size]
        return bytes(first[:16])

    def value(self, before: bytes) -> tuple[int, int]:
        """The two values a guest reports for `loaded`; an exclusive's second is its status, 0."""
        data = self.loaded(before).ljust(16, b"\0")
        return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")

    def doorbell_value(self, data: bytes) -> bytes:
        """The 4 bytes that arrive at the doorbell."""
        return data[64:68]


@dataclass(frozen=True, slots=True)
class Piece:
    """One bus transaction under QEMU: ``size`` bytes at ``offset`` in the slot."""

    offset: int
    size: int
    write: bool


def qemu_pieces(offset: int, size: int) -> list[tuple[int, int]]:
    """How TCG cuts one access to trapped memory: the largest aligned power of two, at most 8, again and again."""
    pieces: list[tuple[int, int]] = []
    while size:
        part = min((offset | size) & -(offset | size), 8)
        pieces.append((offset, part))
        offset, size = offset + part, size - part
    return pieces


def qemu_transactions(op: Op, elements: tuple[Element, ...] | None = None) -> tuple[Piece, ...]:
    """The transactions that reach a trapped BAR under QEMU 11.1, in order (doorbell not included).

    The same for every memory type, as TCG models none; ``elements`` restricts it as in `Op.stored`. Byte elements of
    one vector instruction and the halves of a 32-bit pair travel as eights, DC ZVA as single bytes; a store-exclusive
    reads before it writes.
    """
    pieces: list[Piece] = []
    for run in _joined(op.elements if elements is None else elements):
        first = run[0]
        start, size = first.offset, sum(element.size for element in run)
        if first.access is Access.ZERO:
            parts = [(at, 1) for at in range(start, start + size)]
        else:
            parts = _page_parts(start, size)
        if first.access is Access.EXCLUSIVE and first.write:
            pieces += [Piece(at, part, False) for at, part in parts]
        pieces += [Piece(at, part, first.write) for at, part in parts]
    return tuple(pieces)


def _joined(elements: tuple[Element, ...]) -> list[list[Element]]:
    """The elements that TCG accesses together: those of one instruction, up to eight bytes, where it does that."""
    runs: list[list[Element]] = []
    for element in elements:
        joins = element.size == {Access.VECTOR: 1, Access.PAIR: 4}.get(element.access)
        last = runs[-1] if runs else []
        same = bool(last) and last[0].instruction == element.instruction
        if joins and same and sum(each.size for each in last) < 8:
            last.append(element)
        else:
            runs.append([element])
    return runs


def _page_parts(offset: int, size: int) -> list[tuple[int, int]]:
    """`qemu_pieces`, cut at the end of the slot first: for a crossing operation that is the end of its page."""
    if offset < SLOT < offset + size:
        return qemu_pieces(offset, SLOT - offset) + qemu_pieces(SLOT, offset + size - SLOT)
    return qemu_pieces(offset, size)
