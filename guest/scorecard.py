"""The scorecard of a run: the thread's questions, answered by the rules, and called *seen* where the run proved it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Probe:
    """One observation: its name and what was seen, whether that is what was looked for, and where the cell is.

    ``cell`` is a JSON pointer (RFC 6901) into the run's document.
    """

    text: str
    right: bool
    cell: str


class Observations:
    """Finds what one source observed of one scheme at a page of a range: lane el2, or lane kvm with one kernel."""

    def __init__(self, cells: Iterable[tuple[str, Cell]], host: Iterable[tuple[str, HostCell]]) -> None:
        """Take the source's cells of the scheme, each with its pointer."""
        self._guest: dict[tuple[str, int, str], dict[str, tuple[str, Cell]]] = {}
        self._host: dict[tuple[str, int], dict[str, tuple[str, HostCell]]] = {}
        for pointer, cell in cells:
            key = (cell.case, cell.fwb, cell.s1)
            self._guest.setdefault(key, {}).setdefault(cell.range, (pointer, cell))
        for pointer, mapping in host:
            self._host.setdefault((mapping.case, mapping.fwb), {}).setdefault(mapping.range, (pointer, mapping))

    def probe(self, evidence: Evidence, case: str) -> Probe | None:
        """What was observed where ``evidence`` says; None if nothing was."""
        fwb = int(evidence.fwb)
        found: tuple[str, Cell] | tuple[str, HostCell] | None
        if evidence.s1 is None:
            found = _at(self._host.get((case, fwb), {}), evidence)
        else:
            found = _at(self._guest.get((case, fwb, str(evidence.s1)), {}), evidence)
        if found is None or found[1].observed is None:
            return None
        pointer, cell = found
        right = cell.observed == str(evidence.expected) and cell.verdict is Verdict.AGREE
        return Probe(f"{cell.name}: {cell.observed}", right, pointer)


def _at(cells: dict[str, Any], evidence: Evidence) -> Any:
    name = part_holding(list(cells), evidence.range, evidence.page)
    return None if name is None else cells[name]


def observations(scheme: str, cells: Sequence[Cell], host: Sequence[HostCell]) -> dict[str, list[Observations]]:
    """What was observed of a scheme, by lane: el2 is one source, in kvm each kernel is one."""
    guests: dict[tuple[str, str], list[tuple[str, Cell]]] = {}
    hosts: dict[tuple[str, str], list[tuple[str, HostCell]]] = {}
    for number, cell in enumerate(cells):
        if cell.scheme == scheme and cell.lane != "model":
            guests.setdefault((cell.lane, cell.kernel), []).append((f"/cells/{number}", cell))
    for number, mapping in enumerate(host):
        if mapping.scheme == scheme and mapping.lane != "model":
            hosts.setdefault((mapping.lane, mapping.kernel), []).append((f"/host/{number}", mapping))
    lanes: dict[str, list[Observations]] = {}
    for lane, kernel in dict.fromkeys([*guests, *hosts]):
        source = Observations(guests.get((lane, kernel), ()), hosts.get((lane, kernel), ()))
        lanes.setdefault(lane, []).append(source)
    return lanes


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
        seen = observations(name, cells, host)
        card[name] = {answer.key: _answer(answer, study, seen) for answer in scorecard(study)}
    return card


def _answer(answer: Answer, study: Study, lanes: Mapping[str, Sequence[Observations]]) -> dict[str, Any]:
    """One answer. A lane has *seen* it when one source there saw all of its evidence, and none saw any otherwise.

    ``probes`` are what all lanes that saw it observed, ``cells`` where; ``contrary`` is what was seen otherwise.
    """
    seen: dict[str, list[Probe]] = {}
    contrary: list[Probe] = []
    for lane, sources in lanes.items():
        for source in sources:
            probes = [found for each in answer.evidence if (found := _probe(each, study, source))]
            wrong = [probe for probe in probes if not probe.right]
            contrary += wrong
            if probes and not wrong and len(probes) == len(answer.evidence):
                seen.setdefault(lane, []).extend(probes)
    if contrary:
        seen = {}
    behind = [probe for probes in seen.values() for probe in probes]
    return {
        "question": answer.question,
        "text": answer.text,
        "value": answer.value,
        "detail": answer.detail,
        "how": "seen" if seen else "modelled",
        "probes": [probe.text for probe in behind],
        "cells": [probe.cell for probe in behind],
        **({"lane": ", ".join(seen)} if seen else {}),
        **({"contrary": [probe.text for probe in contrary]} if contrary else {}),
        **({"modelled": list(answer.unobservable)} if seen and answer.unobservable else {}),
    }


def _probe(evidence: Evidence, study: Study, source: Observations) -> Probe | None:
    return next((p for case in _cases(study, evidence.request) if (p := source.probe(evidence, case))), None)
