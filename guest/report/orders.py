"""The orders of a matrix run on a terminal: columns for the table of schemes, and a table of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from ...bridge.attributes import MEMORY_TYPES, MemoryType
from ..orders.answers import frequency
from ..orders.results import Ordering, OrderPair, Orders
from ..results import Cell, HostCell, Matrix

SHORT = dict(zip(map(str, MEMORY_TYPES), ("nGnRnE", "nGnRE", "nGRE", "GRE", "NC", "WT", "WB", "tagged"), strict=True))
"""The names of the types in columns."""

HEADINGS = ("one TLP\n(model)", "bell 1st\n(model)", "spec.\n(model)")
LEGEND = (
    "(model): modelled, not seen, of the freest type in the row: how often eight STR of 8 bytes, with no barrier, are "
    "one 64-byte TLP; how often the doorbell overtakes them; whether a read that nobody asked for may arrive, through "
    "the h(ost's) or g(uest's) mapping."
)
_IDIOM, _BARRIER = "8 x STR x", "none"
Labels = tuple[tuple[str, ...], ...]


def columns(matrix: Matrix, cells: Sequence[Cell], host: HostCell | None) -> tuple[str, ...]:
    """What the columns say of a row of the table of schemes: one range, all types of the guest."""
    orders = matrix.orders
    if orders is None:
        return ()
    keys = {cell.orders: None for cell in cells if cell.orders}
    rows = [_row(orders.pairs[key]) for key in keys]
    if not rows:
        return ("-", "-", "-")
    reads = {
        each.who
        for each in orders.reads
        if each.reading
        and (each.scheme, each.case, each.fwb) == (cells[0].scheme, cells[0].case, cells[0].fwb)
        and each.range == cells[0].range
        and (each.who == "guest" or host is not None)
    }
    return (
        _most([(row.whole, row.one_tlp) for row in rows], orders.seeds),
        _most([(row.early_runs, row.early) for row in rows], orders.seeds),
        "".join(sorted(who[0] for who in reads)) or "-",
    )


def _row(pair: OrderPair) -> Ordering:
    return next(row for row in pair.rows if (row.idiom, row.barrier) == (_IDIOM, _BARRIER))


def _most(found: Iterable[tuple[int, bool]], seeds: int) -> str:
    count, possible = max(found, key=lambda each: (each[1], each[0]))
    return frequency(count, seeds, possible)


def table(orders: Orders) -> Table:
    """A row an idiom and barriers that came out alike, a column the types that did."""
    title = (
        f"orders (modelled), profile {orders.profile}, {orders.seeds:,} seeds\n"
        "legal behaviours / one 64-byte TLP (else torn; TLPs, least and most) / doorbell before the whole payload"
    )
    made = Table(title=title, title_justify="left")
    groups = list(_alike(orders))
    for heading in ("payload", "barrier"):
        made.add_column(heading)
    for group in groups:
        made.add_column("\n".join(map(_types, group)))
    made.add_column("TCG saw")
    for idioms, every in _idioms(orders, groups):
        alike: dict[tuple[str, ...], list[str]] = {}
        for barrier, labels in zip(orders.barriers, every, strict=True):
            alike.setdefault(labels, []).append(barrier)
        for number, (labels, barriers) in enumerate(alike.items(), 1):
            name = ", ".join(idioms) if number == 1 else ""
            end = number == len(alike)
            made.add_row(name, ", ".join(barriers), *labels, _seen(orders, idioms, barriers), end_section=end)
    return made


def _idioms(orders: Orders, groups: Sequence[Sequence[OrderPair]]) -> Iterator[tuple[list[str], Labels]]:
    """The idioms, those together that came out alike everywhere, and by barrier the labels of each column."""
    found: dict[Labels, list[str]] = {}
    for idiom in orders.idioms:
        columns = [[cell(row, orders.seeds) for row in group[0].rows if row.idiom == idiom] for group in groups]
        found.setdefault(tuple(zip(*columns, strict=True)), []).append(idiom)
    for labels, idioms in found.items():
        yield idioms, labels


def notes(orders: Orders) -> Iterator[str]:
    """What must be said beside the table."""
    yield orders.note
    yield f"Profile {orders.profile}: {orders.buffers}. Doorbells are a guest's of stage 1 nGnRE, and the host's own."
    yield (
        "never: in no legal behaviour; 0.0%: legal, but this profile does not do it. TCG saw: how many accesses of how "
        "many bytes (8x8; r4: a read) reached the device, in this order. fault: one ended it; no fault: one should "
        "have, but QEMU is known to deviate."
    )
    for note in dict.fromkeys(pair.note for pair in orders.pairs.values() if pair.note):
        types = dict.fromkeys(_short(pair.payload) for pair in orders.pairs.values() if pair.note == note)
        yield f"{', '.join(types)}: {note}."
    every = [row for pair in orders.pairs.values() for row in pair.rows if not row.fault]
    if too_many := dict.fromkeys(row.idiom for row in every if row.legal is None):
        most = max(row.effects for row in every)
        said = f"Too many legal behaviours to be counted: {', '.join(too_many)}, up to {most} effects"
        yield f"{said}; what is legal of them is known all the same. Those of all others were counted, every one."


def _alike(orders: Orders) -> Iterator[list[OrderPair]]:
    """The pairs of types, those together of which every program came out alike."""
    found: dict[tuple[str, ...], list[OrderPair]] = {}
    for pair in orders.pairs.values():
        found.setdefault(tuple(cell(row, orders.seeds) for row in pair.rows), []).append(pair)
    yield from found.values()


def _types(pair: OrderPair) -> str:
    return f"{_payload(pair)} > {_short(pair.doorbell)}"


def _payload(pair: OrderPair) -> str:
    return f"{_short(pair.payload)}{' (S1 Device)' if pair.aligned else ''}"


def _short(byte: str) -> str:
    return SHORT.get(str(MemoryType.parse(byte).canonical), byte)


def cell(row: Ordering, seeds: int) -> str:
    """The three figures of a program in one line."""
    if row.fault:
        return f"faults at {row.fault.rpartition(' at ')[2]}"
    legal = "too many" if row.legal is None else compact(row.legal)
    torn = f"{row.least}" if row.least == row.most else f"{row.least}-{row.most}"
    whole, early = frequency(row.whole, seeds, row.one_tlp), frequency(row.early_runs, seeds, row.early)
    return f"{legal} / {whole} ({torn}) / {early}"


def compact(count: int) -> str:
    """A count in at most nine characters: exact below ten million."""
    return f"{count:,}" if count < 10_000_000 else f"{count:.1e}".replace("e+", "e")


def _seen(orders: Orders, idioms: Sequence[str], barriers: Sequence[str]) -> str:
    """What the device got, each with the types of the payload where it was not the same for all."""
    found: dict[str, dict[str, None]] = {}
    for pair in orders.pairs.values():
        seen = dict.fromkeys(r.seen for r in pair.rows if r.idiom in idioms and r.barrier in barriers and r.seen)
        if seen:
            found.setdefault(" | ".join(seen), {})[_payload(pair)] = None
    if len(found) < 2:
        return "".join(found) or "not run"
    return "; ".join(f"{', '.join(types)}: {seen}" for seen, types in found.items())
