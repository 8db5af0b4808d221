"""Batteries become experiments: every operation in every mode, and no two that could be mistaken for each other."""

from __future__ import annotations

import pytest

from pyvfio_user.guest.battery import FULL, INDEX, named
from pyvfio_user.guest.lanes.places import PLACES, Place
from pyvfio_user.guest.lanes.trials import GUEST_MODES, HOST_MODES, Trial, schedule
from pyvfio_user.guest.operation import PAGE, SLOT, Kind
from pyvfio_user.guest.plan import Experiment, RunFlag

FEATURES = frozenset({"lse", "lse2"})
RECORDED = [place for place in PLACES.values() if not place.platform]


def flat(place: Place, beyond: str | None = None) -> list[Trial]:
    return [trial for batch in schedule(place, beyond, FULL, GUEST_MODES, FEATURES) for trial in batch]


@pytest.mark.parametrize("place", RECORDED, ids=lambda place: place.name)
def test_every_operation_runs_in_every_mode(place: Place) -> None:
    wanted = {
        (op.name, el, warm)
        for op in FULL
        for el, warm in GUEST_MODES
        if op.kind is not Kind.TRANSLATE and op.feature in (None, "lse") and el in op.levels
    }
    assert {(trial.op.name, trial.el, trial.warm) for trial in flat(place)} == wanted


@pytest.mark.parametrize("place", RECORDED, ids=lambda place: place.name)
def test_trials_stay_in_the_arena(place: Place) -> None:
    for trial in flat(place):
        end = trial.offset + trial.op.span
        assert place.arena_offset <= trial.offset < end <= place.arena_offset + place.arena_size, trial.row


@pytest.mark.parametrize("place", RECORDED, ids=lambda place: place.name)
def test_between_two_marks_no_slot_is_used_twice(place: Place) -> None:
    for batch in schedule(place, "next", FULL, GUEST_MODES, FEATURES):
        used: set[int] = set()
        assert batch[0].marked
        for trial in batch:
            if trial.marked:
                used.clear()
            slots = {trial.offset, trial.offset + trial.op.span - SLOT}
            assert not slots & used, trial.row
            used |= slots


def test_a_mapped_ranges_batch_uses_no_slot_twice() -> None:
    batches = schedule(PLACES["wc-mapped"], "wc-trapped", FULL, GUEST_MODES, FEATURES)
    assert len(batches) > 1
    for batch in batches:
        starts = [trial.offset for trial in batch]
        assert len(set(starts)) == len(starts)


def test_crossing_operations_end_in_the_next_page_and_in_the_next_range() -> None:
    place = PLACES["wc-trapped"]
    crossing = [trial for trial in flat(place, "strict") if trial.op.crossing]
    assert {trial.beyond for trial in crossing} == {None, "strict"}
    for trial in crossing:
        assert trial.offset % PAGE == PAGE - SLOT
        assert (trial.offset + SLOT == place.end) == (trial.beyond == "strict")
    assert {trial.row for trial in crossing if trial.op.name == "str-x/page"} == {
        "str-x/page",
        "str-x/page into strict",
    }


def test_an_operation_without_its_feature_is_left_out() -> None:
    ran = schedule(PLACES["strict"], None, named("ldadd-x", "str-x"), HOST_MODES, frozenset())
    assert [(trial.op.name, trial.mode) for batch in ran for trial in batch] == [
        ("str-x", "EL2 cold"),
        ("str-x", "EL2 warm"),
    ]


def test_a_program_runs_in_the_first_mode_alone() -> None:
    ran = schedule(PLACES["strict"], None, named("str-w-dmb-doorbell", "payload-dmb-doorbell"), HOST_MODES, FEATURES)
    assert [(trial.op.name, trial.mode, trial.marked) for batch in ran for trial in batch] == [
        ("str-w-dmb-doorbell", "EL2 cold", True),
        ("payload-dmb-doorbell", "EL2 cold", True),
        ("payload-dmb-doorbell", "EL2 warm", True),
    ]


def test_an_order_says_all_that_the_guest_must_know() -> None:
    (store,) = named("payload-dsb-doorbell")
    trial = Trial(store, 0, True, 0x20000, marked=False)
    order = trial.experiment(PLACES["wc-trapped"], 4, 77)
    flags = RunFlag.WARM | RunFlag.UNMARKED
    assert order == Experiment(77, INDEX[store.name], 0, 4, 2, 0x20000, flags, bar2=0, s1_2=1, offset2=0x4000)
