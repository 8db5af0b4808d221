"""Shrinking: no access that does not matter, no order stranger than it must be, and no barrier that was ignored."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGRE, NORMAL_NC
from pyvfio_user.bridge.explore import Property, Where, arrives_before, explore
from pyvfio_user.bridge.explore.shrink import is_legal, surprise
from pyvfio_user.bridge.interconnect import Order, Program, burst, dmb, load, pair, speculative, store

from .drivers import BOTH_DONE, BlueFlame, Sender, entry, send

FIRST, SECOND = Where(0, 8), Where(0x1000, 8)
ORDERED = arrives_before(FIRST, SECOND)


@pytest.mark.parametrize(
    ("behaviour", "far"),
    [((1, 2, 4), (0, 0)), ((1, 4, 2), (1, 0)), ((4, 2, 1), (3, 0)), ((3, 4), (1, 1)), ((6, 1), (3, 1))],
)
def test_how_surprising_a_behaviour_is(behaviour: tuple[int, ...], far: tuple[int, int]) -> None:
    assert surprise(behaviour)[:2] == far


@pytest.mark.parametrize(
    ("behaviour", "legal"),
    [
        ((1, 2, 4), True),
        ((2, 1, 4), True),
        ((3, 4), True),
        ((1, 2), True),  # the read need not be made
        ((1, 4), False),  # a store that never arrives
        ((4,), False),
        ((1, 6), False),  # a read and a write as one
    ],
)
def test_what_an_order_permits(behaviour: tuple[int, ...], legal: bool) -> None:
    order = Order(Program.of(store(0, type=NORMAL_NC), store(8, type=NORMAL_NC), speculative(16)))
    assert is_legal(order, behaviour) == legal


def test_what_stands_in_order_changes_no_places() -> None:
    order = Order(Program.of(store(0, type=NGNRE), store(8, type=NGNRE)))
    assert [is_legal(order, each) for each in ((1, 2), (2, 1), (3,))] == [True, False, False]


def test_accesses_that_do_not_matter_are_left_out() -> None:
    noise = [store(0x800, type=GRE), load(0x808, type=NGNRE), speculative(0x810)]
    found = explore(Program.of(*noise, store(0, type=NORMAL_NC), *noise, store(0x1000)), invariants=[ORDERED])
    assert found.shrunk.positions == (3, 7)
    assert (found.shrunk.behaviour, found.shrunk.least, found.shrunk.missing) == ((2, 1), True, ((0, 1),))


class Reads:
    """Counts reads."""

    def __init__(self) -> None:
        self.reads = 0

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        pass

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        self.reads += 1
        return bytes(size)


def test_a_store_that_answers_a_load_stays() -> None:
    """Without it the load would have to arrive."""
    program = Program.of(store(0x40, type=NORMAL_NC), load(0x40, type=NORMAL_NC))
    found = explore(program, Reads, [Property("it arrives", lambda outcome: outcome.device.reads == 1)])
    assert (found.shrunk.positions, found.shrunk.behaviour) == ((0, 1), (1,))


def test_an_access_without_which_the_order_is_stricter_stays() -> None:
    """The alias of another type takes the order of its location: without it, the two others would be in order."""
    program = Program.of(store(0, 4), store(0x1000, 4), store(0x1000, 4, type=NGRE))
    found = explore(program, invariants=[arrives_before(Where(0, 4), Where(0x1000, 4))])
    assert found.card is not None


def test_an_access_that_orders_others_stays() -> None:
    """Without the middle one, the order that is shown would not be a behaviour of the program."""
    program = Program.of(
        store(0, type=NORMAL_NC), dmb("oshst"), store(0x800, type=NGNRE), store(0x1000, type=NGNRE), store(8, type=GRE)
    )
    late = arrives_before(Where(0x1000, 8), Where(8, 8))
    found = explore(program, invariants=[late])
    assert found.shrunk.positions == (3, 4)
    assert explore(program, invariants=[ORDERED]).passed


def test_barriers_between_what_remains_stay() -> None:
    program = Program.of(dmb(), store(0, type=NORMAL_NC), dmb("ish"), dmb("ish"), store(0x1000), dmb())
    found = explore(program, invariants=[ORDERED])
    assert found.shrunk.positions == (1, 2, 4)


def test_halves_of_a_pair_are_told_apart() -> None:
    found = explore(Program.of(pair(store(0, type=NGNRE))), invariants=[arrives_before(Where(0, 8), Where(8, 8))])
    assert found.shrunk.behaviour == (0b10, 0b01)


def test_the_least_surprising_order_of_a_program_with_many() -> None:
    """3,816,548 behaviours are not all looked at: the search goes from program order outwards."""
    whole = Property("whole", lambda outcome: outcome.device.taken != [False])

    class Taker(Sender):
        def __init__(self) -> None:
            self.bytes = 0
            self.taken: list[bool] = []

        def write(self, bar: int | None, offset: int, data: bytes) -> None:
            if offset < 0x1000:
                self.bytes += len(data)
            else:
                self.taken.append(self.bytes == 64)

    found = explore(Program.of(burst(0, 64), store(0x1000)), Taker, [whole], seed=5, limit=20)
    assert (found.complete, found.shrunk.least) == (False, True)
    assert found.shrunk.behaviour == (1, 2, 4, 8, 16, 32, 64, 256, 128)
    assert found.shrunk.missing == ((7, 8),)


def test_an_order_that_is_far_from_the_program() -> None:
    """Nothing near program order fails, and from the one that was found no single step leads closer."""

    class Log(Sender):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def write(self, bar: int | None, offset: int, data: bytes) -> None:
            self.seen.append(offset // 8)
            assert self.seen != [7, 6, 5, 4, 3, 2, 1, 0], "not backwards"

    found = explore(Program.of(burst(0, 64, type=NGRE)), Log)
    assert (found.count, found.complete, found.broken) == (40_320, True, {"the device does not fail": 1})
    assert (found.shrunk.least, found.shrunk.behaviour) == (False, (128, 64, 32, 16, 8, 4, 2, 1))


def test_an_order_that_is_not_to_blame() -> None:
    found = explore(Program.of(store(0x1000), store(0)), invariants=[ORDERED])
    assert not found.expected
    assert found.shrunk.positions == (0, 1)


def test_the_shrunk_program_fails_alike() -> None:
    for program, device, invariants in (
        (send(), Sender, []),
        (Program.of(entry(1, 0), store(0x1000, type=NGNRE), entry(2, 0)), BlueFlame, [BOTH_DONE]),
    ):
        found = explore(program, device, invariants)
        again = explore(found.shrunk.program, device, invariants)
        assert (again.passed, again.invariant) == (False, found.invariant)
