"""Drivers that hardware would break: each is found, shrunk, explained, and fixed by what is proposed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pyvfio_user.bridge.attributes import NORMAL_NC
from pyvfio_user.bridge.explore import Explored, Outcome, Property, explore
from pyvfio_user.bridge.explore.invariants import Invariant
from pyvfio_user.bridge.explore.replay import Factory
from pyvfio_user.bridge.interconnect import Mapped, Part, Program, dgh, dmb, dsb, isb, load, reaches, speculated

from .drivers import BOTH_DONE, FIFO, NONE_LOST, BlueFlame, Fifo, Sender, drain, post_twice, send


def fixed(found: Explored, device: Factory, invariants: Sequence[Invariant]) -> list[str]:
    """What is proposed, after each was tried."""
    for fix in found.fixes:
        assert explore(fix.program, device, invariants).passed
        assert fix.complete
    return [fix.what for fix in found.fixes]


def _first_and_last(outcome: Outcome) -> list[int]:
    values = [int.from_bytes(value, "little") for value in outcome.loads.values()]
    return [values[0], values[-1]]


class TestMissingBarrier:
    def test_it_is_found_shrunk_and_explained(self) -> None:
        found = explore(send(), Sender)
        assert (found.count, found.complete, found.broken) == (8, True, {"the device does not fail": 5})
        assert found.shrunk.behaviour == (0b001, 0b100, 0b010)
        assert found.card is not None
        assert found.card.broken == "the entry is whole when the doorbell rings"
        assert found.card.missing == (
            "1 before 2: nGnRnE is in order with its like, not with Normal-NC; no barrier that counts is between "
            "[A] B2.10.2.2",
        )

    def test_what_is_proposed_fixes_it(self) -> None:
        assert fixed(explore(send(), Sender), Sender, []) == [
            "dmb oshst before event 2, the store at bar0+0x1000",
            "a store-release for event 2, the store at bar0+0x1000",
            "type nGnRE for bar0+0x0, its whole page",
        ]

    @pytest.mark.parametrize("useless", [dmb("ishst"), dmb("nsh"), dmb("oshld"), isb(), dgh()])
    def test_a_barrier_that_does_not_order_for_the_device(self, useless: Part) -> None:
        found = explore(send(useless), Sender)
        assert found.count == 8 and not found.passed
        assert len(found.shrunk.program.events) == 4  # it stays on the card

    def test_the_wrong_domain_is_named_and_replaced(self) -> None:
        found = explore(send(dmb("ishst")), Sender)
        assert found.card is not None
        assert found.card.program[2].note == "orders nothing at a device, which is Outer Shareable [M] B2.10"
        assert fixed(found, Sender, [])[0] == "dmb oshst instead of dmb ishst, event 2"

    @pytest.mark.parametrize("barrier", [dmb("oshst"), dmb("st"), dmb("osh"), dsb("st"), dsb()])
    def test_the_correct_driver_passes_all_behaviours(self, barrier: Part) -> None:
        found = explore(send(barrier), Sender)
        assert (found.count, found.complete, found.passed) == (3, True, True)
        found.assert_holds()
        assert found.card is None and found.fixes == ()


class TestBlueFlameReuse:
    def test_it_is_found_shrunk_and_explained(self) -> None:
        found = explore(post_twice(), BlueFlame, [BOTH_DONE])
        assert (found.count, found.complete, found.broken) == (26, True, {"both entries are done": 17})
        assert found.shrunk.behaviour == (0b0001, 0b0100, 0b0010, 0b1000)
        assert found.shrunk.missing == ((1, 2),)

    def test_what_is_proposed_fixes_it(self) -> None:
        assert fixed(explore(post_twice(), BlueFlame, [BOTH_DONE]), BlueFlame, [BOTH_DONE]) == [
            "dmb oshst before event 2, the store at bar0+0x40",
            "type nGnRE for bar0+0x0, its whole page",
        ]

    @pytest.mark.parametrize(("program", "count"), [(post_twice(dmb("oshst")), 9), (post_twice(second_buffer=1), 75)])
    def test_the_correct_drivers_pass_all_behaviours(self, program: Program, count: int) -> None:
        found = explore(program, BlueFlame, [BOTH_DONE])
        assert (found.count, found.complete, found.passed) == (count, True, True)


class TestFifoInAWriteCombiningRange:
    def test_it_is_found_and_explained(self) -> None:
        found = explore(drain(in_window=True), Fifo, [NONE_LOST])
        assert not found.passed and found.complete
        assert found.shrunk.behaviour == (0b001, 0b010, 0b100)
        assert found.card is not None
        assert found.card.arrived[1] == "2: R bar0+0x2000 4 (speculative)"
        assert found.card.missing == ("nothing forbids the speculative read 2 of Normal-NC [A] B2.10.1",)

    def test_what_is_proposed_fixes_it(self) -> None:
        found = explore(drain(in_window=True), Fifo, [NONE_LOST])
        assert fixed(found, Fifo, [NONE_LOST]) == ["type GRE for bar0+0x2000, its whole page"]

    def test_the_host_s_mapping_is_enough_to_lose_an_entry(self) -> None:
        """The guest's driver is right: nGnRE. But the host has the same page Normal Non-cacheable."""
        mapped = Mapped(0, FIFO, 4, NORMAL_NC, who="host")
        assert [str(each) for each in reaches([mapped])] == [
            "bar0+0x2000 4 through the host's Normal Non-cacheable mapping (B2.10.1)"
        ]
        found = explore(speculated(drain(in_window=False), [mapped], seed=3, most=1), Fifo, [NONE_LOST])
        assert not found.passed and found.complete
        assert found.card is not None
        assert any(line.startswith("nothing forbids the speculative read") for line in found.card.missing)

    def test_a_wrong_load_that_was_made_loses_one_on_device_too(self) -> None:
        """No order is to blame then, and no barrier or type helps: the seed's own comparison with speculation."""
        wrong = Program.of(load(FIFO, 4), load(FIFO, 8), load(FIFO, 4))
        found = explore(
            wrong, Fifo, [Property("the driver gets 1 and 2", lambda outcome: _first_and_last(outcome) == [1, 2])]
        )
        assert (found.count, found.passed, found.expected, found.fixes) == (1, False, False, ())
        assert found.card is not None
        assert found.card.arrived == ("0: R bar0+0x2000 4", "1: R bar0+0x2000 8", "2: R bar0+0x2000 4")
        assert found.card.missing == (
            "nothing: the program breaks it in its own order too, so that no order is to blame",
        )

    def test_loads_of_normal_memory_may_also_be_one(self) -> None:
        """Reads are lost, too: both loads return the same entry."""
        two = Program.of(load(FIFO, 4, type=NORMAL_NC), load(FIFO, 4, type=NORMAL_NC))
        found = explore(two, Fifo, [NONE_LOST])
        assert (found.count, found.broken) == (2, {NONE_LOST.name: 1})
        assert found.shrunk.behaviour == (0b11,)

    def test_the_correct_driver_passes(self) -> None:
        found = explore(drain(in_window=False), Fifo, [NONE_LOST])
        assert (found.count, found.passed) == (1, True)
