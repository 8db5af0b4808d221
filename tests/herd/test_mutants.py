"""A rule that is left out, weakened or strengthened is caught: by herd7, or where that knows nothing, by counts.

Gathering, boundaries and what PCIe answers have no oracle in herd7: for them programs are counted whose number of legal
behaviours is known from the specification alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import factorial

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NGNRNE, NGRE, NORMAL_NC
from pyvfio_user.bridge.interconnect import (
    Program,
    behaviours,
    burst,
    dma_write,
    dmb,
    dsb,
    load,
    msi,
    on_vcpu,
    ram_store,
    store,
)
from pyvfio_user.bridge.interconnect.effects import DEFAULT_MODEL, Effect
from pyvfio_user.bridge.interconnect.rules import RULES, Facts, Holds, Rule, Rules, in_program_order
from pyvfio_user.bridge.stream import BAR_CONFIG, BarrierKind, Domain, Flag

from .differences import REASONS
from .litmus import RAM, Litmus, Outcome
from .outcomes import outcomes
from .programs import programs, typed_programs

HALVES = burst(0, 32), burst(32, 32)
COUNTS: Mapping[str, tuple[Program, int]] = {
    "eight stores, nGnRE": (Program.of(burst(0, type=NGNRE)), 1),
    "eight stores, nGRE": (Program.of(burst(0, type=NGRE)), factorial(8)),
    "eight stores, NC": (Program.of(burst(0)), 545_835),
    "DMB ST after the fourth, nGRE": (Program.of(burst(0, 32, type=NGRE), dmb("st"), burst(32, 32, type=NGRE)), 576),
    "DMB ST after the fourth, NC": (Program.of(HALVES[0], dmb("st"), HALVES[1]), 75 * 75),
    "a store and a load": (Program.of(store(0, type=NORMAL_NC), load(8, type=NORMAL_NC)), 2),
    "two functions": (Program.of(store(0, type=NORMAL_NC), store(8, type=NORMAL_NC, peripheral=8)), 2),
    "a page's end": (Program.of(store(0xFF8, type=NORMAL_NC), store(0x1000, type=NORMAL_NC)), 2),
    "memory": (Program.of(ram_store(0), ram_store(8)), 2),
    "a read back": (Program.of(load(0), dsb(), store(0, peripheral=8)), 1),
    "a write of configuration space": (
        Program.of(store(4, 4, bar=BAR_CONFIG, type=NGNRNE), dsb(), store(0, peripheral=8)), 1
    ),
    "two writes of the device": (Program.of(dma_write(0), dma_write(8)), 1),
    "an interrupt and its handler": (Program.of(msi(), store(0), store(8), reads_from=[(0, 1)]), 1),
    "an interrupt and another CPU": (Program.of(msi(), on_vcpu(1, store(0)), store(8), reads_from=[(0, 2)]), 3),
    "a doorbell and what it causes": (Program.of(store(0), dma_write(0), reads_from=[(0, 1)]), 1),
    "a register and what it tells of": (Program.of(dma_write(0), load(0), reads_from=[(0, 1)]), 2),
    "two functions and a DSB": (Program.of(store(0), dsb(), store(0, peripheral=8)), 2),
}  # fmt: skip

Judged = list[tuple[Litmus, str, frozenset[Outcome], bool]]
"""Programs, the type that they are run with, herd7's outcomes, and whether the rules as they are agree."""


@pytest.fixture(scope="module")
def judged(stock: Mapping[str, frozenset[Outcome]], arrival: Mapping[str, frozenset[Outcome]]) -> Judged:
    """All comparisons. Those of typed programs are first: they see most."""
    rows = [(each, RAM, arrival[each.name]) for each in typed_programs()]
    rows += [(each, kind, stock[each.name]) for kind in (RAM, "nGRE", "NC") for each in programs()]
    return [(each, kind, herd, outcomes(each, kind) == herd) for each, kind, herd in rows]


def by_herd(rules: Rules, judged: Judged) -> bool:
    """Whether these rules are found out by a program of which the verdict differs."""
    return any((outcomes(each, kind, rules) == herd) != agree for each, kind, herd, agree in judged)


def by_counts(rules: Rules) -> bool:
    """Whether these rules are found out by a number of behaviours."""
    return any(behaviours(program, rules).count != count for program, count in COUNTS.values())


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    program, count = COUNTS[name]
    assert behaviours(program).count == count


COUNTED = {
    *("different-kinds", "not-gathering", "different-places", "crossing", "in-memory"),
    *("read-back", "configuration-write", "posted", "interrupted", "caused"),
}
"""The rules that only counts can see."""


@pytest.mark.parametrize("name", [rule.name for rule in RULES.all()])
def test_a_rule_that_is_left_out_is_caught(name: str, judged: Judged) -> None:
    rules = RULES.replaced(name)
    if name in COUNTED:
        assert by_counts(rules)
    else:
        assert by_herd(rules, judged)


def changed(name: str, holds: Callable[[Rule], Holds]) -> Rules:
    """The rules with another condition for the rule of this name, made of the rule."""
    (rule,) = (rule for rule in RULES.all() if rule.name == name)
    return RULES.replaced(name, replace(rule, holds=holds(rule)))


def also(name: str, holds: Holds) -> Rules:
    """The rule holds in more cases."""
    return changed(name, lambda rule: lambda a, b, facts: rule.holds(a, b, facts) or holds(a, b, facts))


