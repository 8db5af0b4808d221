"""Fixes and cards: the cheapest change first, each with the rule that it rests on."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, MemoryType
from pyvfio_user.bridge.explore import LitmusFailure, Where, arrives_before, explore, in_one_block
from pyvfio_user.bridge.explore.card import HONESTY
from pyvfio_user.bridge.interconnect import (
    RULES,
    Model,
    Part,
    Program,
    burst,
    dgh,
    dmb,
    dsb,
    ldar,
    load,
    on_vcpu,
    pair,
    ram_store,
    stlr,
    store,
)

from .drivers import Sender, send

FIRST, SECOND = Where(0, 8), Where(0x1000, 8)
ORDERED = arrives_before(FIRST, SECOND, "first before second")
PAGES = RULES.with_model(Model(peripheral_size=4096))

CARD = """\
litmus card: the entry is whole when the doorbell rings
program  0  store bar0+0x40 8 = 0x4847464544434241  Normal-NC  may be gathered, reordered
         1  store bar0+0x48 8 = 0x504f4e4d4c4b4a49  Normal-NC  may be gathered, reordered
         2  dmb ishst                                          orders nothing at a device, which is Outer Shareable [M] B2.10
         3  store bar0+0x1000 4 = 0x1               nGnRnE     one by one, in order with its like
arrived  0: W bar0+0x40 8
         3: W bar0+0x1000 4
         1: W bar0+0x48 8
missing  1 before 3: nGnRnE is in order with its like, not with Normal-NC; no barrier that counts is between [A] B2.10.2.2
fixes    dmb oshst instead of dmb ishst, event 2 (all 3 legal behaviours)
             by barrier [A] B2.4.1.1 (c), B2.3.12 DMB, DSB
         a store-release for event 3, the store at bar0+0x1000 (all 3 legal behaviours)
             by release [A] B2.4.1.1 (c), B2.3.12 Store-Release
         type nGnRE for bar0+0x0, its whole page (the one legal behaviour)
             by non-reordering [A] B2.4.1.1 (a)
counted  all 8 legal behaviours: 5 break “the entry is whole when the doorbell rings”
         seed 0
