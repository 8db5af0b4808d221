"""The scorecard of a run: the thread's questions, answered by the rules, and called *seen* where the run proved it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..bridge.schemes import SCHEMES, Host
from ..bridge.schemes.questions import Answer, Study, scorecard
from ..bridge.schemes.questions import Cell as Evidence
from .layout import DRIVER, LAYOUT, REQUEST, part_holding
from .results import Cell, HostCell, Verdict

QUESTIONS = {
    answer.key: answer.text
    for answer in scorecard(Study.of(SCHEMES["status-quo"], LAYOUT, request=REQUEST, driver=DRIVER))
}
"""The questions in the scorecard's order: key and text."""


class Observations:
    """Finds what was observed of one scheme at a page of a range."""

    def __init__(self, scheme: str, cells: Iterable[Cell], host: Iterable[HostCell]) -> None:
        self._guest: dict[tuple[str, int, str], dict[str, Cell]] = {}
        self._host: dict[tuple[str, int], dict[str, HostCell]] = {}
        for cell in cells:
            if cell.scheme == scheme and cell.lane != "model":
                self._guest.setdefault((cell.case, cell.fwb, cell.s1), {}).setdefault(cell.range, cell)
        for mapping in host:
            if mapping.scheme == scheme and mapping.lane != "model":
                self._host.setdefault((mapping.case, mapping.fwb), {}).setdefault(mapping.range, mapping)

    def probe(self, evidence: Evidence, case: str) -> tuple[str, bool] | None:
        """What was observed where ``evidence`` says, and whether it was what it expects; None if nothing was."""
        found: Cell | HostCell | None
        fwb = int(evidence.fwb)
        if evidence.s1 is None:
            found = _at(self._host.get((case, fwb), {}), evidence)
            kind = "host"
        else:
            found = _at(self._guest.get((case, fwb, str(evidence.s1)), {}), evidence)
            kind = f"s1={evidence.s1}"
        if found is None or found.observed is None:
            return None
        where = f"{found.lane} -cpu {found.cpu} FWB={found.fwb} {found.scheme} ({found.case}) {found.range}"
        right = found.observed == str(evidence.expected) and found.verdict is Verdict.AGREE
        return f"{where} {kind}: {found.observed}", right


def _at(cells: dict[str, Any], evidence: Evidence) -> Any:
    name = part_holding(list(cells), evidence.range, evidence.page)
    return None if name is None else cells[name]


def _cases(study: Study, request: str) -> tuple[str, ...]:
    """Under which cases a decision was installed: one that equals the asking VMM's was not installed again."""
    if request == "nothing" and study.nothing.pieces == study.asking.pieces:
        return ("nothing", "asking")
    if request == "changed" and (study.changed is None or not study.changed.changed):
        return ("changed", "asking")
    return (request,)


def answers(schemes: Sequence[str], cells: Sequence[Cell], host: Sequence[HostCell]) -> dict[str, dict[str, Any]]:
    """Answer every question for each scheme, for a 64-bit host with FWB if the run had it, else without."""
    settings = {cell.fwb for cell in cells}
    fwb = bool(max(settings, default=1))
    card: dict[str, dict[str, Any]] = {}
    for name in schemes:
        study = Study.of(SCHEMES[name], LAYOUT, request=REQUEST, driver=DRIVER, host=Host(fwb=fwb))
        seen = Observations(name, cells, host)
        card[name] = {answer.key: _answer(answer, study, seen) for answer in scorecard(study)}
    return card


def _answer(answer: Answer, study: Study, observations: Observations) -> dict[str, Any]:
    """One answer. It is *seen* when all of its evidence was; ``contrary`` is what was seen otherwise."""
    probes: list[str] = []
    contrary: list[str] = []
    for evidence in answer.evidence:
        found = next((p for case in _cases(study, evidence.request) if (p := observations.probe(evidence, case))), None)
        if found is not None:
            (probes if found[1] else contrary).append(found[0])
    seen = bool(answer.evidence) and len(probes) == len(answer.evidence)
    return {
        "question": answer.question,
        "text": answer.text,
        "value": answer.value,
        "detail": answer.detail,
        "how": "seen" if seen else "modelled",
        "probes": probes if seen else [],
        **({"lane": probes[0].partition(" ")[0]} if seen else {}),
        **({"contrary": contrary} if contrary else {}),
        **({"modelled": list(answer.unobservable)} if seen and answer.unobservable else {}),
    }
