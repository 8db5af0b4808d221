"""A process of a Linux guest: what would be the machine's end is left out, and a fault must be the right signal."""

from __future__ import annotations

from typing import Any

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.devices.mailbox import Submission
from pyvfio_user.devices.probe import Probe
from pyvfio_user.guest.battery import BATTERY, INDEX
from pyvfio_user.guest.commander import Guest
from pyvfio_user.guest.expectation import Mapping, expect
from pyvfio_user.guest.hello import Hello, PciFunction
from pyvfio_user.guest.judge import Judge, Judgement
from pyvfio_user.guest.lanes.nested import NestedLane, signal_name
from pyvfio_user.guest.lanes.places import PLACES
from pyvfio_user.guest.lanes.trials import Trial
from pyvfio_user.guest.plan import Result, Status
from pyvfio_user.guest.results import Verdict

SIGBUS, SIGSEGV = 7, 11
STORE = BATTERY[INDEX["str-x+1"]]
PLACE = PLACES["wc-trapped"]
BAR = 0x1000_0000


@pytest.fixture
def lane() -> NestedLane:
    probe = Probe()
    function = PciFunction(0x1234, 0xBE50, 0, 0, (0, 0, BAR, 0, 0, 0), (0, 0, 1 << 20, 0, 0, 0))
    hello = Hello._make((*[0] * 14, 0, (function,), 0))
    return NestedLane(Guest(probe.mailbox), probe, hello, fwb=False)


def judged(lane: NestedLane, esr: int, **changes: Any) -> Judgement:
    trial = Trial(STORE, 0, False, PLACE.arena_offset)
    mapping = Mapping(NGNRE, 5, False)
    far = (2 << 32) + BAR + PLACE.arena_offset + 1
    result = Result(1, Status.FAULT, 1, 8, esr, far, 0, 0)._replace(**changes)
    judge = Judge(expect(STORE, mapping, 0, lane._implementation), mapping)
    order = trial.experiment(PLACE, 1, 1)
    return lane.judge(trial, order, result, PLACE, judge, [], Submission(b"", [], b""))[0]


def signalled(number: int, code: int, esr: int = 0x9200_0061) -> int:
    return (number << 8 | code) << 32 | esr


def test_an_alignment_fault_is_sigbus(lane: NestedLane) -> None:
    found = judged(lane, signalled(SIGBUS, 1))
    assert (found.verdict, found.observed) == (Verdict.AGREE, "EL1 fault 92000061, SIGBUS 1")


def test_another_signal_is_wrong(lane: NestedLane) -> None:
    found = judged(lane, signalled(SIGSEGV, 2))
    assert (found.verdict, found.why) == (Verdict.DISAGREE, "the signal must be SIGBUS 1 (BUS_ADRALN), not SIGSEGV 2")
    assert judged(lane, signalled(SIGBUS, 2)).verdict is Verdict.DISAGREE
    assert judged(lane, signalled(SIGBUS, 1, 0x9200_0045)).verdict is Verdict.DISAGREE


def test_what_would_end_the_machine_is_left_out(lane: NestedLane) -> None:
    ops = tuple(BATTERY[INDEX[name]] for name in ("str-x", "str-x+1", "ldr-x", "ldr-w+1"))
    aligned = (ops[0], ops[2])
    assert lane.survivable(ops, NORMAL_NC, 5) == lane.survivable(ops, NGNRE, 5) == ops
    assert lane.survivable(ops, NORMAL_NC, 1) == aligned
    assert lane.survivable(ops, NGNRE, 1) == ops, "stage 1 is Device too: EL1 takes the fault"


def test_signals_by_name() -> None:
    assert [signal_name(number) for number in (SIGBUS, 99)] == ["SIGBUS", "signal 99"]
