"""Fixes: single changes of a program with which the invariants hold in all behaviours, the cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, PAGE, MemoryType
from ..interconnect import Part, Program, dmb, dsb, load, on_vcpu
from ..interconnect.program import DEVICE
from ..stream import BAR_CONFIG, Event, Flag, Kind
from .judge import Setup
from .search import Found, run
from .shrink import Shrunk, part_of

SAMPLED = 1000
"""Behaviours by which a change is judged where not all of them can be looked at."""

EVERYWHERE = 1000
"""A program of so few behaviours has barriers tried at all its places, by itself: they may also help because of an
access that the shrunk one is without, such as an earlier store of the same bytes."""

_BARRIERS: tuple[tuple[int, str, Callable[[], Part]], ...] = (
    (1, "dmb oshst", lambda: dmb("oshst")),
    (3, "dmb oshld", lambda: dmb("oshld")),
    (4, "dmb osh", lambda: dmb("osh")),
    (5, "dsb oshst", lambda: dsb("oshst")),
    (6, "dsb osh", lambda: dsb("osh")),
)
"""By cost: a DMB makes nobody wait, a DSB waits for acknowledgements, a read-back for a round trip to the device."""
_RELEASE, _READ_BACK, _TYPE = 2, 7, 10
_TYPES = ((GRE, "GRE"), (NORMAL_NC, "Normal-NC"), (NGRE, "nGRE"), (NGNRE, "nGnRE"), (NGNRNE, "nGnRnE"))
"""From what permits most to what permits least."""


@dataclass(frozen=True)
class Fix:
    """A change with which every invariant holds: in all behaviours, or, if not `complete`, in those that were drawn.

    `cost` only ranks: barriers that nobody waits for, then those that somebody does, then what changes the mapping.
    """

    cost: int
    what: str
    program: Program
    shrunk: Program
    """The same change of the shrunk program."""
    complete: bool
    extent: str

    def __str__(self) -> str:
        """As in `dmb oshst before event 2 (all 3 legal behaviours)`."""
        return f"{self.what} ({self.extent})"


@dataclass(frozen=True)
class _Change:
    """A change of the program, and the same of the shrunk one, which is tried first. `group`: one of them is enough."""

    cost: int
    group: object
    what: str
    small: Program
    whole: Program


def find_fixes(explored: Found, shrunk: Shrunk) -> tuple[Fix, ...]:
    """The cheapest barrier at each place, the release that is enough, and the loosest types of a page that are."""
    small: dict[Program, bool] = {}
    found: dict[object, Fix] = {}
    whole = replace(explored.setup, drawn=min(explored.setup.drawn, SAMPLED))
    everywhere = explored.complete and explored.checked <= EVERYWHERE
    for change in sorted(_changes(explored.program, shrunk, everywhere), key=lambda each: each.cost):
        if change.group in found:
            continue
        if change.small not in small:
            small[change.small] = everywhere or _passes(change.small, explored.setup)
        if not small[change.small]:
            continue
        tried = run(change.whole, whole, stop=True)
        if tried.passed:
            found[change.group] = Fix(
                change.cost, change.what, change.whole, change.small, tried.complete, tried.extent
            )
    return tuple(sorted(found.values(), key=lambda each: each.cost))


def _passes(program: Program, setup: Setup) -> bool:
    return run(program, setup, stop=True).passed


def _changes(program: Program, shrunk: Shrunk, everywhere: bool) -> Iterator[_Change]:
    yield from _insertions(program, shrunk, everywhere)
    yield from _releases(program, shrunk)
    yield from _retypings(program, shrunk)


def _insertions(program: Program, shrunk: Shrunk, everywhere: bool) -> Iterator[_Change]:
    first, last = (0, len(program.events) - 1) if everywhere else (shrunk.positions[0], shrunk.positions[-1])
    for position in range(first + 1, last + 1):
        before, behind = program.events[position - 1], program.events[position]
        if behind.element or behind.kind in (Kind.BARRIER, Kind.DGH):
            continue  # within an instruction; or as good behind the barrier or hint that is there
        there = sum(each < position for each in shrunk.positions)
        for vcpu in {before.vcpu, behind.vcpu} - {DEVICE}:
            parts = [(cost, name, make()) for cost, name, make in _BARRIERS]
            written = _written_last(program.events[:position], vcpu)
            if written is not None:
                read = load(written.offset, min(written.size, 8), type=written.type, bar=written.bar)
                back = (*(each._replace(peripheral=written.peripheral) for each in read), *dsb("osh"))
                parts.append((_READ_BACK, f"a read-back of {_place(written)}, then dsb osh,", back))
            for cost, name, part in parts:
                new = on_vcpu(vcpu, part)
                if (
                    cost < _READ_BACK
                    and before.barrier is not None
                    and before.vcpu == vcpu
                    and position - 1 in shrunk.positions
                ):
                    what = f"{name} instead of {before.barrier}, event {position - 1}"
                    instead = {shrunk.positions.index(position - 1): new[0]}
                    small, whole = _changed(shrunk.program, instead), _changed(program, {position - 1: new[0]})
                    yield _Change(cost, (position, vcpu), what, small, whole)
                what = f"{name} before event {position}, {_said(behind)}"
                yield _Change(
                    cost, (position, vcpu), what, shrunk.program.inserted(there, new), program.inserted(position, new)
                )


def _written_last(events: Sequence[Event], vcpu: int) -> Event | None:
    """The last access before, if it is a store to a BAR; barriers may be behind it."""
    last = next((each for each in reversed(events) if each.vcpu == vcpu and each.barrier is None), None)
    stored = last is not None and last.kind is Kind.STORE and last.bar not in (None, BAR_CONFIG)
    return last if stored else None


def _releases(program: Program, shrunk: Shrunk) -> Iterator[_Change]:
    for at, position in enumerate(shrunk.positions):
        event = program.events[position]
        if event.kind is Kind.STORE and event.size <= 8 and not event.flags and event.bar is not None:
            new = event._replace(flags=Flag.RELEASE)
            what = f"a store-release for event {position}, {_said(event)}"
            yield _Change(
                _RELEASE,
                ("release", position),
                what,
                _changed(shrunk.program, {at: new}),
                _changed(program, {position: new}),
            )


def _retypings(program: Program, shrunk: Shrunk) -> Iterator[_Change]:
    """Another type for all accesses to a page. What is Device is not speculated upon: those reads are gone then."""
    pages = {
        (event.peripheral, event.bar, event.offset // PAGE)
        for event in shrunk.program.events
        if event.bar not in (None, BAR_CONFIG) and event.size
    }
    for page in sorted(pages, key=str):
        for rank, (kind, name) in enumerate(_TYPES):
            small, whole = _retyped(shrunk.program, page, kind), _retyped(program, page, kind)
            if small is not None and whole is not None:
                what = f"type {name} for bar{page[1]}+{page[2] * PAGE:#x}, its whole page"
                yield _Change(_TYPE + rank, page, what, small, whole)


def _retyped(program: Program, page: tuple[int | None, int | None, int], kind: MemoryType) -> Program | None:
    """None where it is so already."""
    new = {
        position: event._replace(type=kind)
        for position, event in enumerate(program.events)
        if (event.peripheral, event.bar, event.offset // PAGE) == page and event.size and event.type != kind
    }
    if not new:
        return None
    gone = [p for p, event in new.items() if kind.is_device and event.kind is Kind.SPECULATIVE]
    changed = _changed(program, new)
    if not gone:
        return changed
    return part_of(changed, [p for p in range(len(program.events)) if p not in gone])


def _changed(program: Program, new: dict[int, Event]) -> Program:
    return replace(program, events=tuple(new.get(at, event) for at, event in enumerate(program.events)))


def _place(event: Event) -> str:
    return f"bar{event.bar}+{event.offset:#x}"


def _said(event: Event) -> str:
    if event.barrier is not None:
        return str(event.barrier)
    return f"the {event.kind.name.lower().replace('_', ' ')} at {_place(event)}" if event.bar is not None else "in RAM"
