"""The scorecard: *seen* only when all of an answer's evidence was, *contrary* when the run showed otherwise."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyvfio_user.bridge.attributes import GRE, NORMAL_NC
from pyvfio_user.bridge.schemes import SCHEMES, Host
from pyvfio_user.bridge.schemes.questions import Cell as Evidence
from pyvfio_user.bridge.schemes.questions import Study, scorecard
from pyvfio_user.guest.layout import DRIVER, LAYOUT, REQUEST
from pyvfio_user.guest.results import Cell, HostCell, Verdict
from pyvfio_user.guest.scorecard import QUESTIONS, Probe, answers, observations

from .cells import cell, host

SCHEME = "permit-wc"
STUDY = Study.of(SCHEMES[SCHEME], LAYOUT, request=REQUEST, driver=DRIVER, host=Host(fwb=True))
MODEL = {answer.key: answer for answer in scorecard(STUDY)}
KEYS = [
    "guest-types", "asks-nothing", "platform", "host-mapping", "two-ranges", "contiguous", "knowledge", "host-process",
    "other-hosts", "cacheable", "side-effects", "run-time", "containment", "reset", "aliases",
]  # fmt: skip


def observation(evidence: Evidence) -> Cell | HostCell:
    """A cell that shows what the evidence asks for."""
    common = {
        "scheme": SCHEME, "case": evidence.request, "fwb": int(evidence.fwb), "observed": str(evidence.expected),
        "range": f"{evidence.range}[{evidence.page}]",
    }  # fmt: skip
    return host(**common, type=str(evidence.expected)) if evidence.s1 is None else cell(**common, s1=str(evidence.s1))


def answered(key: str, seen: list[Cell | HostCell]) -> dict[str, Any]:
    cells = [each for each in seen if isinstance(each, Cell)]
    hosts = [each for each in seen if isinstance(each, HostCell)]
    other = cell(scheme="trap", fwb=1)  # the run had FWB
    return answers([SCHEME], [*cells, other], hosts)[SCHEME][key]  # type: ignore[no-any-return]


def test_it_has_fifteen_questions_in_their_order() -> None:
    assert list(QUESTIONS) == KEYS
    assert QUESTIONS["host-process"] == "Can a host DPDK process get write-combining from it?"
    found = answers(["trap", "status-quo"], [cell()], [])
    assert list(found) == ["trap", "status-quo"]
    assert all(list(each) == KEYS for each in found.values())
    assert [each["question"] for each in found["trap"].values()] == list(range(1, 16))


PROVABLE = [key for key in KEYS if MODEL[key].evidence]


def test_what_no_type_can_prove_has_no_evidence() -> None:
    assert [key for key in KEYS if key not in PROVABLE] == [
        "contiguous",
        "knowledge",
        "containment",
        "reset",
        "aliases",
    ]


class TestAnAnswer:
    @pytest.mark.parametrize("key", KEYS)
    def test_without_a_run_it_is_modelled(self, key: str) -> None:
        found = answered(key, [])
        assert (found["how"], found["probes"]) == ("modelled", [])
        assert not {"lane", "contrary", "modelled"} & found.keys()
        assert (found["value"], found["detail"], found["text"]) == (MODEL[key].value, MODEL[key].detail, QUESTIONS[key])

    @pytest.mark.parametrize("key", PROVABLE)
    def test_with_all_its_evidence_observed_it_is_seen(self, key: str) -> None:
        evidence = MODEL[key].evidence
        found = answered(key, [observation(each) for each in evidence])
        assert "contrary" not in found
        assert (found["how"], found["lane"], len(found["probes"])) == ("seen", "el2", len(evidence))
        assert len(found["cells"]) == len(evidence)
        assert found.get("modelled", []) == list(MODEL[key].unobservable)

    @pytest.mark.parametrize("key", PROVABLE)
    def test_with_one_piece_missing_it_is_modelled(self, key: str) -> None:
        seen = {repr(observation(each)): observation(each) for each in MODEL[key].evidence}
        found = answered(key, list(seen.values())[1:])
        assert (found["how"], found["probes"]) == ("modelled", [])
        assert "contrary" not in found and "lane" not in found

    @pytest.mark.parametrize("key", PROVABLE)
    def test_one_observation_to_the_contrary_is_shown(self, key: str) -> None:
        seen = {repr(observation(each)): observation(each) for each in MODEL[key].evidence}
        first, *others = seen.values()
        found = answered(key, [msgspec.structs.replace(first, observed="4f"), *others])
        assert found["how"] == "modelled"
        assert found["contrary"] and all(text.endswith(": 4f") for text in found["contrary"])


class TestLanes:
    """Each lane, and each kernel, answers by itself."""

    KEY = "two-ranges"
    EVIDENCE = MODEL[KEY].evidence

    def seen(self, kernel: str, *, without: int = 0) -> list[Cell | HostCell]:
        lane = {"lane": "kvm" if kernel else "el2", "kernel": kernel}
        return [msgspec.structs.replace(observation(each), **lane) for each in self.EVIDENCE[without:]]

    def test_both_have_seen_it(self) -> None:
        found = answered(self.KEY, [*self.seen(""), *self.seen("6.1.0")])
        assert (found["how"], found["lane"]) == ("seen", "el2, kvm")
        assert len(found["probes"]) == 2 * len(self.EVIDENCE)
        assert {probe.partition(" -cpu")[0] for probe in found["probes"]} == {"el2", "kvm Linux 6.1.0"}

    def test_the_probes_lead_to_their_cells(self) -> None:
        cells = self.seen("6.1.0")
        found = answered(self.KEY, cells)
        for probe, pointer in zip(found["probes"], found["cells"], strict=True):
            _, key, number = pointer.split("/")
            assert key == "cells"
            assert probe.startswith(f"{cells[int(number)].name}: ")

    def test_two_kernels_do_not_make_up_for_each_other(self) -> None:
        assert len({(each.range, each.page, each.s1) for each in self.EVIDENCE}) > 1
        one, *rest = self.seen("6.1.0")
        others = [msgspec.structs.replace(each, kernel="6.12.9") for each in rest]
        found = answered(self.KEY, [one, *others])
        assert (found["how"], found["probes"], found["cells"]) == ("modelled", [], [])

    def test_one_lane_to_the_contrary_is_enough(self) -> None:
        wrong = msgspec.structs.replace(self.seen("")[0], observed="4f")
        found = answered(self.KEY, [wrong, *self.seen("6.1.0")])
        assert (found["how"], found["probes"]) == ("modelled", [])
        assert [text.rpartition(": ")[2] for text in found["contrary"]] == ["4f"]


class TestObservations:
    EVIDENCE = Evidence("dynamic", 1, NORMAL_NC, NORMAL_NC, "changed", True)

    def probe(self, *cells: Cell, evidence: Evidence = EVIDENCE) -> tuple[str, bool] | None:
        for sources in observations(SCHEME, cells, ()).values():
            for source in sources:
                if found := source.probe(evidence, evidence.request):
                    return found.text, found.right
        return None

    def test_the_page_the_case_the_setting_and_the_type_must_be_those(self) -> None:
        right: dict[str, Any] = {
            "scheme": SCHEME, "case": "changed", "range": "dynamic[1]", "observed": "44", "architecture": "44"
        }  # fmt: skip
        text = "el2 -cpu max FWB=1 permit-wc (changed) dynamic[1] s1=44: 44"
        assert self.probe(cell(**right)) == (text, True)
        for name, value in {
            "scheme": "trap", "case": "asking", "fwb": 0, "s1": "ff", "range": "dynamic[2:16]", "lane": "model"
        }.items():  # fmt: skip
            assert self.probe(cell(**{**right, name: value})) is None
        assert self.probe(cell(**{**right, "observed": None})) is None

    def test_what_deviates_is_no_proof(self) -> None:
        seen = cell(scheme=SCHEME, case="changed", range="dynamic", observed="04", verdict=Verdict.KNOWN_DEVIATION)
        text = "el2 -cpu max FWB=1 permit-wc (changed) dynamic s1=44: 04"
        assert self.probe(seen) == (text, False)

    def test_the_right_byte_with_a_verdict_that_is_not_is_no_proof(self) -> None:
        seen = cell(scheme=SCHEME, case="changed", range="dynamic", observed="44", verdict=Verdict.DISAGREE)
        assert self.probe(seen) == ("el2 -cpu max FWB=1 permit-wc (changed) dynamic s1=44: 44", False)

    def test_the_hosts_own_mapping(self) -> None:
        evidence = Evidence("strict", 3, None, GRE, "asking", False)
        mapping = host(scheme=SCHEME, fwb=0, type="0c", observed="0c")
        (source,) = observations(SCHEME, (), [mapping])["el2"]
        text = "el2 -cpu max FWB=0 permit-wc (asking) strict host: 0c"
        assert source.probe(evidence, "asking") == Probe(text, True, "/host/0")
        (source,) = observations(SCHEME, [cell(scheme=SCHEME, fwb=0)], ())["el2"]
        assert source.probe(evidence, "asking") is None


def test_a_run_without_fwb_is_answered_for_a_host_without() -> None:
    with_fwb = answers(["cacheable-follow"], [cell(fwb=0), cell(fwb=1)], [])["cacheable-follow"]
    without = answers(["cacheable-follow"], [cell(fwb=0)], [])["cacheable-follow"]
    assert with_fwb["guest-types"]["value"]["Normal Write-Back"] is True
    assert without["guest-types"]["value"]["Normal Write-Back"] is False


def test_a_decision_that_asking_equals_is_seen_under_asking() -> None:
    """`status-quo` does the same whatever is asked, so that it was installed only once."""
    evidence = next(
        each
        for each in scorecard(Study.of(SCHEMES["status-quo"], LAYOUT, request=REQUEST, driver=DRIVER, host=Host()))
        if each.key == "asks-nothing"
    ).evidence
    cells, hosts = [], []
    for each in evidence:
        common = {"case": "asking", "range": each.range, "observed": str(each.expected), "fwb": int(each.fwb)}
        if each.s1 is None:
            hosts.append(host(**common))
        else:
            cells.append(cell(**common, s1=str(each.s1)))
    found = answers(["status-quo"], [*cells, cell(case="other")], hosts)["status-quo"]["asks-nothing"]
    assert {each.request for each in evidence} >= {"nothing"}
    assert found["how"] == "seen"
