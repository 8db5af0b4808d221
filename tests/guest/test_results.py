"""The records of a run: what outweighs what, and the JSON document."""

from __future__ import annotations

import json
import re
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import MEMORY_TYPES
from pyvfio_user.guest.results import Battery, Matrix, Row, Verdict, worst

from .cells import BATTERY, ROW, cell, matrix


class TestWorst:
    ORDER = (Verdict.DISAGREE, Verdict.KNOWN_DEVIATION, Verdict.AGREE, Verdict.UNOBSERVABLE, Verdict.REFUSED)

    def test_nothing_observed_is_a_disagreement(self) -> None:
        assert worst([]) is Verdict.DISAGREE

    @given(st.lists(st.sampled_from(Verdict), min_size=1))
    def test_it_is_the_first_of_the_order_that_is_there(self, verdicts: list[Verdict]) -> None:
        assert worst(verdicts) is min(verdicts, key=self.ORDER.index)

    def test_every_pair(self) -> None:
        for one, other in permutations(Verdict, 2):
            assert worst([one, other]) is self.ORDER[min(self.ORDER.index(one), self.ORDER.index(other))]

    def test_a_battery_is_as_its_worst_row(self) -> None:
        bad = msgspec.structs.replace(ROW, verdict=Verdict.KNOWN_DEVIATION)
        assert Battery("k", "short", (ROW, bad)).verdict is Verdict.KNOWN_DEVIATION
        assert Battery("k", "short", ()).verdict is Verdict.DISAGREE


class TestTheDocument:
    def test_its_shape(self) -> None:
        document = json.loads(matrix().to_json())
        assert list(document) == [
            "provenance", "cells", "host", "pairs", "batteries", "scorecard", "problems", "vanished", "orders",
            "kernels", "proofs", "findings",
        ]  # fmt: skip
        assert document["cells"] == [
            {
                "lane": "el2", "cpu": "max", "fwb": 1, "scheme": "status-quo", "case": "asking", "range": "strict",
                "s1": "44", "s2": "1", "architecture": "04", "observed": "04", "verdict": "agree", "accesses": "agree",
                "battery": "b1", "full": None, "experiments": 12, "transactions": 32, "note": "",
                "orders": None, "kernel": "",
            }
        ]  # fmt: skip
        assert document["batteries"]["b1"]["rows"] == [
            {
                "op": "str-x", "expected": "works", "observed": {"EL1 cold": "works", "EL0 warm": "works"},
                "device": "8", "verdict": "agree", "reason": "",
            }
        ]  # fmt: skip

    @pytest.mark.parametrize("s1", MEMORY_TYPES, ids=str)
    @pytest.mark.parametrize("fwb", [0, 1])
    def test_bytes_are_two_digits_s2_is_one_fwb_is_a_number(self, s1: object, fwb: int) -> None:
        made = cell(s1=str(s1), s2=f"{0xD:x}", fwb=fwb, architecture=str(s1), observed=None, verdict=Verdict.REFUSED)
        (found,) = json.loads(matrix([made]).to_json())["cells"]
        for key in ("s1", "architecture"):
            assert re.fullmatch("[0-9a-f]{2}", found[key])
        assert (found["s2"], found["fwb"], found["observed"], found["verdict"]) == ("d", fwb, None, "refused")
        assert type(found["fwb"]) is int

    @pytest.mark.parametrize(("verdict", "text"), [(each, each.value) for each in Verdict])
    def test_it_can_be_read_back(self, verdict: Verdict, text: str) -> None:
        made = matrix([cell(verdict=verdict)], problems=("ä",), batteries={"b1": BATTERY})
        assert msgspec.json.decode(made.to_json(), type=Matrix) == made
        assert f'"verdict": "{text}"'.encode() in made.to_json()
        assert "ä".encode() in made.to_json()

    def test_a_verdict_that_is_none_is_refused(self) -> None:
        with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'fine'"):
            msgspec.json.decode(msgspec.json.encode(ROW).replace(b'"agree"', b'"fine"'), type=Row)