def unless(name: str, holds: Holds) -> Rules:
    """The rule holds in fewer cases."""
    return changed(name, lambda rule: lambda a, b, facts: rule.holds(a, b, facts) and not holds(a, b, facts))


def _dmb_st(first: Effect, second: Effect, facts: Facts) -> bool:
    """As if DMB ST ordered a load that comes after it."""
    as_store = replace(second, op=first.op)
    return first.writes and facts.fenced(first, as_store, BarrierKind.DMB)


@pytest.mark.parametrize("name", [rule.name for rule in RULES.all()])
def test_a_rule_that_always_holds_is_caught(name: str, judged: Judged) -> None:
    """The other direction: of what is in program order, and by what is made, nothing is left free."""
    rules = also(name, lambda a, b, facts: in_program_order(a, b))
    assert by_counts(rules)
    assert name in COUNTED or by_herd(rules, judged)


MUTANTS: Mapping[str, Rules] = {
    "DMB ST orders later loads": also("barrier", _dmb_st),
    "a DMB does not order loads": unless("barrier", lambda a, b, facts: a.reads),
    "a DMB does not order a store and a load": unless("barrier", lambda a, b, facts: a.writes and b.reads),
    "DSB ST is as weak as DMB ST": unless("dsb-ordered", lambda a, b, facts: a.writes and b.reads),
    "all domains are one": RULES.with_model(replace(DEFAULT_MODEL, domains=frozenset(Domain))),
    "no domain but the full system": RULES.with_model(replace(DEFAULT_MODEL, domains=frozenset({Domain.SY}))),
    "an acquire orders what is before it": also(
        "acquire", lambda a, b, facts: bool(b.event.flags & Flag.ACQUIRE) and in_program_order(a, b)
    ),
    "LDAPR does not acquire": unless("acquire", lambda a, b, facts: bool(a.event.flags & Flag.ACQUIRE_PC)),
    "an acquire orders only stores": unless("acquire", lambda a, b, facts: b.writes),
    "a release orders what is behind it": also(
        "release", lambda a, b, facts: bool(a.event.flags & Flag.RELEASE) and in_program_order(a, b)
    ),
    "a release does not order loads": unless("release", lambda a, b, facts: a.reads),
    "a release orders a later LDAPR": also(
        "release-acquire",
        lambda a, b, facts: (
            bool(a.event.flags & Flag.RELEASE and b.event.flags & Flag.ACQUIRE_PC) and in_program_order(a, b)
        ),
    ),
    "every load is depended on": also("dependency", lambda a, b, facts: a.reads and in_program_order(a, b)),
    "a load does not depend": unless("dependency", lambda a, b, facts: b.reads),
    "nGRE does not reorder": also("non-reordering", lambda a, b, facts: not a.gathering and in_program_order(a, b)),
    "Device of any kind does not reorder": also(
        "non-reordering",
        lambda a, b, facts: (
            bool(a.type and b.type and a.type.is_device and b.type.is_device) and in_program_order(a, b)
        ),
    ),
    "nR orders what is R": also(
        "non-reordering",
        lambda a, b, facts: a.at_device and bool(a.type and not a.type.reordering) and in_program_order(a, b),
    ),
    "only equal types do not reorder": unless("ordered-before", lambda a, b, facts: a.type != b.type),
    "threads are all in one order": also("synchronised", lambda a, b, facts: a.vcpu != b.vcpu),
    "a place keeps the order of all locations": also(
        "same-location", lambda a, b, facts: a.at_device and b.at_device and in_program_order(a, b)
    ),
    "a load and a later store of one location swap": unless("same-location", lambda a, b, facts: a.reads and b.writes),
    "a store to memory waits for nothing": unless("memory-first", lambda a, b, facts: a.writes),
    "a doorbell is always behind its ring": also(
        "memory-first", lambda a, b, facts: a.in_ram and b.at_device and in_program_order(a, b)
    ),
    "a load of a register is always before memory": also(
        "read-then-memory", lambda a, b, facts: a.at_device and a.reads and b.in_ram and in_program_order(a, b)
    ),
    "no store to a device answers a load": unless("forwarded", lambda a, b, facts: a.at_device),
    **{f"as herd7: {reason.name}": reason.rules for reason in REASONS if not reason.without},
}
COUNTED_MUTANTS: Mapping[str, Rules] = {
    "nGRE gathers": unless("not-gathering", lambda a, b, facts: a.type == b.type == NGRE),
    "NC does not gather": also("not-gathering", lambda a, b, facts: a.type == NORMAL_NC),
    "loads gather with stores": unless("different-kinds", lambda a, b, facts: a.writes),
    "lines of 32 bytes": RULES.with_model(replace(DEFAULT_MODEL, gather_limit=32)),
    "a DSB waits for posted writes": also("read-back", lambda a, b, facts: facts.completed(a, b)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_changed_is_caught_by_herd7(name: str, judged: Judged) -> None:
    assert by_herd(MUTANTS[name], judged)


@pytest.mark.parametrize("name", COUNTED_MUTANTS)
def test_a_rule_that_is_changed_is_caught_by_a_count(name: str) -> None:
    assert by_counts(COUNTED_MUTANTS[name])


def test_the_rules_as_they_are_are_not_caught(judged: Judged) -> None:
    assert not by_herd(RULES, judged)
    assert not by_counts(RULES)
