"""Profiles stay inside the legal set, are the same for the same seed, and differ in what they are named for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, NGNRE, NORMAL_NC, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect.behaviours import behaviours
from pyvfio_user.bridge.interconnect.order import Order
from pyvfio_user.bridge.interconnect.profiles import PROFILES, Profile
from pyvfio_user.bridge.interconnect.program import (
    Part,
    Program,
    burst,
    dgh,
    dmb,
    load,
    on_vcpu,
    pair,
    ram_store,
    speculative,
    st1,
    store,
    windows,
)
from pyvfio_user.bridge.interconnect.tlp import tlps
from pyvfio_user.bridge.stream import Flag

TYPES = st.sampled_from([MemoryType.parse(text) for text in ("00", "04", "08", "0c", "44", "44", "ff")])
SLOTS = st.integers(0, 3).map(lambda slot: 8 * slot)
MOST = 50_000
"""Behaviours that are enumerated: five pairs of stores may have tens of millions."""
PARTS = st.one_of(
    st.builds(lambda at, kind: store(at, type=kind), SLOTS, TYPES),
    st.builds(lambda at, kind: load(at, type=kind), SLOTS, TYPES),
    st.builds(lambda at, kind: pair(store(at, type=kind)), SLOTS, TYPES),
    st.builds(lambda at: store(at, type=NORMAL_NC, flags=Flag.RELEASE), SLOTS),
    st.builds(lambda at: speculative(at), SLOTS),
    st.builds(lambda at: ram_store(at), SLOTS),
    st.sampled_from([dmb(), dmb("oshst"), dmb("ld"), dgh()]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PARTS, max_size=5), st.sampled_from(sorted(PROFILES)), st.integers(0, 1 << 32))
def test_every_run_is_legal(parts: list[Part], name: str, seed: int) -> None:
    found = behaviours(Program.of(*parts))
    assume(found.count <= MOST)
    run = PROFILES[name].run(found.order, seed)
    assert run in set(found)
    assert run == PROFILES[name].run(found.order, seed)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 64), st.floats(0, 1), st.floats(0, 1), st.integers(0, 8), st.integers(0, 1 << 32))
def test_every_profile_one_may_think_of_is_legal(
    buffers: int, drain: float, partial: float, reorder: int, seed: int
) -> None:
    own = Profile("own", buffers=buffers, line=16, drain=drain, partial=partial, reorder=reorder, speculate=drain)
    parts = (burst(0, 16), burst(0, 16), dmb("st"), store(0, type=NORMAL_NC), store(0x40), load(8, type=NORMAL_NC))
    found = behaviours(Program.of(*parts))
    assert own.run(found.order, seed) in set(found)


@settings(deadline=None, max_examples=50)
@given(st.lists(PARTS, max_size=5), st.sampled_from(sorted(PROFILES)), st.integers(1, 4), st.integers(0, 1 << 32))
def test_a_recording_in_windows_is_legal_as_a_whole(parts: list[Part], name: str, size: int, seed: int) -> None:
    program = Program.of(*parts)
    assume(behaviours(program).count <= MOST)
    run: list[int] = []
    before = 0
    for window in windows(program.events, size):
        order = Order(window)
        run += [block << before for block in PROFILES[name].run(order, seed)]
        before += len(order.effects)
    assert tuple(run) in set(behaviours(Program.recorded(program.events)))


def whole(name: str, *parts: Part, runs: int = 200) -> Counter[int]:
    """How often so many 64-byte TLPs arrive."""
    order = Order(Program.of(*parts))
    profile = PROFILES[name]
    behaved = (profile.run(order, seed) for seed in range(runs))
    return Counter(sum(tlp.length == 16 for tlp in tlps(order.effects, each, profile.link)) for each in behaved)


@pytest.mark.parametrize("kind", [NORMAL_NC, GRE])
def test_a_burst_is_one_tlp_sometimes(kind: MemoryType) -> None:
    found = whole("wc-64x4", burst(0x40, type=kind), dgh())
    assert set(found) == {0, 1}
    assert found[1] > found[0]


@pytest.mark.parametrize("name", PROFILES)
def test_never_on_ngnre(name: str) -> None:
    assert set(whole(name, burst(0x40, type=NGNRE), dgh())) == {0}


def test_elements_of_one_instruction_have_no_number_outside_even_on_ngnre() -> None:
    """DDI 0487 B2.10.2.4: one 64-byte store of four SIMD registers may be one TLP, or any number of them."""
    assert set(whole("in-order", st1(0x40, type=NGNRE), runs=2000)) == {0, 1}


@pytest.mark.parametrize("name", ["in-order", "reorder-only", "wc-16x4", "wc-32x4", "rc-splits-4"])
def test_never_where_buffers_are_too_small(name: str) -> None:
    assert set(whole(name, burst(0x40), dgh())) == {0}


def test_a_hint_keeps_two_bursts_apart_and_may_be_ignored() -> None:
    halves = (burst(0x40, 32), dgh(), burst(0x60, 32))
    assert set(whole("wc-64x4", *halves)) == {0}
    assert whole("wc-64x4-no-hint", *halves)[1] > 0


def test_a_hint_empties_a_buffer_as_one() -> None:
    order = Order(Program.of(burst(0x40, 32), dgh(), store(0x1000, 4)))
    assert Profile("own", drain=0).run(order, 0) == (0b1111, 0b10000)
    two = Order(Program.of(burst(0x40, 16), on_vcpu(1, burst(0x50, 16), dgh()), store(0x1000, 4)))
    assert Profile("own", drain=0).run(two, 0)[0] == 0b1100


def test_a_single_buffer_goes_when_another_line_needs_it() -> None:
    interleaved = tuple(part for at in range(0, 64, 8) for part in (burst(at, 8), burst(64 + at, 8)))
    assert set(whole("wc-64x1", *interleaved)) == {0}
    assert whole("wc-64x4", *interleaved)[2] > 0


def test_a_full_buffer_goes_at_once() -> None:
    """Nothing else asks for it: no other line, no hint, and no chance."""
    order = Order(Program.of(burst(0), load(0x1000)))
    sent = [(step.position, step.block, step.why) for step in Profile("full", drain=0).steps(order, 0) if step.block]
    assert sent[0] == (7, 0xFF, "full")


def test_in_order_is_the_program_s_order() -> None:
    order = Order(Program.of(burst(0), load(0x40), store(0x1000)))
    assert PROFILES["in-order"].run(order, 7) == tuple(1 << n for n in range(10))


def test_recordings_of_any_length() -> None:
    order = Order(Program.of(*[burst(64 * n) for n in range(12)], dmb("st"), store(0x1000)))
    run = PROFILES["wc-64x4-reorder"].run(order, 1)
    assert sum(run) == (1 << 97) - 1
    assert run[-1] == 1 << 96


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"line": 48}, "line must be 16, 32, 64 or 128 bytes, not 48"),
        ({"buffers": 65}, "buffers must be 0 to 64, not 65"),
        ({"reorder": -1}, "reorder must be 0 to 64, not -1"),
        ({"drain": 1.5}, "drain must be 0 to 1, not 1.5"),
    ],
)
def test_what_is_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Profile("wrong", **wrong)  # type: ignore[arg-type]
    assert str(caught.value) == message
