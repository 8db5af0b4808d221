"""What the device sends: writes to RAM, interrupts, completions; each in the order that PCIe 2.4.1 promises, and RO."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore import Explored, Outcome, Property, explore
from pyvfio_user.bridge.interconnect import (
    RULES,
    Order,
    Part,
    Program,
    Rules,
    behaviours,
    dma_write,
    dmb,
    dsb,
    load,
    msi,
    on_vcpu,
    ram_load,
    store,
)

DATA, FLAG, STATUS, DOORBELL = 0x4000_0000, 0x4000_0040, 0x10, 0x20
RELAXED = RULES.relaxed()
"""With Relaxed Ordering in the device's requests: the link keeps their order no more."""


class Nothing:
    """A device of which nothing matters here."""

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        pass

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        return bytes(size)


def _fresh(outcome: Outcome) -> bool:
    last = max(outcome.loads)
    return outcome.loads[last] == (7).to_bytes(8, "little")


FRESH = Property("the driver gets the data that the device announced", _fresh)
SENT = dma_write(DATA, 8, 7)
READ = ram_load(DATA)


def polled(*between: Part) -> Program:
    """The device writes data and then a flag; the driver that saw the flag reads the data."""
    return Program.of(SENT, dma_write(FLAG, 8, 1), ram_load(FLAG), *between, READ, reads_from=[(1, 2)])


def told(*between: Part) -> Program:
    """The device writes data; the driver that reads in a register that it did reads the data."""
    return Program.of(SENT, load(STATUS, 4), *between, READ, reads_from=[(0, 1)])


def interrupted() -> Program:
    """The device writes data and interrupts; the handler reads the data."""
    return Program.of(SENT, msi(), READ, reads_from=[(1, 2)])


def explored(program: Program, rules: Rules = RULES) -> Explored:
    found = explore(program, Nothing, [FRESH], rules=rules)
    assert found.complete
    return found


def fixes(program: Program) -> Sequence[str]:
    return [fix.what for fix in explored(program).fixes]


@pytest.mark.parametrize("barrier", [dmb("oshld"), dmb("ld"), dmb("osh"), dsb("ld"), dsb()])
@pytest.mark.parametrize("program", [polled, told])
def test_a_driver_with_the_barrier_gets_what_was_announced(program: object, barrier: Part) -> None:
    explored(program(barrier)).assert_holds()  # type: ignore[operator]


@pytest.mark.parametrize("barrier", [(), dmb("oshst"), dmb("ishld"), dsb("st")])
@pytest.mark.parametrize("program", [polled, told])
def test_a_driver_without_it_may_not(program: object, barrier: Part) -> None:
    """Linux has dma_rmb for the one, and readl's own barrier for the other."""
    assert not explored(program(barrier)).passed  # type: ignore[operator]


def test_the_barrier_is_what_is_proposed() -> None:
    assert fixes(polled()) == ["dmb oshld before event 3, in RAM"]
    assert fixes(told()) == ["dmb oshld before event 2, in RAM"]


def test_an_interrupt_pushes_the_writes_before_it() -> None:
    explored(interrupted()).assert_holds()
    order = Order(interrupted())
    assert [str(edge.rule) for edge in order.explain(0, 2)] == ["memory-first [A] B2.3.4, the device's DMA as observer"]
    assert [str(edge.rule) for edge in order.explain(0, 1)] == [
        "posted [P] PCIe 2.4.1: no posted write passes another but with RO"
    ]


@pytest.mark.parametrize("program", [polled(dmb("oshld")), interrupted()])
def test_with_relaxed_ordering_they_pass_each_other(program: Program) -> None:
    """And the result says what it needs; no barrier of the driver's helps."""
    found = explored(program, RELAXED)
    assert not found.passed and found.fixes == ()
    assert found.card is not None
    assert "Needs RO: the device's posted writes pass each other only with Relaxed Ordering set [P] 2.4.1." in (
        found.card.notes
    )


def test_the_card_of_a_register_that_is_believed_too_early() -> None:
    card = explored(told()).card
    assert card is not None
    assert [(line.what, line.type, line.note) for line in card.program] == [
        ("device: store ram+0x40000000 8 = 0x7", "posted", "one by one, in order [P] 2.4.1"),
        ("vCPU 0: load bar0+0x10 4", "nGnRE", "one by one, in order with its like"),
        ("vCPU 0: load ram+0x40000000 8", "Normal Write-Back", "may be gathered, reordered, speculated"),
    ]
    assert card.missing == (
        "0 before 2: the device's write may still be on its way; nothing that comes behind it is waited for [P] 2.4.1",
    )


def test_a_completion_pushes_even_then_its_own_write_alone() -> None:
    """The register's value comes behind the write that it is paired with; an earlier one may still be on its way."""
    two = Program.of(SENT, dma_write(FLAG, 8, 1), load(STATUS, 4), dmb("ld"), READ, reads_from=[(1, 2)])
    assert explored(two).passed
    assert not explored(two, RELAXED).passed


def test_a_completion_that_comes_behind_says_nothing_of_when_the_load_arrived() -> None:
    assert behaviours(Program.of(SENT, load(STATUS, 4), reads_from=[(0, 1)])).count == 2


def test_an_interrupt_that_nobody_took_orders_nothing() -> None:
    assert not explored(Program.of(SENT, msi(), READ)).passed


def test_it_is_the_handler_s_vcpu_that_is_behind_it() -> None:
    other = Program.of(SENT, msi(), on_vcpu(1, READ), READ, reads_from=[(1, 2)])
    order = Order(other)
    assert order.arrives_before(0, 2)
    assert not order.arrives_before(0, 3)


def test_what_the_device_sends_because_of_a_doorbell_is_behind_it() -> None:
    program = Program.of(store(DOORBELL, 4, 1), dma_write(FLAG, 8, 1), ram_load(FLAG), reads_from=[(0, 1), (1, 2)])
    order = Order(program)
    assert [edge.rule.name for edge in order.explain(0, 1)] == ["caused"]
    assert order.arrives_before(0, 2)


def test_pairs_that_cannot_be() -> None:
    with pytest.raises(DefinitionError, match=r"^reads_from must pair a store with a load, not STORE with STORE$"):
        Program.of(store(0), on_vcpu(1, store(8)), reads_from=[(0, 1)])
