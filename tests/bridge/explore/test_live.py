"""Behaviours that are chosen while the accesses are made: legal, the same with the same seed, and not one alone."""

from __future__ import annotations

from itertools import islice

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGRE, NORMAL_NC
from pyvfio_user.bridge.explore.live import Arrived, Live
from pyvfio_user.bridge.explore.replay import Access
from pyvfio_user.bridge.interconnect import (
    Behaviour,
    Behaviours,
    Part,
    Program,
    burst,
    dmb,
    dsb,
    effects,
    load,
    pair,
    store,
)

MOST = 20_000  # behaviours of a program: ten effects that are free have millions, and fill gigabytes
TYPES = st.sampled_from([NGNRE, NGRE, GRE, NORMAL_NC])
PARTS = st.one_of(
    st.builds(lambda at, kind: store(at * 4, 4, type=kind), st.integers(0, 2), TYPES),
    st.builds(lambda at, kind: load(at * 4, 4, type=kind), st.integers(0, 2), TYPES),
    st.builds(lambda at, kind: pair(store(at * 4, 4, type=kind)), st.integers(0, 2), TYPES),
    st.builds(lambda at, kind: pair(load(at * 4, 4, type=kind)), st.integers(0, 2), TYPES),
    st.sampled_from([dmb("osh"), dmb("oshst"), dmb("ish"), dsb("st")]),
)
"""Of one address: as in a loop."""


def lived(program: Program, seed: int, held: int = 8) -> tuple[Behaviour, list[Access]]:
    """What one run makes of a program: blocks by the program's own effects, and the accesses."""
    live = Live(seed, held=held)
    found: list[Arrived] = []
    for event in program.events:
        found += live.take(event)[0]
    found += live.settle()
    assert not live.waiting
    index = {(each.event.sequence, each.offset): each.bit for each in effects(program)}
    blocks = tuple(sum(index[e.event.sequence, e.offset] for e in each.effects) for each in found)
    return blocks, [access for each in found for access in each.accesses]


@settings(max_examples=80, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=5), st.integers(0, 3))
def test_a_run_is_a_legal_behaviour(parts: list[Part], held: int) -> None:
    program = Program.of(*parts)
    legal = set(islice(Behaviours(program), MOST))
    assume(len(legal) < MOST)
    for seed in range(6):
        behaviour, _ = lived(program, seed, held)
        assert behaviour in legal
        assert (behaviour, _) == lived(program, seed, held)


def test_seeds_come_to_many_behaviours() -> None:
    program = Program.of(burst(0, 32))
    found = {lived(program, seed)[0] for seed in range(300)}
    assert len(found) > 40  # of 75
    assert (0b1111,) in found
    assert (0b1000, 0b0100, 0b0010, 0b0001) in found


def test_what_is_strongly_ordered_is_never_late_nor_gathered() -> None:
    program = Program.of(burst(0, 64, type=NGNRE))
    assert {lived(program, seed)[0] for seed in range(30)} == {tuple(1 << at for at in range(8))}


def test_a_load_is_answered_at_once() -> None:
    answers = set()
    for seed in range(20):
        live = Live(seed)
        live.take(store(0, 8, b"abcdefgh", type=NORMAL_NC)[0])
        arrived, answer = live.take(load(4, 4, type=NORMAL_NC)[0])
        reads = [access for each in arrived for access in each.accesses if access.data is None]
        assert [(access.offset, access.size) for access in reads] == ([(4, 4)] if answer is None else [])
        answers.add(answer)
    assert answers == {None, b"efgh"}


def test_a_reset_forgets_what_waits() -> None:
    for seed in range(20):
        live = Live(seed)
        live.take(store(0, type=GRE)[0])
        live.drop()
        assert live.settle() == []
