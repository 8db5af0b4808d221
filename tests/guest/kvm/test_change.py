"""Whether just the right stores came, of those that a guest made while its window was mapped otherwise for a time."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.devices.probe_map import RANGES, Reg
from pyvfio_user.guest.kvm.change import JUST_THOSE, State, judge
from pyvfio_user.guest.lanes.kvm import Backing
from pyvfio_user.guest.workload import entry

WINDOW = RANGES["wc-trapped"].offset
BAR = State("vfio", Backing.DEVICE, "5")
STATES = [BAR, State("RAM", Backing.RAM, "f", arrives=False), BAR]
BOUNDS = [(3, 4), (7, 7)]


def pushes(entries: range, kept: range | None = None) -> list[Transaction]:
    """What a device logs of these entries: stores of the kept ones, 4 KiB times 4 of slots, and all doorbells."""
    log: list[Transaction] = []
    for sequence in entries:
        if kept is None or sequence in kept:
            log += [
                Transaction(0, True, 2, WINDOW + sequence % 256 * 64 + at, 8, entry(sequence)[at : at + 8])
                for at in range(0, 64, 8)
            ]
        log.append(Transaction(0, True, 0, Reg.DOORBELL, 4, (sequence + 1).to_bytes(4, "little")))
    return log


AWAY = [*pushes(range(4)), *pushes(range(4, 7), range(0)), *pushes(range(7, 10))]


def test_just_those_that_were_made_while_it_was_mapped() -> None:
    assert judge(AWAY, 10, STATES, BOUNDS) == JUST_THOSE
    assert judge(pushes(range(300)), 300, [BAR, BAR], [(5, 5)]) == JUST_THOSE


def test_an_entry_may_be_cut_in_two_by_the_change() -> None:
    cut = [*pushes(range(4))[:-4], *pushes(range(4))[-1:], *pushes(range(4, 7), range(0)), *pushes(range(7, 10))]
    assert judge(cut, 10, STATES, BOUNDS) == JUST_THOSE


def test_a_store_that_was_lost() -> None:
    lost = [each for number, each in enumerate(AWAY) if number != 3]
    assert judge(lost, 10, STATES, BOUNDS) == "25 stores missing in 2 places, not in 1"
    assert judge(pushes(range(9))[1:], 9, [BAR, BAR], [(5, 5)]) == "1 stores missing in 1 places, not in 0"


def test_a_store_that_came_although_the_bar_was_not_mapped() -> None:
    stray = pushes(range(5, 6))[3]
    at = AWAY.index(pushes(range(5, 6))[-1])
    assert judge([*AWAY[:at], stray, *AWAY[at:]], 10, STATES, BOUNDS) == "23 stores missing in 2 places, not in 1"


def test_a_store_that_came_late_or_twice() -> None:
    again = AWAY[5]
    assert judge([*AWAY[:20], again, *AWAY[20:]], 10, STATES, BOUNDS).startswith("a stray store, or one too many: ")


def test_a_store_of_other_bytes() -> None:
    wrong = AWAY[2]._replace(data=bytes(8))
    assert judge([*AWAY[:2], wrong, *AWAY[3:]], 10, STATES, BOUNDS).startswith("a stray store, or one too many: ")


@pytest.mark.parametrize("bounds", [[(5, 6), (7, 7)], [(1, 2), (7, 7)], [(3, 4), (9, 9)], [(3, 4), (5, 5)]])
def test_stores_missing_at_another_time(bounds: list[tuple[int, int]]) -> None:
    assert judge(AWAY, 10, STATES, bounds).startswith("entries 4 to 6 missing, mapped away between ")


def test_doorbells() -> None:
    assert judge(AWAY[:-1], 10, STATES, BOUNDS) == "9 doorbells for 10 entries"
    assert judge([AWAY[8], *AWAY], 10, STATES, BOUNDS) == "doorbell 2 has the value 01000000"


def test_a_loop_that_ended_within_an_entry() -> None:
    states = [BAR, State("nothing", Backing.NONE, "none", arrives=False)]
    assert judge(pushes(range(4))[:-4], 3, states, [(3, 3)]) == JUST_THOSE
    assert judge(pushes(range(4))[:-4][1:], 3, states, [(3, 3)]) == "1 stores missing in 1 places, not in 0"
