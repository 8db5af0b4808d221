"""Requests that fail: the guest goes on, and the card says who is told (PCIe 2.8)."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore import Failed, Outcome, Property, RequestFails, explore
from pyvfio_user.bridge.explore.replay import Replay
from pyvfio_user.bridge.interconnect import Behaviours, Failure, Program, dmb, effects, load, store
from pyvfio_user.bridge.stream import BAR_CONFIG

ENABLE, WINDOW = 0x1000, 0


class Gate:
    """Takes nothing at its window until it is enabled; and is silent when it is disabled for good."""

    def __init__(self) -> None:
        self.enabled = False
        self.taken = 0

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        if offset == ENABLE:
            self.enabled = bool(data[0])
        elif not self.enabled:
            raise RequestFails
        else:
            self.taken += 1

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        if not self.enabled:
            raise RequestFails(Failure.COMPLETION_TIMEOUT)
        return bytes(size)


class Resumed(Gate):
    """The same, and it can go back."""

    def save(self) -> tuple[bool, int]:
        return self.enabled, self.taken

    def restore(self, state: tuple[bool, int]) -> None:
        self.enabled, self.taken = state


NONE_FAILS = Property("the device takes every request", lambda outcome: not outcome.failed)


def test_a_failed_posted_write_is_on_the_card() -> None:
    program = Program.of(store(ENABLE, 4, 1, type=NGNRE), store(WINDOW, type=NORMAL_NC))
    found = explore(program, Gate, [NONE_FAILS])
    assert found.card is not None
    assert found.card.arrived == (
        "1: W bar0+0x0 8; UR: the guest is told nothing; the host may be, by AER or an SError [P] 2.8",
        "0: W bar0+0x1000 4",
    )
    assert found.fixes[0].what == "dmb oshst before event 1, the store at bar0+0x0"
    explore(
        Program.of(*(each for each in (program.events[:1], dmb("oshst"), program.events[1:]))), Gate, [NONE_FAILS]
    ).assert_holds()


def test_a_load_that_nobody_answers_gets_all_ones() -> None:
    program = Program.of(store(ENABLE, 4, 1, type=NGNRE), load(WINDOW, type=NORMAL_NC))

    def valid(outcome: Outcome) -> bool:
        return outcome.loads[1] != b"\xff" * 8

    found = explore(program, Gate, [Property("the driver reads what is there", valid)])
    assert found.card is not None
    assert found.card.arrived[0] == (
        "1: R bar0+0x0 8; completion timeout: the load gets all ones, or an external abort [P] 2.8"
    )


def test_a_failure_alone_breaks_nothing() -> None:
    """The guest is not told: what it does then is as if the write had been done."""
    program = Program.of(store(WINDOW, type=NORMAL_NC))
    explore(program, Gate, [Property("the driver ends", lambda outcome: True)]).assert_holds()


def test_going_back_keeps_what_had_failed() -> None:
    program = Program.of(*(store(8 * at, type=NORMAL_NC) for at in range(3)), store(ENABLE, 4, 1, type=NGNRE))
    found = Behaviours(program)
    resumed, anew = Replay(found.effects, Resumed), Replay(found.effects, Gate)
    for behaviour in found:
        one, other = resumed.run(behaviour), anew.run(behaviour)
        assert (one.failed, one.device.taken) == (other.failed, other.device.taken)
        assert len(one.failed) + one.device.taken >= len(behaviour) - 1


def test_what_fails_and_how() -> None:
    program = Program.of(store(0), load(8), store(4, 4, bar=BAR_CONFIG))
    assert Replay(effects(program), Gate).run((1, 2, 4)).failed == [
        Failed(0, True, Failure.UNSUPPORTED_REQUEST),
        Failed(1, False, Failure.COMPLETION_TIMEOUT),
        Failed(2, False, Failure.UNSUPPORTED_REQUEST),
    ]


def test_a_posted_write_cannot_time_out() -> None:
    class Silent(Gate):
        def write(self, bar: int | None, offset: int, data: bytes) -> None:
            raise RequestFails(Failure.COMPLETION_TIMEOUT)

    with pytest.raises(DefinitionError, match=r"^a request must have a completion to time out, not be a posted write$"):
        Replay(effects(Program.of(store(0))), Silent).run((1,))
