"""What the questions are asked of: one scheme, one device, and every situation that an answer compares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from ...attributes import MEMORY_TYPES, MemoryType
from ..base import Scheme, settled
from ..inputs import NOTHING, Driver, Host, Layout, Range, Request, Situation
from ..outputs import Adaptation, Change, Decision, Piece
from ..status_quo import StatusQuo

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class Cell:
    """An observation that helps to prove an answer: what type page `page` of `range` must be seen to have.

    `s1`: the guest's stage-1 type, or None: the host's user mapping itself, exercised at EL2. `request`: under which
    decision: "asking" (the study's own request, the guest having asked), "nothing" (a VMM that asks for nothing) or
    "changed" (after `Study.change`).
    """

    range: str
    page: int
    s1: MemoryType | None
    expected: MemoryType
    request: str
    fwb: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question of the scorecard, 1 to 15.

    `value` is plain data, `detail` one line for people. `how` is "modelled" here; whoever has observed every cell of a
    non-empty `evidence` as expected may call it "seen": the types, that is; what a type permits is the architecture's
    word. The keys of `value` in `unobservable` stay modelled even then.
    """

    question: int
    key: str
    text: str
    value: Json
    detail: str
    evidence: tuple[Cell, ...] = ()
    unobservable: tuple[str, ...] = ()
    how: str = "modelled"


@dataclass(frozen=True)
class Study:
    """One scheme on one device. By default VMM and driver know the device; the host is 64-bit with FWB and DIC."""

    scheme: Scheme
    layout: Layout
    request: Request
    driver: Driver
    host: Host

    @classmethod
    def of(
        cls,
        scheme: Scheme,
        layout: Layout,
        *,
        request: Request | None = None,
        driver: Driver | None = None,
        host: Host | None = None,
    ) -> Study:
        """A study with the defaults filled in."""
        return cls(
            scheme,
            layout,
            Request.knowing(layout) if request is None else request,
            Driver.knowing(layout) if driver is None else driver,
            Host() if host is None else host,
        )

    @property
    def situation(self) -> Situation:
        """The study's own situation."""
        return Situation(self.layout, self.request, self.driver, self.host)

    @cached_property
    def asking(self) -> Decision:
        """The decision for the VMM that asks, after the guest has asked too."""
        return settled(self.scheme, self.situation)

    @cached_property
    def nothing(self) -> Decision:
        """The decision for a VMM that asks for nothing."""
        return settled(self.scheme, replace(self.situation, request=NOTHING))

    @cached_property
    def greedy(self) -> Decision:
        """The decision for a VMM, and a guest, that ask for write-combining everywhere."""
        return settled(self.scheme, replace(self.situation, request=Request.greedy(self.layout)), greedy=True)

    @cached_property
    def before(self) -> Decision:
        """What the old rule decides, asked for nothing: the yardstick of "unaffected"."""
        return StatusQuo().decide(replace(self.situation, request=NOTHING))

    @cached_property
    def change(self) -> Change | None:
        """The run-time change under study: page 1 of the first dynamic range (0 if it has one page), or None."""
        for where in self.layout.ranges:
            if where.dynamic:
                return Change(where.name, min(1, where.pages - 1))
        return None

    @cached_property
    def changed(self) -> Adaptation | None:
        """What the scheme makes of `change`."""
        return None if self.change is None else self.scheme.adapt(self.asking, self.change)

    def on(self, host: Host) -> Decision:
        """The same on another host."""
        return settled(self.scheme, replace(self.situation, host=host))

    def pieces(self, decision: Decision, ranges: Iterable[Range]) -> list[Piece]:
        """The pieces of some ranges."""
        return [piece for where in ranges for piece in decision.of(where.name)]

    @property
    def wc_safe(self) -> list[Range]:
        """Ranges that stand write-combining from the start."""
        return [where for where in self.layout.ranges if where.wc_safe]

    @property
    def platform(self) -> list[Range]:
        """Ranges of devices that are not PCI."""
        return [where for where in self.layout.ranges if where.bar is None]

    @property
    def pci(self) -> list[Range]:
        """All ranges of the device's BARs, gaps included."""
        return [where for where in self.layout.covered if where.bar is not None]

    def cells(
        self, decision: Decision, request: str, pieces: Iterable[Piece], s1: Iterable[MemoryType]
    ) -> tuple[Cell, ...]:
        """One cell for each piece and stage-1 type that stage 2 is installed for."""
        wanted = list(s1)
        return tuple(
            Cell(piece.range, piece.first_page, kind, result, request, decision.fwb)
            for piece in pieces
            for kind in wanted
            if (result := piece.effective(kind, decision.fwb)) is not None
        )

    def host_cells(self, decision: Decision, request: str, pieces: Iterable[Piece]) -> tuple[Cell, ...]:
        """One cell for each piece that a user process maps."""
        return tuple(
            Cell(piece.range, piece.first_page, None, piece.host, request, decision.fwb)
            for piece in pieces
            if piece.host is not None
        )


def reachable(pieces: Iterable[Piece], fwb: bool) -> list[MemoryType]:
    """The effective types that a guest can have on one of the pieces at least, in slot order."""
    found = {kind for piece in pieces for kind in piece.reachable(fwb)}
    return [kind for kind in MEMORY_TYPES if kind in found]


def names(items: Iterable[Range | Piece]) -> list[str]:
    """The names of ranges, or of the ranges that pieces lie in, each once, in order."""
    return list(dict.fromkeys(item.name if isinstance(item, Range) else item.range for item in items))


def listed(words: Iterable[str], nothing: str = "none") -> str:
    """Words for a sentence."""
    return ", ".join(words) or nothing
