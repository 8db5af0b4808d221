"""Of any small program: what is shown is a failure of its own, nothing of it can be left out, and fixes hold."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGRE, NORMAL_NC
from pyvfio_user.bridge.explore import Explored, Where, arrives_before, explore
from pyvfio_user.bridge.explore.invariants import Arrival, holds
from pyvfio_user.bridge.explore.replay import in_program_order
from pyvfio_user.bridge.explore.shrink import part_of, unlikely
from pyvfio_user.bridge.interconnect import (
    Behaviour,
    Behaviours,
    Part,
    Program,
    dmb,
    dsb,
    ldar,
    load,
    pair,
    ram_store,
    speculative,
    stlr,
    store,
)

TYPES = st.sampled_from([NGNRE, NGRE, GRE, NORMAL_NC])
OFFSETS = st.sampled_from([0, 4, 8, 0x1000])
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(lambda at, kind: store(at, 4, type=kind), OFFSETS, TYPES),
    st.builds(lambda at, kind: store(at, 4, type=kind), OFFSETS, TYPES),
    st.builds(lambda at, kind: load(at, 4, type=kind), OFFSETS, TYPES),
    st.builds(lambda kind: pair(store(0, 4, type=kind)), TYPES),
    st.sampled_from([dmb("osh"), dmb("oshst"), dmb("ish"), dsb("st"), ram_store(0), speculative(8)]),
    st.sampled_from([stlr(8, 4, type=NORMAL_NC), ldar(0, 4, type=NORMAL_NC)]),
)
PROGRAMS = st.lists(PARTS, min_size=2, max_size=5).map(lambda parts: Program.of(*parts))
INVARIANTS = st.builds(
    lambda first, second: arrives_before(Where(first, 4), Where(second, 4)),
    *(st.sampled_from([0, 4, 8]), st.sampled_from([4, 8, 0x1000])),
)


def failing(program: Program, invariant: Arrival) -> list[Behaviour]:
    found = Behaviours(program)
    native = invariant.resolve(found.effects)
    return [each for each in found if not holds(native, found.effects, each)]


def restricted(behaviours: list[Behaviour], kept: list[int]) -> set[Behaviour]:
    """The same behaviours, of some of their effects."""
    bit = {1 << old: 1 << new for new, old in enumerate(kept)}
    found = set()
    for each in behaviours:
        blocks = (sum(new for old, new in bit.items() if block & old) for block in each)
        found.add(tuple(block for block in blocks if block))
    return found


def explored(program: Program, invariant: Arrival) -> Explored:
    found = explore(program, invariants=[invariant])
    assert found.passed == (not failing(program, invariant))
    assume(not found.passed)
    return found


MANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@MANY
@given(PROGRAMS, INVARIANTS)
def test_what_is_shown_is_the_least_failure_and_one_of_the_program(program: Program, invariant: Arrival) -> None:
    shrunk = explored(program, invariant).shrunk
    ordinary = sum(in_program_order(shrunk.order.effects))
    fails = failing(shrunk.program, invariant)
    assert shrunk.least and shrunk.behaviour == min(fails, key=lambda each: unlikely(each, ordinary))
    whole = Behaviours(program)
    kept = [effect.index for effect in whole.effects if effect.position in shrunk.positions]
    assert shrunk.behaviour in restricted(list(whole), kept)


@MANY
@given(PROGRAMS, INVARIANTS)
def test_no_access_can_be_left_out(program: Program, invariant: Arrival) -> None:
    """Unless the driver is wrong without it, or it orders others: then more is permitted without it."""
    found = explored(program, invariant)
    shrunk = found.shrunk
    whole = Behaviours(shrunk.program)
    for position, event in enumerate(shrunk.program.events):
        rest = [each for each in range(len(shrunk.program.events)) if each != position]
        if event.size == 0 or not rest:
            continue
        fewer = part_of(shrunk.program, rest)
        fails = failing(fewer, invariant)
        kept = [effect.index for effect in whole.effects if effect.position != position]
        wrong = found.expected and in_program_order(Behaviours(fewer).effects) in fails
        assert not fails or wrong or not set(Behaviours(fewer)) <= restricted(list(whole), kept)


@MANY
@given(PROGRAMS, INVARIANTS)
def test_what_is_proposed_holds_in_all_behaviours(program: Program, invariant: Arrival) -> None:
    for fix in explored(program, invariant).fixes:
        assert fix.complete
        assert failing(fix.program, invariant) == []
