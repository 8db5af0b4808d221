"""Questions 12, 13, 14: changes while the guest runs, who notices a failure, what a reset finds in flight."""

from __future__ import annotations

from ...attributes import NGNRE, NORMAL_NC
from .study import Answer, Cell, Json, Study, listed, names


def run_time(study: Study) -> Answer:
    """12. Whether a page's type can change while the guest runs, who drives it, whether the neighbours stay untouched.

    `neighbours`: every other page has the same stage 2 and user mapping as before; None where nothing can change.
    """
    text = "Can the attribute of a range change while the guest runs, and do the neighbours stay untouched?"
    change, adaptation = study.change, study.changed
    if change is None or adaptation is None:
        return Answer(12, "run-time", text, None, "the layout has no dynamic range")
    after, before, page = adaptation.decision, study.asking, change.page or 0
    touched = [
        f"{where.name} page {number}"
        for where in study.layout.covered
        for number in range(where.pages)
        if (where.name, number) != (change.range, page)
        and (after.at(where.name, number).s2, after.at(where.name, number).host)
        != (before.at(where.name, number).s2, before.at(where.name, number).host)
    ]
    possible = adaptation.driver != "nobody"
    value: Json = {
        "possible": possible,
        "driver": adaptation.driver,
        "mappings_change": adaptation.changed,
        "neighbours": not touched if possible else None,
    }
    pages = study.layout.find(change.range).pages
    cells = tuple(
        Cell(change.range, number, s1, expected, "changed", after.fwb)
        for number in (page - 1, page, page + 1)
        if 0 <= number < pages
        for s1 in (NGNRE, NORMAL_NC)
        if (expected := after.at(change.range, number).effective(s1, after.fwb)) is not None
    )
    return Answer(12, "run-time", text, value, adaptation.reason, cells)


def containment(study: Study) -> Answer:
    """13. Who notices an Unsupported Request or completion timeout that a burst or a speculative read causes.

    From PCIe (2.4.1, 2.8) and DDI 0487 B2.10: a burst is a posted write, whose failure is not told to the writer; a
    speculative read has no instruction that waits for it. Either is the host's to notice (AER, or an SError), for
    whichever guest it came from. It cannot happen where no mapping permits it: then nobody needs to notice.
    """
    fwb = study.asking.fwb
    bursts: list[str] = []
    speculation: list[str] = []
    host: list[str] = []
    for where in study.pci:
        for piece in study.asking.of(where.name):
            kinds = piece.reachable(fwb)
            if not where.wc_safe and any(kind.gathering for kind in kinds):
                bursts.append(where.name)
            if not where.speculation_safe and any(kind.speculation for kind in kinds):
                speculation.append(where.name)
            if not where.speculation_safe and piece.host is not None and piece.host.speculation:
                host.append(where.name)
    lists = {"bursts": bursts, "speculation": speculation, "host_speculation": host}
    value: dict[str, Json] = {key: [*dict.fromkeys(found)] for key, found in lists.items()}
    uncontained = bool(bursts or speculation or host)
    value["noticed_by"] = "the host" if uncontained else "nobody needs to"
    detail = (
        "by the host alone (AER or SError), no instruction of the guest waits for it: "
        f"bursts to {listed(dict.fromkeys(bursts))}; guest speculation on {listed(dict.fromkeys(speculation))}; "
        f"host speculation on {listed(dict.fromkeys(host))}"
        if uncontained
        else "no mapping permits a burst or a speculative read where the device cannot stand it"
    )
    text = "Containment: who notices an unsupported request or a timeout caused by a burst or a speculative read?"
    return Answer(13, "containment", text, value, detail)


def reset(study: Study) -> Answer:
    """14. Whether the types by themselves order a write in flight before a reset of the device.

    They do not, for any scheme whose guest can have early acknowledgement, and over PCIe for none: a memory write is
    posted, so a DSB waits for a point on the way (B2.10.2.3). Only a completion proves arrival: a read from the device,
    or the reset's own configuration write, which posted writes on its path precede. What differs is what may still be
    above the link: `buffered` ranges permit gathering, so a write may wait in the core for any finite time, until the
    unmapping's TLBI and DSB.
    """
    pieces = study.pieces(study.asking, study.pci)
    kinds = {kind for piece in pieces for kind in piece.reachable(study.asking.fwb)}
    kinds |= {piece.host for piece in pieces if piece.host is not None}
    buffered = names(
        piece
        for piece in pieces
        if any(kind.gathering for kind in piece.reachable(study.asking.fwb))
        or (piece.host is not None and piece.host.gathering)
    )
    value: Json = {
        "by_type": False,
        "early_ack": any(kind.early_ack for kind in kinds),
        "buffered": [*buffered],
    }
    detail = (
        f"writes may wait in a buffer on: {listed(buffered)}; "
        "unmapping (TLBI, DSB) empties it, a read or configuration write proves arrival"
    )
    text = "Reset and reclaim: is a write in flight ordered before the reset?"
    return Answer(14, "reset", text, value, detail)
