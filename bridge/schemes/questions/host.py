"""Questions 4, 8, 11, 15: the host's user mapping, and what it does to the device and to the guest's guarantees."""

from __future__ import annotations

from ...attributes import MEMORY_TYPES, NORMAL_NC, MemoryType
from ..outputs import Piece
from .study import Answer, Json, Study, listed, names


def host_mapping(study: Study) -> Answer:
    """4. Whether the user mapping stays free of speculative reads, and faults on unaligned accesses as Device does."""
    pieces = [piece for piece in study.pieces(study.asking, study.layout.covered) if piece.host is not None]
    normal = names(piece for piece in pieces if piece.host is not None and piece.host.speculation)
    types = [kind for kind in MEMORY_TYPES if any(piece.host == kind for piece in pieces)]
    value: Json = {"no_speculation": not normal, "no_unaligned": not normal}
    detail = f"user mappings are {listed(kind.name for kind in types)}; Normal on: {listed(normal)}"
    return Answer(
        4,
        "host-mapping",
        "Does the host's user mapping stay free of speculative reads, and of unaligned tolerance?",
        value,
        detail,
        study.host_cells(study.asking, "asking", pieces),
    )


def host_process(study: Study) -> Answer:
    """8. What a host process (DPDK) gets on a write-combining-safe range: the freest user mapping there."""
    pieces = study.pieces(study.asking, study.wc_safe)
    types = {piece.host for piece in pieces if piece.host is not None}
    if any(kind.is_write_back for kind in types):
        value = "cacheable"
    elif any(kind.speculation for kind in types):
        value = "write-combining"
    elif any(kind.gathering for kind in types):
        value = "gathering, aligned only"
    else:
        value = "no"
    where = names(piece for piece in pieces if piece.host is not None and piece.host.gathering)
    detail = f"user mappings gather on: {listed(where)}"
    return Answer(
        8,
        "host-process",
        "Can a host DPDK process get write-combining from it?",
        value,
        detail,
        study.host_cells(study.asking, "asking", pieces),
    )


def side_effects(study: Study) -> Answer:
    """11. Whether a register with read side effects can be read though nobody asked (K1.2.10).

    By the host: its user mapping is Normal, and counts by its own type whatever the guest does. By the guest: stage 2
    lets it map the register Normal; then it is the guest's own doing, but the device's loss.
    """
    ranges = [where for where in study.layout.ranges if where.read_side_effects]
    if not ranges:
        return Answer(11, "side-effects", _Q11, None, "the layout has no range with read side effects")
    pieces = study.pieces(study.asking, ranges)
    by_host = names(piece for piece in pieces if piece.host is not None and piece.host.speculation)
    by_guest = names(piece for piece in pieces if any(kind.speculation for kind in piece.reachable(study.asking.fwb)))
    value: Json = {"by_host": bool(by_host), "by_guest": bool(by_guest)}
    detail = f"the host may speculate on: {listed(by_host)}; a guest that maps it Normal on: {listed(by_guest)}"
    cells = study.cells(study.asking, "asking", pieces, (NORMAL_NC,)) + study.host_cells(study.asking, "asking", pieces)
    return Answer(11, "side-effects", _Q11, value, detail, cells)


_Q11 = "Is a register with read side effects ever read without the guest asking?"


def loss(host: MemoryType, guest: MemoryType) -> str:
    """What two aliases of one page lose by their types (B2.11): "nothing", "device guarantees" or "coherency"."""
    if host == guest:
        return "nothing"
    cached = [not kind.is_device and not kind.is_non_cacheable for kind in (host, guest)]
    if any(cached):
        # Write-Back and Tagged Write-Back agree in all that matters here: type, cacheability, shareability.
        return "nothing" if host.is_write_back and guest.is_write_back else "coherency"
    return "device guarantees"


def aliases(study: Study) -> Answer:
    """15. What host and guest lose when their types for one page differ, at worst over the types a guest can have.

    "device guarantees": the bans on speculation, gathering and reordering, and same-location order without a DMB.
    "coherency": that, and a cacheable alias may hold stale data. `avoidable`: some type the guest can have loses
    nothing, on every page.
    """
    losses = ("nothing", "device guarantees", "coherency")
    worst = 0
    where: list[Piece] = []
    avoidable = True
    for piece in study.pieces(study.asking, study.layout.covered):
        kinds = list(piece.reachable(study.asking.fwb))
        if piece.host is None or not kinds:
            continue
        found = [losses.index(loss(piece.host, kind)) for kind in kinds]
        worst = max(worst, *found)
        avoidable = avoidable and min(found) == 0
        if max(found):
            where.append(piece)
    value: Json = {"loses": losses[worst], "avoidable": avoidable}
    detail = (
        f"at worst {losses[worst]} on {listed(names(where), 'no range')}; "
        f"a guest {'can' if avoidable else 'cannot'} match the host's type everywhere"
    )
    return Answer(
        15, "aliases", "Mismatched aliases: what do host and guest lose when their types differ?", value, detail
    )
