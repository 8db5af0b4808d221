"""Each rule of arrival: what it orders, by name, and what it does not."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect.effects import Model
from pyvfio_user.bridge.interconnect.order import Order
from pyvfio_user.bridge.interconnect.program import (
    Dependency,
    DependencyKind,
    Part,
    Program,
    atomic,
    dgh,
    dma_write,
    dmb,
    dsb,
    isb,
    ldar,
    load,
    msi,
    on_vcpu,
    pair,
    ram_load,
    ram_store,
    speculative,
    st64b,
    stlr,
    store,
)
from pyvfio_user.bridge.interconnect.rules import RULES
from pyvfio_user.bridge.stream import BAR_CONFIG, Barrier, BarrierKind, Event, Flag, Kind


def nc(offset: int) -> Part:
    return store(offset, type=NORMAL_NC)


def dev(offset: int, kind: MemoryType | None = NGNRE) -> Part:
    return store(offset, type=kind)


def why(order: Order, first: int = 0, second: int = -1) -> list[str]:
    """The names of the rules by which the first effect arrives before the second, the last one by default."""
    return [edge.rule.name for edge in order.explain(first, second % len(order.effects))]


ORDERED = {
    "nR after nR": ((dev(0), dev(8)), "non-reordering"),
    "nGnRnE after nGnRE": ((dev(0), dev(8, NGNRNE)), "non-reordering"),
    "a load after a store": ((dev(0), load(8)), "non-reordering"),
    "DMB ST between NC stores": ((nc(0), dmb("st"), nc(8)), "barrier"),
    "DMB OSHST": ((nc(0), dmb("oshst"), dev(8)), "barrier"),
    "DMB LD after a load": ((load(0, type=NORMAL_NC), dmb("ld"), nc(8)), "barrier"),
    "DSB OSH": ((nc(0), dsb("osh"), load(8, type=GRE)), "barrier"),
    "DMB SY between reads": ((load(0, type=GRE), dmb(), load(8, type=GRE)), "barrier"),
    "LDAR, then anything": ((ldar(0, type=NORMAL_NC), nc(8)), "acquire"),
    "LDAPR, then anything": ((load(0, type=NORMAL_NC, flags=Flag.ACQUIRE_PC), nc(8)), "acquire"),
    "anything, then STLR": ((nc(0), stlr(8)), "release"),
    "STLR, then LDAR": ((stlr(0, type=NORMAL_NC), ldar(8, type=NORMAL_NC)), "release-acquire"),
    "an atomic after DMB ST": ((nc(0), dmb("st"), atomic(8)), "barrier"),
    "the same location, nGRE": ((dev(0, NGRE), dev(0, NGRE)), "same-location"),
    "the same location, XS apart": ((dev(0, NGRE), dev(0, MemoryType(0x09))), "same-location"),
    "a store after a load of it": ((load(0, type=NORMAL_NC), nc(0)), "same-location"),
    "a load after a store of it": ((nc(0), load(0, type=NORMAL_NC)), "same-location"),
    "bytes that overlap": ((dev(0, NGRE), store(4, 4, type=NGRE)), "same-location"),
    "a ring in RAM, then the doorbell": ((ram_store(0), dmb("oshst"), dev(0)), "memory-first"),
    "RAM, then a release doorbell": ((ram_store(0), stlr(0)), "memory-first"),
    "two stores to RAM": ((ram_store(0), dmb("oshst"), ram_store(8)), "memory-first"),
    "a flag in RAM, then what is new": ((load(0), dmb("ld"), ram_load(0)), "read-then-memory"),
    "another BAR of the function": ((store(0, bar=0), store(0, bar=2)), "non-reordering"),
    "DSB ST, then a load": ((dev(0, NGRE), dsb("st"), load(8, type=NGRE)), "ordered-before"),
    "DSB ST in RAM, then a load": ((ram_store(0), dsb("st"), ram_load(8)), "memory-first"),
    "DSB nXS for XS=0": (
        (dev(0, MemoryType(0x0D)), (Event(Kind.BARRIER, barrier=Barrier(BarrierKind.DSB_NXS, 14)),), dev(8, GRE)),
        "barrier",
    ),
}

UNORDERED = {
    "nGRE": (dev(0, NGRE), dev(8, NGRE)),
    "nR, then R": (dev(0), dev(8, GRE)),
    "payload in NC, doorbell in nGnRnE": (nc(0), dev(8, NGNRNE)),
    "nR of different XS": (dev(0), dev(8, MemoryType(0x05))),
    "DMB LD between stores": (nc(0), dmb("ld"), nc(8)),
    "DMB ST after a load": (load(0, type=NORMAL_NC), dmb("st"), nc(8)),
    "DMB ST before a load": (nc(0), dmb("st"), load(8, type=NORMAL_NC)),
    "DSB ST before a load, of a type that Ordered-before is nothing to": (nc(0), dsb("st"), load(8, type=NORMAL_NC)),
    "DSB LD before a load": (dev(0, NGRE), dsb("ld"), load(8, type=NGRE)),
    "DMB ISHST": (nc(0), dmb("ishst"), dev(8)),
    "DMB ISH": (nc(0), dmb("ish"), dev(8)),
    "DSB NSH": (nc(0), dsb("nsh"), dev(8)),
    "ISB": (nc(0), isb(), dev(8)),
    "SB": (nc(0), (Event(Kind.BARRIER, barrier=Barrier(BarrierKind.SB)),), dev(8)),
    "DGH": (nc(0), dgh(), nc(8)),
    "DSB nXS for XS=1": (nc(0), (Event(Kind.BARRIER, barrier=Barrier(BarrierKind.DSB_NXS, 14)),), nc(8)),
    "a barrier of another vCPU": (nc(0), on_vcpu(1, dmb()), nc(8)),
    "a barrier before both": (dmb(), nc(0), nc(8)),
    "STLR, then anything": (stlr(0, type=NORMAL_NC), nc(8)),
    "anything, then LDAR": (nc(0), ldar(8, type=NORMAL_NC)),
    "STLR, then LDAPR": (stlr(0, type=NORMAL_NC), load(8, type=NORMAL_NC, flags=Flag.ACQUIRE_PC)),
    "the halves of a pair": (pair(dev(0, NGNRNE)),),
    "the halves of a Q register": (store(0, 16, type=NGNRNE),),
    "other vCPUs, nR": (dev(0), on_vcpu(1, dev(8))),
    "SVE on nGnRnE": (store(0, type=NGNRNE, flags=Flag.SVE), dev(8, NGNRNE)),
    "MOPS on nGnRnE": (store(0, type=NGNRNE, flags=Flag.MOPS), dev(8, NGNRNE)),
    "a type that is not known": (dev(0, None), dmb(), dev(8, None)),
    "a cacheable BAR": (dev(0, NORMAL_WB), dmb(), dev(8, NORMAL_WB)),
    "aliases of one location": (dev(0), nc(0)),
    "two functions with DSB": (store(0, peripheral=0), dsb(), store(0, peripheral=8)),
    "RAM behind a posted write": (dev(0), dsb(), ram_store(0)),
    "RAM, DMB ISHST, doorbell": (ram_store(0), dmb("ishst"), dev(0)),
    "RAM and doorbell alone": (ram_store(0), dev(0)),
    "RAM, DMB ISHST, RAM": (ram_store(0), dmb("ishst"), ram_store(8)),
    "a speculative read": (dev(0), dmb(), speculative(8, type=NGNRE)),
    "a place that is not known": (store(0, peripheral=None), store(8, peripheral=None)),
}


@pytest.mark.parametrize("name", ORDERED)
def test_ordered(name: str) -> None:
    parts, rule = ORDERED[name]
    order = Order(Program.of(*parts))
    assert why(order) == [rule]
    assert order.arrives_before(0, len(order.effects) - 1)
    assert not order.may_gather(0, len(order.effects) - 1)


@pytest.mark.parametrize("name", UNORDERED)
def test_not_ordered(name: str) -> None:
    order = Order(Program.of(*UNORDERED[name]))
    assert why(order) == []
    assert not order.arrives_before(0, len(order.effects) - 1)


def test_with_a_dmb_between_even_aliases_keep_their_order() -> None:
    assert why(Order(Program.of(dev(0), dmb(), nc(0)))) == ["barrier"]


@pytest.mark.parametrize(
    ("kind", "between", "last", "rules"),
    [
        (DependencyKind.DATA, (), dev(8, NGRE), ["ordered-before"]),
        (DependencyKind.ADDRESS, (), load(8, type=NGRE), ["ordered-before"]),
        (DependencyKind.CONTROL, (), dev(8, NGRE), ["ordered-before"]),
        (DependencyKind.CONTROL, (), load(8, type=NGRE), []),
        (DependencyKind.CONTROL, isb(), load(8, type=NGRE), ["ordered-before"]),
        (DependencyKind.DATA, (), nc(8), []),
    ],
)
def test_dependencies_count_for_non_gathering_types_alone(
    kind: DependencyKind, between: Part, last: Part, rules: list[str]
) -> None:
    program = Program.of(load(0, type=NGRE), between, last, dependencies=[Dependency(0, 2, kind)])
    assert why(Order(program)) == rules


def test_what_is_behind_an_address_that_depends() -> None:
    parts = (load(0, type=NGRE), load(8, type=NGRE), dev(16, NGRE))
    assert why(Order(Program.of(*parts, dependencies=[Dependency(0, 1, DependencyKind.ADDRESS)]))) == ["ordered-before"]
    assert why(Order(Program.of(*parts, dependencies=[Dependency(0, 1, DependencyKind.DATA)]))) == []


def test_ordered_before_goes_through_ram_and_other_vcpus() -> None:
    """A lock: what one vCPU did under it arrives before what the next one does."""

    def locked(first: MemoryType, second: MemoryType, *, release: Flag = Flag.RELEASE) -> list[str]:
        parts = (
            dev(0, first),
            ram_store(0, flags=release),
            on_vcpu(1, ram_load(0, flags=Flag.ACQUIRE), dev(8, second)),
        )
        return why(Order(Program.of(*parts, reads_from=[(1, 2)])))

    assert locked(NGRE, NGRE) == ["ordered-before"]
    assert locked(NORMAL_NC, NORMAL_NC) == ["synchronised"]
    assert locked(NGNRE, NGNRE, release=Flag.NONE) == []


def test_only_a_read_back_orders_two_functions() -> None:
    write, read, other = store(0, peripheral=0), load(8, peripheral=0), store(0, peripheral=8)
    order = Order(Program.of(write, read, dsb(), other))
    assert why(order) == ["non-reordering", "read-back"]
    assert why(Order(Program.of(write, read, dmb(), other))) == []
    assert why(Order(Program.of(write, dsb(), other))) == []
    config = store(4, 4, bar=BAR_CONFIG, type=NGNRNE)
    assert why(Order(Program.of(config, dsb(), other))) == ["configuration-write"]
    assert why(Order(Program.of(config, dsb("st"), load(0, peripheral=8)))) == ["configuration-write"]
    assert why(Order(Program.of(config, dsb("ld"), other))) == []
    early = store(4, 4, bar=BAR_CONFIG, type=NGNRE)
    assert why(Order(Program.of(early, dsb(), other))) == []


def test_the_size_of_a_peripheral_is_a_parameter() -> None:
    program = Program.of(dev(0), dmb(), dev(0x1000))
    assert why(Order(program)) == ["barrier"]
    pages = RULES.with_model(Model(peripheral_size=4096))
    assert why(Order(program, pages)) == []
    assert why(Order(Program.of(dev(0), dev(8)), pages)) == ["non-reordering"]


def test_a_dsb_proves_what_reads_and_configuration_writes_prove() -> None:
    program = Program.of(dev(0), nc(8), dsb(), load(0x10), dev(0x18), dsb())
    order = Order(program)
    assert order.proven(2) == 0
    assert order.proven(5) == 0b0111
    ish = Order(Program.of(load(0), dsb("ish")))
    assert ish.proven(1) == 0
    assert Order(Program.of(load(0), dmb())).proven(1) == 0
    assert Order(Program.of(load(0), dsb("st"))).proven(1) == 0
    assert Order(Program.of(store(4, 4, bar=BAR_CONFIG, type=NGNRNE), dsb("st"))).proven(1) == 1


def test_explanations_take_the_fewest_steps() -> None:
    order = Order(Program.of(nc(0), dmb("st"), nc(8), dmb("st"), nc(16)))
    assert [str(edge) for edge in order.explain(0, 2)] == ["0 -> 2: barrier [A] B2.4.1.1 (c), B2.3.12 DMB, DSB"]
    assert order.explain(2, 0) == ()
    through = Order(Program.of(nc(0), load(0, type=NORMAL_NC), ldar(8, type=NORMAL_NC), nc(16)))
    assert why(through, 0, 3) == []


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        ((nc(0), nc(8)), None),
        ((nc(0), dev(8, GRE)), None),
        ((nc(0), on_vcpu(1, nc(8))), None),
        ((load(0, type=NORMAL_NC), load(0, type=NORMAL_NC)), None),
        ((nc(0), dev(8, None)), None),
        ((pair(dev(0)),), None),
        ((store(0, 16, type=NGNRNE),), None),
        ((nc(0), dev(8, NGRE)), "not-gathering"),
        ((dev(0, NGRE), dev(8, NGRE)), "not-gathering"),
        ((st64b(0), st64b(64)), "not-gathering"),
        ((nc(0), load(8, type=NORMAL_NC)), "different-kinds"),
        ((atomic(0, type=NORMAL_NC), atomic(8, type=NORMAL_NC)), "different-kinds"),
        ((nc(0), store(8, type=NORMAL_NC, bar=2)), "different-places"),
        ((nc(0), store(8, type=NORMAL_NC, peripheral=8)), "different-places"),
        ((nc(0xFF8), nc(0x1000)), "crossing"),
        ((ram_store(0), ram_store(8)), "in-memory"),
    ],
)
def test_what_may_be_gathered(parts: tuple[Part, ...], rule: str | None) -> None:
    order = Order(Program.of(*parts))
    found = order.apart(order.effects[0], order.effects[1])
    assert (found and found.name) == rule
    assert order.may_gather(0, 1) == order.may_gather(1, 0) == (rule is None)


def test_writes_of_one_location_may_merge_unless_ordered() -> None:
    order = Order(Program.of(nc(0), nc(0), dmb("st"), nc(0)))
    assert (order.rows.before, order.rows.not_after) == ((0, 0, 0b11), (0, 0b1, 0b11))
    assert (order.may_gather(0, 1), order.may_gather(1, 2)) == (True, False)
    assert [str(edge) for edge in order.explain(0, 1)] == ["0 -> 1: same-location [A] B2.10.1, B2.10.2"]


@pytest.mark.parametrize(
    ("parts", "optional"),
    [
        ((nc(0), load(0, type=NORMAL_NC)), 0b10),
        ((nc(0), load(4, 4, type=NORMAL_NC)), 0b10),
        ((dev(0, GRE), load(0, type=GRE)), 0b10),
        ((dev(0, NGRE), load(0, type=NGRE)), 0),
        ((dev(0), load(0)), 0),
        ((store(4, 4, type=NORMAL_NC), load(0, type=NORMAL_NC)), 0),
        ((nc(0), dmb(), load(0, type=NORMAL_NC)), 0),
        ((nc(0), dmb("st"), load(0, type=NORMAL_NC)), 0b10),
        ((nc(0), on_vcpu(1, load(0, type=NORMAL_NC))), 0),
        ((load(0, type=NORMAL_NC), nc(0)), 0),
        ((ram_store(0), ram_load(0)), 0b10),
        ((ram_store(0), dmb(), ram_load(0)), 0),
        ((speculative(0),), 0b1),
    ],
)
def test_reads_that_need_not_arrive(parts: tuple[Part, ...], optional: int) -> None:
    assert Order(Program.of(*parts)).optional == optional


@pytest.mark.parametrize(
    ("kind", "ordered"), [(DependencyKind.ADDRESS, 1), (DependencyKind.DATA, 1), (DependencyKind.CONTROL, 0)]
)
def test_a_load_that_a_store_answers_needs_what_the_store_needs(kind: DependencyKind, ordered: int) -> None:
    last = Dependency(2, 3, DependencyKind.ADDRESS)
    program = Program.of(
        *(ram_load(0), ram_store(8), ram_load(8), ram_load(16)), dependencies=[Dependency(0, 1, kind), last]
    )
    assert Order(program).without(0b100).before[3] & 1 == ordered
    another = Order(program.inserted(2, ram_store(8)))
    assert another.without(0b1000).before[4] & 1 == 0


def test_a_read_that_never_arrives_orders_nothing() -> None:
    order = Order(Program.of(nc(0), load(0, type=NORMAL_NC), dmb("ld"), nc(8)))
    assert order.rows.before == (0, 0b1, 0b11)
    assert order.without(0b10).before == (0, 0, 0)
    ring = Order(Program.of(ram_store(0), ram_load(0), dmb("ld"), dev(8)))
    assert ring.without(0b10).before == (0, 0, 0)


def test_rules_are_data() -> None:
    program = Program.of(nc(0), dmb("st"), nc(8))
    assert why(Order(program, RULES.replaced("barrier"))) == []
    with pytest.raises(DefinitionError, match=r"^name must be a rule's, not nothing$"):
        RULES.replaced("nothing")
    assert len({rule.name for rule in RULES.all()}) == len(RULES.all())


OF_ALL_RULES = (
    *(Program.of(*parts) for parts, _ in ORDERED.values()),
    *(Program.of(nc(0), *parts) for parts in UNORDERED.values()),
    Program.of(load(0, type=NGRE), dev(8, NGRE), dependencies=[Dependency(0, 1)]),
    Program.of(
        nc(0),
        ram_store(0, flags=Flag.RELEASE),
        on_vcpu(1, ram_load(0, flags=Flag.ACQUIRE), nc(8)),
        reads_from=[(1, 2)],
    ),
    Program.of(load(0, peripheral=0), dsb(), store(0, peripheral=8)),
    Program.of(store(4, 4, bar=BAR_CONFIG, type=NGNRNE), dsb(), store(0, peripheral=8)),
    Program.of(dev(0, NGRE), dsb("st"), load(8, type=NGRE)),
    Program.of(nc(0), store(0, type=NORMAL_NC, bar=2)),
    Program.of(nc(0xFF8), nc(0x1000)),
    Program.of(nc(0), load(0, type=NORMAL_NC)),
    Program.of(dma_write(0), dma_write(8)),
    Program.of(msi(), dev(0), reads_from=[(0, 1)]),
    Program.of(dev(0), dma_write(0), reads_from=[(0, 1)]),
)


@pytest.mark.parametrize("name", [rule.name for rule in RULES.all()])
def test_no_rule_can_be_left_out(name: str) -> None:
    fewer = RULES.replaced(name)

    def differs(program: Program) -> bool:
        one, two = Order(program), Order(program, fewer)
        return (one.rows, one.optional) != (two.rows, two.optional)

    assert any(map(differs, OF_ALL_RULES))
