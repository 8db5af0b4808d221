"""Questions 1, 5, 9, 10: what a guest can have, where, and on which hosts."""

from __future__ import annotations

from dataclasses import replace

from ...attributes import GRE, MEMORY_TYPES, NGNRE, NGNRNE, NGRE, NORMAL_NC, NORMAL_WB, TAGGED_WB
from ..base import settled
from ..inputs import Ask, Host, Request
from ..outputs import Decision
from .study import Answer, Json, Study, listed, names, reachable

_SIX = (NGNRNE, NGNRE, NGRE, GRE, NORMAL_NC, NORMAL_WB)


def guest_types(study: Study) -> Answer:
    """1. Which of six types a guest can have on some write-combining-safe range."""
    pieces = study.pieces(study.asking, study.wc_safe)
    found = reachable(pieces, study.asking.fwb)
    value: dict[str, Json] = {kind.name: kind in found for kind in _SIX}
    where = {kind: names(piece for piece in pieces if kind in piece.reachable(study.asking.fwb)) for kind in found}
    detail = "; ".join(f"{kind.name} on {listed(where[kind])}" for kind in found) or "nothing is mapped"
    return Answer(
        1,
        "guest-types",
        "Can the guest have each type on a write-combining-safe range?",
        value,
        detail,
        study.cells(study.asking, "asking", pieces, MEMORY_TYPES[:7]),
    )


def two_ranges(study: Study) -> Answer:
    """5. Whether one BAR can be write-combining here and Device there, and what the distinction is made by.

    `guest`: by the guest's own stage 1, page by page. `bound`: the smallest unit by which the hypervisor's bound on the
    guest differs: a page, if a run-time change moves one page alone; a memslot or a range, if ranges of a BAR differ.
    """
    fwb = study.asking.fwb
    by_guest: list[str] = []
    bound = "none"
    bar_bounds = set()
    for bar in study.layout.bars:
        pieces = study.pieces(study.asking, study.layout.in_bar(bar.index))
        types = [set(piece.reachable(fwb)) for piece in pieces]
        combining = [any(kind.gathering and kind.speculation for kind in kinds) for kinds in types]
        device = [any(not kind.gathering for kind in kinds) for kinds in types]
        both = any(c and any(d for j, d in enumerate(device) if j != i) for i, c in enumerate(combining))
        both = both or any(p.pages > 1 and c and d for p, c, d in zip(pieces, combining, device, strict=True))
        if both:
            by_guest.append(f"BAR {bar.index}")
        bounds = {piece.s2 for piece in pieces}
        bar_bounds.add(frozenset(bounds))
        if len(bounds) > 1:
            slots = next(mapping.memslots for mapping in study.asking.bars if mapping.bar == bar.index)
            bound = "memslot" if slots > 1 else "range"
    if bound == "none" and len(bar_bounds) > 1:
        bound = "BAR"
    if study.change is not None and study.changed is not None:
        moved = _moved(study, study.changed.decision)
        if moved == [(study.change.range, study.change.page)]:
            bound = "page"
    value: Json = {"wc_and_device": bool(by_guest), "bound": bound}
    detail = (
        f"write-combining and Device within {listed(by_guest, 'no BAR')}; the hypervisor's bound differs by {bound}"
    )
    cells = study.cells(study.asking, "asking", study.pieces(study.asking, study.pci), (NGNRE, NORMAL_NC))
    return Answer(5, "two-ranges", "Can two ranges of one BAR differ, and by which granularity?", value, detail, cells)


def _moved(study: Study, after: Decision) -> list[tuple[str, int | None]]:
    """Pages whose stage-2 bound a run-time change moved."""
    return [
        (where.name, page)
        for where in study.layout.covered
        for page in range(where.pages)
        if after.at(where.name, page).s2 != study.asking.at(where.name, page).s2
    ]


def other_hosts(study: Study) -> Answer:
    """9. Whether write-combining-safe ranges give the guest the same types on a 32-bit host, and without FWB.

    Judged against a 64-bit host with FWB and DIC; a scheme that gives nothing there has nothing to lose. Write-Back
    without FWB is taken for what it is, not for what the guest wished.
    """
    best = Host()
    value: dict[str, Json] = {}
    notes: list[str] = []
    for key, words, host in (
        ("bits32", "32-bit host", Host(bits=32, fwb=False)),
        ("no_fwb", "no FWB", Host(fwb=False)),
    ):
        full = study.on(best)
        other = study.on(host)
        lost = [
            where.name
            for where in study.wc_safe
            if reachable(study.pieces(full, [where]), True) != reachable(study.pieces(other, [where]), host.fwb)
        ]
        refused = names(piece for piece in other.pieces if piece.refusal is not None)
        value[key] = not lost
        if refused:
            notes.append(f"{words}: memslot refused over {listed(refused)}")
        else:
            notes.append(f"{words}: " + (f"differs on {listed(lost)}" if lost else "the same"))
    pieces = study.pieces(study.asking, study.wc_safe)
    cells = study.cells(study.asking, "asking", pieces, MEMORY_TYPES[:7])
    without = study.on(Host(fwb=False))
    cells += study.cells(without, "asking", study.pieces(without, study.wc_safe), MEMORY_TYPES[:7])
    text = "Does it work on a 32-bit host, and without FWB?"
    return Answer(9, "other-hosts", text, value, "; ".join(notes), cells, unobservable=("bits32",))


def cacheable(study: Study) -> Answer:
    """10. Whether a range can be cacheable for the guest: by its choice, forced on it, or not at all.

    The VMM asks for cacheable mappings of the write-combining-safe ranges, and the driver says that their BARs are
    memory, so that a scheme that can do it does.
    """
    bars = frozenset(where.bar for where in study.wc_safe if where.bar is not None)
    asks = {**study.request.asks, **{where.name: Ask(cacheable=True) for where in study.wc_safe}}
    situation = replace(
        study.situation, request=Request(asks), driver=replace(study.driver, cacheable_bars=bars), host=Host()
    )
    pieces = study.pieces(settled(study.scheme, situation), study.wc_safe)
    results = [{piece.effective(s1, True) for s1 in MEMORY_TYPES} for piece in pieces]
    forced = [kinds <= {NORMAL_WB, TAGGED_WB} for kinds in results]
    value: str
    if results and any(forced):
        value = "forced"
    elif any(NORMAL_WB in kinds for kinds in results):
        value = "guest's choice"
    else:
        value = "no"
    detail = {
        "forced": "FWB makes it Write-Back whatever the guest asks; without FWB and DIC the memslot is refused",
        "guest's choice": "the guest's stage 1 decides",
        "no": "stage 2 has no cacheable type",
    }[value]
    cells = study.cells(study.asking, "asking", study.pieces(study.asking, study.wc_safe), (NORMAL_WB,))
    seen = value == "no" or any(cell.expected == NORMAL_WB for cell in cells)
    return Answer(10, "cacheable", "Can it give a cacheable mapping?", value, detail, cells if seen else ())
