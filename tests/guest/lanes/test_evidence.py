"""Whose transactions are whose: the log is cut at marks and slots, and nothing in it is lost or counted twice."""

from __future__ import annotations

from itertools import pairwise

from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.devices.probe_map import RANGES, Reg
from pyvfio_user.guest.battery import BATTERY, INDEX
from pyvfio_user.guest.lanes.evidence import Memory, attribute, background, final_bytes, split
from pyvfio_user.guest.lanes.places import PLACES
from pyvfio_user.guest.lanes.trials import Trial
from pyvfio_user.guest.operation import SLOT

PLACE = PLACES["wc-trapped"]
BASE = PLACE.offset


def trial(name: str, slot: int, *, marked: bool) -> Trial:
    return Trial(BATTERY[INDEX[name]], 1, False, BASE + slot * SLOT, marked=marked)


def mark(value: int) -> Transaction:
    return Transaction(0, True, 0, Reg.MARK, 4, value.to_bytes(4, "little"))


def write(slot: int, at: int = 0, data: bytes = b"\x01", *, region: int = 2) -> Transaction:
    return Transaction(0, True, region, BASE + slot * SLOT + at, len(data), data)


def test_what_follows_a_mark_is_the_marked_trials() -> None:
    trials = [(trial("str-b", 1, marked=True), 7), (trial("str-b", 1, marked=True), 8)]
    logs, problems = attribute([mark(7), write(1), mark(8), write(1, 1)], trials, PLACE)
    assert logs == [[write(1)], [write(1, 1)]]
    assert problems == []


def test_unmarked_trials_are_told_apart_by_their_slots_in_order() -> None:
    trials = [(trial("str-b", n, marked=n == 1), 7 + n) for n in (1, 2, 3)]
    logs, problems = attribute([mark(8), write(1), write(3)], trials, PLACE)
    assert logs == [[write(1)], [], [write(3)]]
    assert problems == []


def test_what_comes_late_stays_with_the_trial_at_hand() -> None:
    trials = [(trial("str-b", n, marked=n == 1), 7 + n) for n in (1, 2)]
    logs, _ = attribute([mark(8), write(2), write(1)], trials, PLACE)
    assert logs == [[], [write(2), write(1)]]


def test_an_access_to_another_bar_stays_with_the_trial_at_hand() -> None:
    trials = [(trial("str-b", n, marked=n == 1), 7 + n) for n in (1, 2)]
    stray = write(2, region=0)
    logs, _ = attribute([mark(8), stray], trials, PLACE)
    assert logs == [[stray], []]
    here, rings = split(logs[0], PLACE, BASE + SLOT)
    assert rings == []
    assert here[0].offset < -SLOT


def test_a_missing_a_repeated_and_a_foreign_mark_are_named() -> None:
    trials = [(trial("str-b", 1, marked=True), 7), (trial("str-b", 2, marked=True), 8)]
    _, problems = attribute([mark(7), mark(7), mark(99)], trials, PLACE)
    assert problems == [
        "mark 7 must come once, in order",
        "mark 99 must come once, in order",
        "the device must see mark 8 of str-b",
    ]


def test_nothing_may_precede_the_first_mark() -> None:
    _, problems = attribute([write(1), mark(7)], [(trial("str-b", 1, marked=True), 7)], PLACE)
    assert problems == [f"no access may precede the first mark, as {write(1)} does"]


def test_the_doorbell_is_told_from_the_range() -> None:
    ring = Transaction(0, True, 0, Reg.DOORBELL, 4, b"\1\2\3\4")
    here, rings = split([write(0, 8), ring], PLACE, BASE)
    assert [(each.write, each.offset, each.size, each.data) for each in here] == [(True, 8, 1, b"\x01")]
    assert rings == [ring]


def test_the_background_has_no_zero_and_no_two_pages_alike() -> None:
    data = background(2, 16 * 4096)
    assert 0 not in data
    assert len({data[at : at + 4096] for at in range(0, len(data), 4096)}) == 16
    assert all(one != other for one, other in pairwise(data))


def test_memory_follows_the_recorded_writes() -> None:
    memory = Memory()
    memory.apply([write(0, 4, b"abcd"), Transaction(0, False, 2, BASE, 4, b"zzzz")])
    assert memory.span(PLACE, BASE + 4, 4) == b"abcd"
    assert memory.span(PLACES["platform"], PLACES["platform"].offset, 4) == bytes(4)


def test_the_final_bytes_of_a_mapped_range_come_from_the_window_and_beyond_it_from_the_log() -> None:
    memory, mapped = Memory(), PLACES["wc-mapped"]
    window = bytearray(memory.window)
    window[-2:] = b"\xaa\xbb"
    slot = RANGES["wc-mapped"].size - SLOT
    beyond = Transaction(0, True, 2, RANGES["wc-mapped"].size, 2, b"\xcc\xdd")
    after = final_bytes(memory, mapped, slot, 2 * SLOT, bytes(window), [beyond])
    assert after[SLOT - 2 : SLOT + 2] == b"\xaa\xbb\xcc\xdd"
    assert after[SLOT + 2 :] == memory.span(mapped, slot + SLOT + 2, SLOT - 2)
