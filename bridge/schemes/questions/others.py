"""Questions 2, 3, 6, 7: what it does to everyone else, what it costs, who must know the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...attributes import NORMAL_NC, PAGE
from ..base import settled
from ..inputs import Driver, Range, Request
from ..outputs import Decision
from .study import Answer, Json, Study, listed


def _differs(one: Decision, other: Decision, ranges: Iterable[Range], side: str) -> list[str]:
    """Ranges with a page whose `side`, "s2" or "host", is not the same in both."""
    return [
        where.name
        for where in ranges
        if any(
            getattr(one.at(where.name, page), side) != getattr(other.at(where.name, page), side)
            for page in range(where.pages)
        )
    ]


def asks_nothing(study: Study) -> Answer:
    """2. Whether a VMM that asks for nothing keeps what the old rule gave it, for its guest and for itself."""
    guest = _differs(study.nothing, study.before, study.pci, "s2")
    host = _differs(study.nothing, study.before, study.pci, "host")
    value: Json = {"guest": not guest, "host": not host}
    detail = f"the guest's bound changes on: {listed(guest)}; the user mapping on: {listed(host)}"
    pieces = study.pieces(study.nothing, study.pci)
    cells = study.cells(study.nothing, "nothing", pieces, (NORMAL_NC,)) + study.host_cells(
        study.nothing, "nothing", pieces
    )
    return Answer(2, "asks-nothing", "Is a VMM that asks for nothing unaffected?", value, detail, cells)


def platform(study: Study) -> Answer:
    """3. Whether platform devices keep what the old rule gave them; None where the layout has none.

    What the guest's Normal-NC comes to tells each bound from the others, as in question 2.
    """
    if not study.platform:
        return Answer(3, "platform", "Is a platform device unaffected?", None, "the layout has no platform range")
    guest = _differs(study.asking, study.before, study.platform, "s2")
    host = _differs(study.asking, study.before, study.platform, "host")
    value: Json = {"guest": not guest, "host": not host}
    detail = f"the guest's bound changes on: {listed(guest)}; the user mapping on: {listed(host)}"
    pieces = study.pieces(study.asking, study.platform)
    cells = study.cells(study.asking, "asking", pieces, (NORMAL_NC,)) + study.host_cells(study.asking, "asking", pieces)
    return Answer(3, "platform", "Is a platform device unaffected?", value, detail, cells)


def contiguous(study: Study) -> Answer:
    """6. Whether every BAR is whole in the guest's physical address space, and what mapping it took.

    Run nowhere: the mappings are counted by rule (device VMAs never merge), so there is nothing to observe.
    """
    value: dict[str, Json] = {}
    notes: list[str] = []
    for bar in study.layout.bars:
        pieces = study.pieces(study.asking, study.layout.in_bar(bar.index))
        whole = sum(piece.pages for piece in pieces if piece.s2 is not None) * PAGE == bar.size
        cost = next(mapping for mapping in study.asking.bars if mapping.bar == bar.index)
        value[f"bar{bar.index}"] = {
            "contiguous": whole,
            "mmaps": cost.mmaps,
            "vmas": cost.vmas,
            "memslots": cost.memslots,
        }
        state = "contiguous" if whole else "not mapped, its memslot is refused"
        notes.append(f"BAR {bar.index}: {state}, mmap calls {cost.mmaps}, VMAs {cost.vmas}, memslots {cost.memslots}")
    return Answer(6, "contiguous", "Does the guest still see one contiguous BAR?", value, "; ".join(notes))


def knowledge(study: Study) -> Answer:
    """7. Whether the VMM must know the device, whether VFIO can veto, whether the MSI-X page is ever write-combining.

    `vmm_must_know`: a guest gets write-combining from a VMM that asks, and none from one that does not; None where it
    gets none at all. `vfio_can_veto`: a driver that knows what is unsafe leaves a greedy VMM less than one that
    believes all of it safe. `msix_wc`: a greedy VMM and guest get the MSI-X table's pages write-combining, if the VMM
    leaves them in a memslot (VFIO lets it map them; QEMU traps them).
    """

    def combines(decision: Decision, where: Range) -> bool:
        return any(kind.gathering for piece in decision.of(where.name) for kind in piece.reachable(decision.fwb))

    asked = any(combines(study.asking, where) for where in study.wc_safe)
    unasked = any(combines(study.nothing, where) for where in study.wc_safe)
    trusting = replace(
        study.layout,
        ranges=tuple(
            replace(
                where, wc_safe=where.bar is not None, speculation_safe=True, read_side_effects=False, msix_table=False
            )
            for where in study.layout.ranges
        ),
    )
    cacheable = study.driver.cacheable_bars
    careful = replace(
        study.situation,
        request=Request.greedy(study.layout),
        driver=Driver.knowing(study.layout, cacheable_bars=cacheable),
    )
    credulous = replace(careful, layout=trusting, driver=Driver.knowing(trusting, cacheable_bars=cacheable))
    with_veto = settled(study.scheme, careful, greedy=True)
    without = settled(study.scheme, credulous, greedy=True)
    vetoed = _differs(with_veto, without, [w for w in study.pci if w in study.layout.ranges], "s2")
    msix = [where for where in study.layout.ranges if where.msix_table]
    msix_wc = any(combines(study.greedy, where) for where in msix)
    value: Json = {
        "vmm_must_know": not unasked if asked else None,
        "vfio_can_veto": bool(vetoed),
        "msix_wc": msix_wc if msix else None,
    }
    detail = (
        f"without asking, write-combining is {'had' if unasked else 'not had'}; VFIO narrows: {listed(vetoed)}; "
        f"MSI-X page {'can be' if msix_wc else 'is never'} write-combining"
    )
    return Answer(
        7, "knowledge", "Must the VMM know the device, can VFIO veto, is MSI-X ever write-combining?", value, detail
    )
