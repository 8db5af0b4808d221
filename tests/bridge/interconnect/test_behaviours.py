"""Counting, enumerating and sampling agree: with closed counts, with trying everything, and with one another."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore.invariants import holds
from pyvfio_user.bridge.interconnect.behaviours import Behaviour, Behaviours, behaviours
from pyvfio_user.bridge.interconnect.effects import Effect, Model
from pyvfio_user.bridge.interconnect.invariants import arrives_before, final_image, in_one_block, never_arrives
from pyvfio_user.bridge.interconnect.program import (
    Part,
    Program,
    burst,
    dmb,
    dsb,
    load,
    on_vcpu,
    pair,
    pattern,
    ram_load,
    ram_store,
    speculative,
    store,
)
from pyvfio_user.bridge.interconnect.rules import NON_REORDERING, NOT_GATHERING, RULES, Rules, in_program_order
from pyvfio_user.bridge.stream import Domain, Flag

from .naive import FULL, LD, RAM, ST, Access, Fence, Naive

EIGHT = {NGNRNE: 1, NGNRE: 1, NGRE: 40_320, GRE: 545_835, NORMAL_NC: 545_835}
FOUR_AND_FOUR = {NGNRNE: 1, NGNRE: 1, NGRE: 576, GRE: 5_625, NORMAL_NC: 5_625}


@pytest.mark.parametrize(("kind", "count"), EIGHT.items(), ids=str)
def test_eight_stores_to_one_line(kind: MemoryType, count: int) -> None:
    found = behaviours(Program.of(burst(0x40, type=kind)))
    assert found.count == count
    assert found.check([]).count == count


@pytest.mark.parametrize(("kind", "count"), FOUR_AND_FOUR.items(), ids=str)
def test_dmb_st_after_the_fourth(kind: MemoryType, count: int) -> None:
    found = behaviours(Program.of(burst(0x40, 32, type=kind), dmb("st"), burst(0x60, 32, type=kind)))
    assert found.count == count
    assert len(set(found)) == count


FENCES = st.builds(Fence, dsb=st.booleans(), waits=st.sampled_from([FULL, LD, ST]))
SOMETIMES = st.sampled_from([False, False, False, True])
PLACES = [(0, 0), (0, 0), (0, 4), (0, 8), (0, 16), (0, 0xFF8), (0, 0x1000), (1, 0), (RAM, 0)]


@st.composite
def access(draw: st.DrawFn) -> Access:
    """Anything that there may be."""
    place, offset = draw(st.sampled_from(PLACES))
    return Access(
        write=draw(st.booleans()),
        offset=offset,
        size=draw(st.sampled_from([4, 8] if offset % 8 == 0 else [4])),
        type=draw(st.sampled_from(["00", "04", "08", "0c", "44", "44", "05", "0d", "40"])),
        place=place,
        pair=draw(SOMETIMES),
        acquire=draw(SOMETIMES),
        rcpc=draw(SOMETIMES),
        release=draw(SOMETIMES),
        fence=draw(st.one_of(st.none(), st.none(), FENCES)),
    )


ACCESSES = st.lists(access(), max_size=5).map(tuple).filter(lambda found: sum(1 + each.pair for each in found) <= 5)
OPTIONS = {FULL: "osh", LD: "ld", ST: "oshst"}


def part(each: Access) -> Part:
    """The same access for what is tested."""
    make = store if each.write else load
    order = Flag.RELEASE if each.write and each.release else Flag.NONE
    if not each.write:
        order |= (Flag.ACQUIRE if each.acquire else Flag.NONE) | (Flag.ACQUIRE_PC if each.rcpc else Flag.NONE)
    if each.place == RAM:
        made = make(each.offset, each.size, type=NORMAL_WB, bar=None, peripheral=None, flags=order)
    else:
        made = make(each.offset, each.size, type=MemoryType.parse(each.type), peripheral=8 * each.place, flags=order)
    return pair(made) if each.pair else made


def program(accesses: tuple[Access, ...]) -> Program:
    """Likewise; where there is no barrier there is one that does not count."""
    parts: list[Part] = []
    for each in accesses:
        make = dsb if each.fence and each.fence.dsb else dmb
        parts += [make(OPTIONS[each.fence.waits] if each.fence else "ish"), part(each)]
    return Program.of(*parts)


def disagrees(accesses: tuple[Access, ...], rules: Rules = RULES) -> bool:
    """Whether what is found is not what trying everything finds."""
    return sorted(behaviours(program(accesses), rules)) != sorted(Naive(accesses).behaviours())


@settings(deadline=None)
@given(ACCESSES)
def test_all_that_trying_everything_finds(accesses: tuple[Access, ...]) -> None:
    found = behaviours(program(accesses))
    expected = sorted(Naive(accesses).behaviours())
    assert sorted(found) == expected
    assert found.count == len(expected)
    assert found.check([]).count == len(expected)
    assert found.sample(0) in expected


@settings(deadline=None)
@given(ACCESSES, st.integers(0, 31), st.integers(0, 31))
def test_c_and_python_say_the_same_of_an_invariant(accesses: tuple[Access, ...], first: int, second: int) -> None:
    found = behaviours(program(accesses))
    every = (1 << len(found.effects)) - 1
    invariants = [
        arrives_before(first & every, second & every), in_one_block(first & every), never_arrives(first & every)
    ]  # fmt: skip
    broken = [sum(not holds(each, found.effects, behaviour) for behaviour in found) for each in invariants]
    assert found.check(invariants).broken == tuple(broken)


def known(behaviour: Behaviour, passive: int) -> tuple[tuple[int, int], ...]:
    """What a device can tell of a behaviour that looks at all but the passive effects."""
    seen, arrived = [], 0
    for block in behaviour:
        if block & ~passive:
            seen.append((arrived & passive, block))
        arrived |= block
    return (*seen, (arrived & passive, 0))


@settings(deadline=None)
@given(ACCESSES, st.integers(0, 31))
def test_reduction_keeps_one_of_each_class(accesses: tuple[Access, ...], chosen: int) -> None:
    found = behaviours(program(accesses), passive=lambda effect: bool(chosen & effect.bit))
    assert found.passive & ~chosen == 0
    every = set(found)
    reduced = list(found.reduced())
    assert every.issuperset(reduced)
    classes = {known(behaviour, found.passive) for behaviour in every}
    assert Counter(known(behaviour, found.passive) for behaviour in reduced) == Counter(classes)
    assert found.reduced_count == len(classes)


def test_a_payload_that_nobody_looks_at_before_the_doorbell() -> None:
    parts = (burst(0x40, type=NORMAL_NC), store(0x1000, 4, type=NGNRE))

    def payload(effect: Effect) -> bool:
        return effect.offset < 0x1000

    found = behaviours(Program.of(*parts), passive=payload)
    # The doorbell stands before, between or behind the k blocks of the payload: the sum over (k + 1) k! S(8, k).
    assert (found.count, found.reduced_count) == (3_816_548, 256)
    assert len(list(found.reduced())) == 256
    fenced = behaviours(Program.of(parts[0], dmb("oshst"), parts[1]), passive=payload)
    assert (fenced.count, fenced.reduced_count) == (545_835, 1)


def test_writes_whose_order_would_show_are_not_passive() -> None:
    merged = behaviours(Program.of(burst(0, 8), burst(0, 8)), passive=lambda effect: True)
    assert (merged.passive, merged.reduced_count) == (0b11, 1)
    raced = behaviours(Program.of(burst(0, 8), on_vcpu(1, burst(0, 8))), passive=lambda effect: True)
    assert (raced.passive, raced.reduced_count) == (0, 3)


def test_samples_are_drawn_alike_and_by_seed() -> None:
    found = behaviours(Program.of(burst(0, 24), load(0, type=NORMAL_NC)))
    every = list(found)
    draws = found.samples(1)
    drawn = Counter(next(draws) for _ in range(100 * len(every)))
    assert set(drawn) == set(every)
    assert max(abs(count - 100) for count in drawn.values()) < 50
    assert [found.sample(seed) for seed in range(9)] == [found.sample(seed) for seed in range(9)]


def test_speculative_reads_come_anywhere_or_not_at_all() -> None:
    found = behaviours(Program.of(store(0), store(8), speculative(0x40)))
    assert set(found) == {(1, 2), (4, 1, 2), (1, 4, 2), (1, 2, 4)}


def test_two_vcpus_are_independent_but_where_they_synchronise() -> None:
    """Two stores each: what a reader of two lists would count, and the message-passing shape."""
    nr = behaviours(Program.of(burst(0, 16, type=NGNRE), on_vcpu(1, burst(0x40, 16, type=NGNRE))))
    assert (nr.count, set(nr)) == (6, {b for b in nr if b.index(1) < b.index(2) and b.index(4) < b.index(8)})
    parts = (store(0, type=NORMAL_NC), dmb(), ram_store(0))
    reader = on_vcpu(1, ram_load(0), dmb(), store(8, type=NORMAL_NC))
    assert {b.index(1) < b.index(8) for b in behaviours(Program.of(*parts, reader)) if 1 in b} == {True, False}
    joined = behaviours(Program.of(*parts[:2], parts[2], reader, reads_from=[(2, 3)]))
    assert {b.index(1) < b.index(8) for b in joined} == {True}


def test_programs_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DefinitionError) as caught:
        behaviours(Program.of(burst(0, 520)))
    assert str(caught.value) == (
        "a program must have at most 64 effects to have all its behaviours found, not 65: cut it with windows()"
    )
    with pytest.raises(DefinitionError, match=r"^at most 12 effects must be optional, not 13$"):
        behaviours(Program.of(*[speculative(8 * n) for n in range(13)]))
    assert behaviours(Program.of(burst(0, 512, type=NGNRE))).count == 1
    monkeypatch.setattr(sys.modules[Behaviours.__module__], "MOST_STEPS", 6560)
    assert len(behaviours(Program.of(burst(0, 56))).sample(0)) <= 7
    with pytest.raises(DefinitionError, match=r"^a count must take at most 6560 steps: let a profile run instead$"):
        behaviours(Program.of(burst(0, 512))).sample(0)


def surjections(stores: int, blocks: int) -> int:
    """In how many ways stores can be parted into so many blocks that have an order: k! S(n, k)."""
    return sum((-1) ** (blocks - j) * comb(blocks, j) * j**stores for j in range(blocks + 1))


def test_stores_that_could_change_places_are_counted_once() -> None:
    """Sixteen 4-byte stores to one line, and a doorbell before, between or behind their k blocks."""
    sixteen, bell = burst(0x40, each=4), store(0x1000, 4, type=NGNRE)
    free = sum((k + 1) * surjections(16, k) for k in range(1, 17))
    fubini = sum(surjections(16, k) for k in range(1, 17))
    assert (behaviours(Program.of(sixteen, bell)).count, free) == (67_843_210_855_558_628, free)
    assert (behaviours(Program.of(sixteen, dmb("oshst"), bell)).count, fubini) == (5_315_654_681_981_355, fubini)


def test_what_is_in_order_with_others_does_not_change_places() -> None:
    """A load of the last store's bytes, then DMB, then the doorbell: the last store is no twin of the others.

    It is in the j-th of k blocks as often as in any other; the load, then the doorbell, are behind that one. Or it is
    answered by the store, and the doorbell is free.
    """
    parts = (burst(0x40), load(0x78, type=NORMAL_NC), dmb("oshld"), store(0x1000, 4, type=NGNRE))
    read = sum(surjections(8, k) // k * sum(m * (m + 1) // 2 for m in range(1, k + 1)) for k in range(1, 9))
    assert read == 5_191_709
    assert behaviours(Program.of(*parts)).count == 3_816_548 + read


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ((store(0, 4), store(4, 4), load(0)), 6),  # three orders of the stores, with the load behind both or without it
        ((store(0, 2), store(2, 2), load(0)), 3),  # bytes 4 to 7 are the device's alone
        ((store(0, 4), dmb(), store(4, 4), load(0)), 1),  # the load must be behind the first store
        ((store(0, 4), dmb("st"), store(4, 4), load(0)), 2),
    ],
    ids=["both", "a part", "ordered", "stores ordered"],
)
def test_stores_that_have_all_bytes_of_a_load_answer_it_together(parts: tuple[Part, ...], count: int) -> None:
    """A write buffer answers a load with what it holds (DDI 0487 B2.10.1), however many stores that came from."""
    program = Program.of(*parts)
    assert behaviours(replace(program, events=tuple(e._replace(type=NORMAL_NC) for e in program.events))).count == count


def test_a_load_from_memory_behind_dsb_st_is_not_answered_by_the_store_before_it() -> None:
    """DSB ST completes the store before any load behind it (B2.3.4); what is Normal Non-cacheable goes by DMB alone."""
    parts = (ram_store(0), dsb("st"), ram_load(8), dmb("ld"), ram_load(0))
    assert list(behaviours(Program.of(*parts))) == [(1, 2, 4)]
    program = Program.of(store(0), dsb("st"), load(8), dmb("ld"), load(0))
    program = replace(program, events=tuple(e._replace(type=NORMAL_NC) for e in program.events))
    assert set(behaviours(program)) == {(1, 2, 4), (2, 1, 4), (1, 2), (2, 1)}


def test_large_programs_that_are_ordered_are_counted() -> None:
    lines = [part for n in range(8) for part in (burst(64 * n), dmb("st"))]
    assert behaviours(Program.of(*lines)).count == 545_835**8


def test_nothing_at_all_is_one_behaviour() -> None:
    found = behaviours(Program.of(dmb()))
    assert (found.count, list(found), list(found.reduced()), found.sample(0)) == (1, [()], [()], ())
    only = behaviours(Program.of(speculative(0)))
    assert list(only) == [(1,), ()]


def test_invariants_in_all_behaviours() -> None:
    parts = (burst(0x40, 16), store(0x1000, 4))
    before, whole = arrives_before(0b011, 0b100, "payload first"), in_one_block(0b011)
    found = behaviours(Program.of(*parts)).check([before, whole])
    assert (found.count, found.complete, found.passed) == (8, True, False)
    assert found.broken == (5, 6)
    assert found.witnesses == ((1, 4, 2), (1, 2, 4))
    fenced = behaviours(Program.of(parts[0], dmb("oshst"), parts[1])).check([before, whole])
    assert (fenced.broken, fenced.witnesses) == ((0, 2), (None, (1, 2, 4)))
    assert str(before) == "payload first"


def test_a_read_that_must_not_be() -> None:
    found = behaviours(Program.of(store(0), speculative(0x40))).check([never_arrives(0b10)])
    assert (found.count, found.broken) == (3, (2,))


def test_the_image_in_the_end() -> None:
    data = pattern(0x40, 16)
    right, wrong = final_image(0x40, data), final_image(0x40, data[:15] + b"x")
    found = behaviours(Program.of(burst(0x40, 16), store(0x1000)))
    assert found.check([right]).passed
    assert found.check([wrong]).broken == (found.count,)
    again = Program.of(store(0x44, 4, 1, type=NORMAL_NC), store(0x40, data=0, type=NORMAL_NC))
    assert behaviours(again).check([final_image(0x40, bytes(8))]).passed
    raced = Program.of(store(0x40, data=1), on_vcpu(1, store(0x40, data=2)))
    assert behaviours(raced).check([final_image(0x40, (2).to_bytes(8, "little"))]).broken == (1,)
    with pytest.raises(DefinitionError, match=r"^there must be at most one final image, not 2$"):
        found.check([right, wrong])
    with pytest.raises(DefinitionError, match=r"^expected must be 1 to 4096 bytes, not 0$"):
        final_image(0, b"")
    unknown = Program.of(store(0x40, flags=Flag.NO_DATA))
    with pytest.raises(DefinitionError, match=r"^data of all stores to the image must be known"):
        behaviours(unknown).check([right])


def test_a_check_can_be_limited() -> None:
    found = behaviours(Program.of(burst(0x40), load(0x40, type=NORMAL_NC)))
    assert found.check([], limit=1000) == found.check([], limit=1000)
    assert (found.check([], limit=1000).count, found.check([], limit=1000).complete) == (1000, False)


def test_a_reduced_check() -> None:
    found = behaviours(
        Program.of(burst(0x40), dmb("st"), store(0x1000, 4)), passive=lambda effect: effect.offset < 0x1000
    )
    checked = found.check([arrives_before(0xFF, 0x100)], reduced=True)
    assert (checked.count, checked.passed, checked.complete) == (1, True, True)


def test_ram_is_not_gathered() -> None:
    assert set(behaviours(Program.of(ram_store(0), ram_store(8)))) == {(1, 2), (2, 1)}


NC_NC = (Access(True, 0, 8, "44"), Access(True, 8, 8, "44"))

WEAKENED = {
    "barrier": (Access(True, 0, 8, "44"), Access(True, 8, 8, "44", fence=Fence(False, ST))),
    "non-reordering": (Access(True, 0, 8, "04"), Access(True, 8, 8, "00")),
    "acquire": (Access(False, 0, 8, "44", acquire=True), Access(True, 8, 8, "44")),
    "release": (Access(True, 0, 8, "44"), Access(True, 8, 8, "44", release=True)),
    "release-acquire": (Access(True, 0, 8, "44", release=True), Access(False, 8, 8, "44", acquire=True)),
    "same-location": (Access(True, 0, 8, "08"), Access(True, 0, 8, "08")),
    "not-gathering": (Access(True, 0, 8, "08"), Access(True, 8, 8, "08")),
    "different-kinds": (Access(True, 0, 8, "44"), Access(False, 8, 8, "44")),
    "forwarded": (Access(True, 0, 8, "44"), Access(False, 0, 8, "44")),
}


@pytest.mark.parametrize("name", WEAKENED)
def test_a_rule_left_out_is_caught(name: str) -> None:
    assert not disagrees(WEAKENED[name])
    assert disagrees(WEAKENED[name], RULES.replaced(name))


STRENGTHENED = {
    "inner-shareable barriers order at a device": RULES.with_model(Model(domains=frozenset(Domain))),
    "reordering types keep program order": RULES.replaced(
        "non-reordering", replace(NON_REORDERING, holds=lambda first, second, facts: in_program_order(first, second))
    ),
    "nothing is ever gathered": RULES.replaced(
        "not-gathering", replace(NOT_GATHERING, holds=lambda first, second, facts: True)
    ),
}


@pytest.mark.parametrize("name", STRENGTHENED)
def test_a_rule_that_promises_too_much_is_caught(name: str) -> None:
    assert not disagrees(NC_NC)
    assert disagrees(NC_NC, STRENGTHENED[name])