notes    Modelled, not seen: the specifications permit this order; that some hardware does it is not said here.
         [A]: Arm architecture, DDI 0487; [P]: PCI Express Base Specification; [M]: a choice of this model."""  # noqa: E501


def test_the_card_as_text() -> None:
    found = explore(send(dmb("ishst")), Sender)
    assert str(found.card) == CARD


def test_a_failed_assertion_says_it_all() -> None:
    with pytest.raises(LitmusFailure) as caught:
        explore(send(dmb("ishst")), Sender).assert_holds()
    assert isinstance(caught.value, AssertionError)
    assert str(caught.value) == CARD
    assert caught.value.card.astray == {"1", "3"}
    assert (caught.value.card.made, caught.value.card.blocks) == (("0", "1", "3"), (("0",), ("3",), ("1",)))
    assert CARD.endswith("\n         ".join(HONESTY))


def proposals(program: Program, *, rules: object = RULES) -> list[str]:
    return [fix.what for fix in explore(program, invariants=[ORDERED], rules=rules).fixes]  # type: ignore[arg-type]


def test_a_card_says_what_orders_an_access_by_itself() -> None:
    program = Program.of(stlr(0, type=NORMAL_NC), ldar(8, type=GRE), pair(store(0x1000, type=NGRE)))
    found = explore(program, invariants=[arrives_before(SECOND, FIRST)])
    assert found.card is not None
    assert [line.what for line in found.card.program] == [
        "store-release bar0+0x0 8 = 0x807060504030201",
        "load-acquire bar0+0x8 8",
        "pair store bar0+0x1000 8 = 0x807060504030201",
    ]


class TestProposals:
    def test_a_load_needs_more_than_a_store_barrier(self) -> None:
        assert proposals(Program.of(load(0, type=NORMAL_NC), store(0x1000, type=NGNRE))) == [
            "a store-release for event 1, the store at bar0+0x1000",
            "dmb oshld before event 1, the store at bar0+0x1000",
            "type nGnRE for bar0+0x0, its whole page",
        ]

    def test_between_peripherals_only_a_read_back_helps(self) -> None:
        program = Program.of(store(0, type=NGNRE), store(0x1000, type=NGNRE))
        assert proposals(program) == []
        assert proposals(program, rules=PAGES) == [
            "a read-back of bar0+0x0, then dsb osh, before event 1, the store at bar0+0x1000"
        ]

    @pytest.mark.parametrize("barrier", [dmb("osh"), dsb("osh"), dsb()])
    @pytest.mark.parametrize("kind", [NGNRNE, NGNRE, NORMAL_NC])
    def test_a_dsb_does_not_mean_that_a_posted_write_is_there(self, kind: MemoryType, barrier: Part) -> None:
        """A driver that tells others in RAM that the device is stopped: only a read-back proves it."""
        stopped = arrives_before(FIRST, Where(0x4000, 8, bar=None))
        program = Program.of(store(0, type=kind), barrier, ram_store(0x4000))
        found = explore(program, invariants=[stopped])
        assert (found.count, found.broken) == (2, {stopped.name: 1})
        assert found.card is not None
        assert found.card.missing == (
            "0 before 2: no barrier waits until a posted write has arrived; only a read-back does [A] B2.10.2.3",
        )
        assert [fix.what for fix in found.fixes] == ["a read-back of bar0+0x0, then dsb osh, before event 2, in RAM"]
        explore(found.fixes[0].program, invariants=[stopped]).assert_holds()

    def test_memory_before_a_doorbell(self) -> None:
        program = Program.of(ram_store(0), dmb("ishst"), store(0x1000, type=NGNRE))
        found = explore(program, invariants=[arrives_before(Where(0, 8, bar=None), SECOND)])
        assert [fix.what for fix in found.fixes] == [
            "dmb oshst instead of dmb ishst, event 1",
            "a store-release for event 2, the store at bar0+0x1000",
        ]

    def test_the_barrier_has_one_place_in_a_burst(self) -> None:
        program = Program.of(burst(0, 64), store(0x1000, type=NGNRNE))
        found = explore(program, invariants=[arrives_before(Where(0, 64), SECOND)])
        assert [(fix.what, fix.extent) for fix in found.fixes] == [
            ("dmb oshst before event 8, the store at bar0+0x1000", "all 545,835 legal behaviours"),
            ("a store-release for event 8, the store at bar0+0x1000", "all 545,835 legal behaviours"),
            ("type nGnRE for bar0+0x0, its whole page", "the one legal behaviour"),
        ]

    def test_the_loosest_type_that_is_enough(self) -> None:
        program = Program.of(store(0, type=NORMAL_NC), store(0, type=NORMAL_NC), store(0x1000, type=NGRE))
        apart = arrives_before(Where(0x1000, 8), Where(0x2000, 8))
        assert explore(program, invariants=[apart]).passed

    def test_what_mends_only_the_part_that_is_shown_is_none(self) -> None:
        """A barrier before the first doorbell leaves the second one as it was; another type is for both."""
        again = arrives_before(Where(0x40, 8), Where(0x1008, 8))
        entries = [store(0, type=NORMAL_NC), store(0x1000), store(0x40, type=NORMAL_NC), store(0x1008)]
        found = explore(Program.of(*entries), invariants=[ORDERED, again])
        assert found.shrunk.positions == (0, 1)
        assert [fix.what for fix in found.fixes] == ["type nGnRE for bar0+0x0, its whole page"]

    def test_nothing_comes_between_the_elements_of_one_instruction(self) -> None:
        """Not even a type orders them (DDI 0487, B2.10.2.4)."""
        halves = arrives_before(Where(0, 8), Where(8, 8))
        found = explore(Program.of(pair(store(0, type=NGNRE))), invariants=[halves])
        assert not found.passed
        assert found.fixes == ()

    def test_nothing_makes_a_burst_one(self) -> None:
        found = explore(Program.of(burst(0, 16)), invariants=[in_one_block(Where(0, 16))])
        assert found.fixes == () and not found.expected
        assert found.card is not None
        assert found.card.fixes == ("no single barrier, release, read-back or memory type is enough",)

    def test_another_vcpu_is_not_ordered_by_this_one(self) -> None:
        program = Program.of(store(0, type=NGNRE), on_vcpu(1, store(0x1000, type=NGNRE)))
        found = explore(program, invariants=[ORDERED])
        assert found.fixes == ()
        assert found.card is not None
        assert found.card.program[0].what == "vCPU 0: store bar0+0x0 8 = 0x807060504030201"
        assert found.card.missing == ("0 before 1: nothing orders two vCPUs but what one of them waits for [A] B2.3",)


class Once:
    """What is at 0x40 must be there when the doorbell rings: whoever stored it."""

    def __init__(self) -> None:
        self.there = False

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        assert self.there or offset != 0x1000, "the entry is there when the doorbell rings"
        self.there |= offset == 0x40

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        return bytes(size)


def test_a_barrier_may_help_by_an_access_that_the_shrunk_program_is_without() -> None:
    """Two aliases of one place: with the DMB between them the first store is before all that follows, and is enough."""
    program = Program.of(store(0x40, type=NGNRE), store(0x40, type=NGRE), store(0x1000, 4, type=NGNRE))
    found = explore(program, Once)
    assert found.shrunk.positions == (1, 2)
    assert [fix.what for fix in found.fixes if fix.what.startswith("dmb")] == [
        "dmb oshst before event 1, the store at bar0+0x40",
        "dmb oshst before event 2, the store at bar0+0x1000",
    ]


def test_a_barrier_goes_behind_a_hint() -> None:
    program = Program.of(burst(0x40, 16), dgh(), store(0x1000, 4, 1, type=NGNRNE))
    (barrier, *_) = explore(program, Sender).fixes
    assert barrier.what == "dmb oshst before event 3, the store at bar0+0x1000"
    assert not any("event 2" in fix.what for fix in explore(program, Sender).fixes)
