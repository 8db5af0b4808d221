"""The frame of a scheme: page by page choices become pieces, and pieces become mappings that can be counted."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from ..attributes import NGNRE, NGNRNE, NORMAL_WB, PAGE, encode_stage2
from .inputs import Bar, Range, Situation
from .outputs import Adaptation, BarMapping, Change, Choice, Decision, Piece, Refusal

#: What vfio-pci and remap_pfn_range() set on every mapping of device memory.
VFIO_FLAGS = ("VM_IO", "VM_PFNMAP", "VM_DONTEXPAND", "VM_DONTDUMP")

Slice = tuple[int, int]  # start and end offset in the BAR, bytes


def device(where: Range) -> Choice:
    """The old rule, and every scheme's fallback: pgprot_noncached for the user, Device-nGnRE in stage 2."""
    if where.kvm_internal:
        return Choice(None, NGNRE)
    return Choice(NGNRNE, NGNRE, VFIO_FLAGS)


def high_flag(situation: Situation, name: str) -> tuple[str, ...]:
    """VFIO's flags with a VMA flag above bit 31 in front, which is VM_NONE on a 32-bit kernel."""
    return (name, *VFIO_FLAGS) if situation.host.bits == 64 else VFIO_FLAGS


def surviving_vmas(calls: list[Slice]) -> list[Slice]:
    """The VMAs that mmap() calls, MAP_FIXED into one range and made in this order, leave behind.

    Device mappings are VM_SPECIAL, which the kernel never merges: neighbours stay apart even when they are alike.
    """
    left: list[Slice] = []
    for start, end in calls:
        kept: list[Slice] = []
        for old_start, old_end in left:
            if old_end <= start or old_start >= end:
                kept.append((old_start, old_end))
                continue
            if old_start < start:
                kept.append((old_start, start))
            if old_end > end:
                kept.append((end, old_end))
        left = [*kept, (start, end)]
    return sorted(left)


class Scheme(ABC):
    """A decision procedure over one device, page by page. Stateless: all state is in the Situation."""

    id: ClassVar[str]
    title: ClassVar[str]
    decider: ClassVar[str]
    granularity: ClassVar[str]
    opt_in: ClassVar[str]
    status: ClassVar[str]

    @abstractmethod
    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """The decision for page `page` (0-based) of range `where`."""

    def calls(self, situation: Situation, bar: Bar) -> list[Slice]:
        """The VMM's successful mmap() calls for one BAR, in order. By default one, of the whole BAR."""
        return [(0, bar.size)]

    def memslots(self, situation: Situation, bar: Bar) -> int:
        """How many memslots hold one BAR. By default one: a slot may span VMAs."""
        return 1

    def driver_of(self, situation: Situation, where: Range) -> str | None:
        """Who makes this scheme's mappings of `where` follow a run-time change: "guest", "vmm", or None."""
        return None

    def decide(self, situation: Situation) -> Decision:
        """Decide for every page of every BAR and for the platform ranges."""
        pieces: list[Piece] = []
        for where in situation.layout.covered:
            pieces += self._pieces(situation, where)
        pieces = self._refuse_cacheable(situation, pieces)
        bars = []
        for bar in situation.layout.bars:
            calls = self.calls(situation, bar)
            vmas = len(surviving_vmas(calls))
            bars.append(BarMapping(bar.index, len(calls), vmas, self.memslots(situation, bar)))
        return Decision(self.id, situation, tuple(pieces), tuple(bars))

    def adapt(self, decision: Decision, change: Change) -> Adaptation:
        """Answer "range page n became write-combining-safe (or stopped being so)".

        What was asked for from the start stays as asked: only pages that a change opened can be closed again.
        Raises KeyError for a range or page that the layout does not have.
        """
        situation = decision.situation
        where = situation.layout.find(change.range)
        pages = change.pages_of(where)
        driver = self.driver_of(situation, where)
        if driver is not None:
            granted = situation.granted | pages if change.wc_safe else situation.granted - pages
            after = self.decide(replace(situation, granted=granted))
            if _nibbles(after) != _nibbles(decision):
                return Adaptation(after, True, driver, f"the {driver} has stage 2 changed, page by page")
            after_changed = after.pieces != decision.pieces
        else:
            after, after_changed = decision, False
        piece = after.at(where.name, change.page or 0)
        if piece.s2 is None:
            return Adaptation(after, after_changed, "nobody", "the memslot was refused")
        gathering = {kind.gathering for kind in piece.reachable(after.fwb)}
        if gathering == {False, True}:
            return Adaptation(after, after_changed, "guest", "stage 2 leaves the type to the guest's own stage 1")
        reason = "stage 2 forces the type" if gathering == {True} else "stage 2 forbids write-combining"
        return Adaptation(after, after_changed, "nobody", f"{reason}, and nobody can change it while the guest runs")

    def _pieces(self, situation: Situation, where: Range) -> Iterator[Piece]:
        start, current = 0, self.choose(situation, where, 0)
        for page in range(1, where.pages + 1):
            following = self.choose(situation, where, page) if page < where.pages else None
            if following != current:
                yield Piece(
                    range=where.name,
                    bar=where.bar,
                    offset=where.offset + start * PAGE,
                    size=(page - start) * PAGE,
                    first_page=start,
                    host=current.host,
                    vma_flags=current.vma_flags,
                    s2=encode_stage2(current.stage2, situation.host.fwb),
                    stage2=current.stage2,
                    veto=current.veto,
                )
                if following is not None:
                    start, current = page, following

    def _refuse_cacheable(self, situation: Situation, pieces: list[Piece]) -> list[Piece]:
        """Refuse every memslot over a cacheable VMA on a host that cannot keep it coherent.

        kvm_arch_prepare_memory_region() looks at every VMA under the slot: one cacheable one and no FWB or no DIC, and
        the slot is not made (-EINVAL). A VMA that becomes cacheable later fails at the fault instead (-EFAULT).
        """

        def slot(piece: Piece) -> int | str:
            return piece.range if piece.bar is None else piece.bar

        missing = [name for name, there in (("FWB", situation.host.fwb), ("DIC", situation.host.dic)) if not there]
        slots = {slot(piece) for piece in pieces if piece.stage2 == NORMAL_WB}
        if not missing or not slots:
            return pieces
        refusal = Refusal(
            errno.EINVAL,
            f"a memslot must be over VMAs that are not cacheable on a host without {' and '.join(missing)}, "
            "not over a Write-Back one",
        )
        return [
            replace(piece, s2=None, stage2=None, refusal=refusal) if slot(piece) in slots else piece for piece in pieces
        ]


def _nibbles(decision: Decision) -> list[int | None]:
    """Stage 2, page by page."""
    return [piece.s2 for piece in decision.pieces for _ in range(piece.pages)]


def settled(scheme: Scheme, situation: Situation, *, greedy: bool = False) -> Decision:
    """The decision once the guest has asked for what it may have, where a scheme lets it ask (`trap`).

    The guest asks for every range that the layout calls write-combining-safe, or, `greedy`, for all of them. Other
    schemes are decided already.
    """
    decision = scheme.decide(situation)
    for where in situation.layout.covered:
        if (where.wc_safe or greedy) and scheme.driver_of(situation, where) == "guest":
            decision = scheme.adapt(decision, Change(where.name)).decision
    return decision
