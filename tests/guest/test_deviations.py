"""The committed list of QEMU's departures is exactly the 14 cells of the published comparison, and no more."""

from __future__ import annotations

import csv
from pathlib import Path

from pyvfio_user.bridge.attributes import Effect, Kind, Outcome
from pyvfio_user.guest.deviations import ACCESSES, ATTRIBUTES, Trial

CSV = Path(__file__).parents[1] / "data" / "s1_s2_combination.csv"


def test_the_attribute_deviations_are_the_cells_where_the_columns_differ() -> None:
    with CSV.open(newline="", encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    differing = {(int(r["fwb"]), r["s1"], r["s2"]): r["qemu_11_1"] for r in rows if r["arm"] != r["qemu_11_1"]}
    assert len(rows) == 160
    assert len(differing) == 14
    assert {key: value for key, (value, _) in ATTRIBUTES.items()} == differing


def test_every_deviation_has_its_reason() -> None:
    assert all(why for _, why in ATTRIBUTES.values())
    assert all(each.reason for each in ACCESSES)


def applying(kind: Kind, *, warm: bool, s1_device: bool, s2_device: bool | None, vector: bool = False) -> str | None:
    trial = Trial(kind, vector, warm, s1_device, s2_device)
    return next((each.name for each in ACCESSES if each.applies(trial)), None)


def test_a_cold_unaligned_access_has_no_deviation() -> None:
    for s1_device in (True, False):
        for s2_device in (True, False, None):
            assert applying(Kind.PLAIN, warm=False, s1_device=s1_device, s2_device=s2_device) is None


def test_warm_deviations_are_of_the_two_classes_where_the_stages_differ() -> None:
    assert applying(Kind.PLAIN, warm=True, s1_device=True, s2_device=False) == "warm-device-over-normal"
    assert applying(Kind.PLAIN, warm=True, s1_device=False, s2_device=True) == "warm-normal-over-device"
    assert applying(Kind.PLAIN, warm=True, s1_device=True, s2_device=True) is None
    assert applying(Kind.PLAIN, warm=True, s1_device=True, s2_device=None) is None


def test_dc_zva_is_a_deviation_cold_and_warm() -> None:
    for warm in (False, True):
        assert applying(Kind.DC_ZVA, warm=warm, s1_device=True, s2_device=True) == "dc-zva-on-device"


def test_a_deviation_is_shown_only_by_what_it_predicts() -> None:
    by_name = {each.name: each for each in ACCESSES}
    works = Outcome(Effect.WORKS)
    el1 = Outcome(Effect.FAULT, 1, 0x96000061, 0xFFFFFFFF)
    el2 = Outcome(Effect.FAULT, 2, 0x92000061, 0xFFFFFFFF)
    translation = Outcome(Effect.FAULT, 1, 0x96000007, 0xFFFFFFFF)
    assert by_name["warm-device-over-normal"].shown_by(works)
    assert not by_name["warm-device-over-normal"].shown_by(el1)
    assert by_name["warm-normal-over-device"].shown_by(el1)
    assert not by_name["warm-normal-over-device"].shown_by(el2)
    assert not by_name["warm-normal-over-device"].shown_by(translation)


def test_vector_elements_are_a_deviation_cold_and_warm() -> None:
    for warm in (False, True):
        found = applying(Kind.PLAIN, vector=True, warm=warm, s1_device=True, s2_device=False)
        assert found == "vector-elements-on-device"
