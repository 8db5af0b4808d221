"""Explorations: what is looked at, what is counted, and that a seed decides the rest."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGRE, NORMAL_NC
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore import (
    Property,
    Where,
    arrives_before,
    explore,
    final_image,
    in_one_block,
    never_speculated,
)
from pyvfio_user.bridge.explore.invariants import holds
from pyvfio_user.bridge.explore.sampling import Walks
from pyvfio_user.bridge.explore.shrink import is_legal
from pyvfio_user.bridge.interconnect import (
    PROFILES,
    RULES,
    Behaviours,
    Part,
    Program,
    burst,
    dmb,
    load,
    ram_store,
    speculative,
    store,
)
from pyvfio_user.bridge.stream import read_trace, write_trace

from .drivers import DOORBELL, WINDOW, Sender, send

PAYLOAD_FIRST = arrives_before(Where(WINDOW, 64), Where(DOORBELL, 4), "payload before doorbell")
BURST = Program.of(burst(0x40), store(DOORBELL, 4, 1, type=NGNRE))


class TestInC:
    def test_all_behaviours_of_a_burst_and_its_doorbell(self) -> None:
        found = explore(BURST, invariants=[PAYLOAD_FIRST])
        assert (found.count, found.checked, found.complete) == (3_816_548, 3_816_548, True)
        assert found.broken == {"payload before doorbell": 3_816_548 - 545_835}
        assert found.shrunk.positions == (7, 8)
        assert found.shrunk.behaviour == (0b10, 0b01)

    def test_several_invariants_are_counted_apart(self) -> None:
        program = Program.of(store(0, type=GRE), store(8, type=GRE), speculative(0x80))
        both, never = in_one_block(Where(0, 16), "one burst"), never_speculated(Where(0, 256), "no speculation")
        found = explore(program, invariants=[both, never])
        naive = list(Behaviours(program))
        assert (found.count, found.complete) == (len(naive), True)
        assert found.broken == {
            "one burst": sum(0b11 not in each for each in naive),
            "no speculation": sum(bool(sum(each) & 0b100) for each in naive),
        }

    @pytest.mark.parametrize(
        "invariant",
        [
            arrives_before(Where(0, 8), Where(8, 8)),
            in_one_block(Where(0, 16)),
            never_speculated(Where(0, 64)),
            final_image(0, b"\1" * 8),
        ],
    )
    def test_one_behaviour_is_judged_as_all_are(self, invariant: object) -> None:
        program = Program.of(
            store(0, 8, b"\1" * 8, type=GRE), store(8, type=GRE), store(0, 4, 2, type=NORMAL_NC), speculative(32)
        )
        found = Behaviours(program)
        native = invariant.resolve(found.effects)  # type: ignore[attr-defined]
        one_by_one = sum(not holds(native, found.effects, each) for each in found)
        assert found.check([native]).broken == (one_by_one,)
        assert one_by_one > 0


class TestReplayed:
    def test_a_device_that_does_not_look_at_memory_tells_fewer_apart(self) -> None:
        program = Program.of(burst(WINDOW, 16), store(DOORBELL, 4, 1, type=NGNRE))
        whole = explore(program, Sender)
        found = explore(program, Sender, passive=lambda effect: effect.offset != DOORBELL)
        assert (whole.count, found.count, found.reduced_count, found.checked) == (8, 8, 4, 4)
        assert found.broken == {"the device does not fail": 3}
        assert found.extent == "all 8 legal behaviours, which are 4 that the device can tell apart"

    def test_a_device_that_raises_anything(self) -> None:
        class Broken(Sender):
            def write(self, bar: int | None, offset: int, data: bytes) -> None:
                raise KeyError(offset)

        found = explore(Program.of(store(0)), Broken)
        assert found.card is not None
        assert found.card.broken == "KeyError: 0"
        assert found.card.missing == (
            "nothing: the program breaks it in its own order too, so that no order is to blame",
        )

    def test_a_property_may_assert(self) -> None:
        def holds_not(outcome: object) -> bool:
            raise AssertionError("queue 3 is empty")

        found = explore(Program.of(store(0)), Sender, [Property("queues are fed", holds_not)])
        assert found.card is not None
        assert found.card.broken == "queues are fed: queue 3 is empty"

    def test_stores_to_ram_reach_the_device_as_bar_none(self) -> None:
        seen: list[tuple[int | None, int, bytes]] = []

        class Reader(Sender):
            def write(self, bar: int | None, offset: int, data: bytes) -> None:
                seen.append((bar, offset, data))

        explore(Program.of(ram_store(0x4000_0000, 4, 7), dmb("oshst"), store(0, 4, 9)), Reader)
        assert seen == [(None, 0x4000_0000, b"\7\0\0\0"), (0, 0, b"\x09\0\0\0")]


class TestSampling:
    def test_the_same_seed_finds_the_same(self) -> None:
        program = Program.of(burst(WINDOW, 16), burst(0x80, 32), store(DOORBELL, 4, 1))
        one, same, other = (explore(program, Sender, seed=seed, limit=50) for seed in (7, 7, 8))
        assert (one.first, one.broken, one.checked) == (same.first, same.broken, 50)
        assert one.first != other.first
        assert one.extent == f"50 of {one.count:,} legal behaviours, drawn with seed 7"
        assert str(one.card) == str(same.card)

    def test_fewer_are_drawn_than_are_looked_at_when_all_can_be(self) -> None:
        """A burst of 64 bytes and its doorbell have 3,816,548 behaviours: neither it nor its fixes take a minute."""
        program = Program.of(burst(WINDOW, 64), store(DOORBELL, 4, 1))
        found = explore(program, Sender, limit=1000, drawn=30)
        assert found.extent == "30 of 3,816,548 legal behaviours, drawn with seed 0"
        extents = {fix.what: fix.extent for fix in found.fixes}
        before_the_bell = "dmb oshst before event 8, the store at bar0+0x1000"
        assert extents[before_the_bell] == "30 of 545,835 legal behaviours, drawn with seed 0"
        assert explore(found.fixes[-1].program, Sender, limit=1000, drawn=30).complete  # nGnRE: the one behaviour

    def test_a_program_that_is_too_free_to_be_counted(self) -> None:
        program = Program.of(burst(0x200, 256), burst(WINDOW, 16), store(DOORBELL, 4, 1))
        found = explore(program, Sender, seed=3, limit=200)
        assert (found.count, found.complete, found.checked) == (None, False, 200)
        assert found.extent == "200 behaviours, drawn with seed 3 from more than could be counted"
        assert found.shrunk.positions == (32, 33, 34)
        assert found.fixes[0].what == "dmb oshst before event 34, the store at bar0+0x1000"
        assert not found.fixes[0].complete

    def test_a_profile_picks_within_the_legal_set(self) -> None:
        program = Program.of(burst(WINDOW, 16), store(DOORBELL, 4, 1))
        in_order = explore(program, Sender, profile=PROFILES["in-order"], limit=20)
        assert (in_order.passed, in_order.complete) == (True, False)
        assert in_order.extent == "20 behaviours of profile in-order, drawn with seed 0"
        combining = explore(program, Sender, profile=PROFILES["wc-64x4"], limit=20)
        assert not combining.passed
        legal = set(Behaviours(program))
        walks = Walks(program, RULES, PROFILES["wc-64x4-partial"])(Random(2))
        assert {next(walks) for _ in range(50)} <= legal

    def test_a_recording(self, tmp_path: Path) -> None:
        rounds = [part for _ in range(60) for part in (store(0x800, 8), load(0x808, 8))]
        events = Program.of(*rounds, send().events, *rounds).events
        write_trace(tmp_path / "trace", events)
        found = explore(read_trace(tmp_path / "trace"), Sender, seed=1, limit=30)
        assert not found.passed
        assert found.shrunk.positions == (120, 121, 122)
        assert found.shrunk.behaviour == (0b001, 0b100, 0b010)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.builds(
                    lambda at, kind: store(at * 4, 4, type=kind),
                    st.integers(0, 2),
                    st.sampled_from([NGNRE, NGRE, GRE, NORMAL_NC]),
                ),
                st.builds(lambda at, kind: load(at * 4, 4, type=kind), st.integers(0, 2), st.sampled_from([NGRE, GRE])),
                st.builds(lambda at: speculative(at * 4, 4), st.integers(0, 2)),
                st.sampled_from([dmb("osh"), dmb("oshst"), dmb("ish")]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def test_walks_stay_within_the_legal_set(self, parts: list[Part]) -> None:
        program = Program.of(*parts)
        found = Behaviours(program)
        legal = set(found)
        for each in islice(Walks(program, RULES)(Random(1)), 40):
            assert each in legal
        assert all(is_legal(found.order, each) for each in legal)
        for each in islice(legal, 20):
            assert is_legal(found.order, each[::-1]) == (each[::-1] in legal)


class TestRefusals:
    def test_nothing_to_check(self) -> None:
        with pytest.raises(DefinitionError, match=r"^there must be a device or an invariant, not neither$"):
            explore(BURST)

    def test_a_property_without_a_device(self) -> None:
        with pytest.raises(DefinitionError, match=r"^a device must be given to have the property P, not None$"):
            explore(BURST, invariants=[Property("P", lambda outcome: True)])

    def test_shrinking_what_did_not_fail(self) -> None:
        with pytest.raises(DefinitionError, match=r"^an exploration must have found a failure to be shrunk, not none$"):
            _ = explore(send(dmb("oshst")), Sender).shrunk
