"""Reads that nobody asked for: where types permit them, through whose mapping, and that Device has none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, MEMORY_TYPES, NGNRE, NGNRNE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect.behaviours import behaviours
from pyvfio_user.bridge.interconnect.effects import effects
from pyvfio_user.bridge.interconnect.invariants import never_arrives
from pyvfio_user.bridge.interconnect.program import Part, Program, load, store
from pyvfio_user.bridge.interconnect.speculation import Mapped, reaches, speculated
from pyvfio_user.bridge.stream import Flag, Kind

FIFO = 0x100


def mapped(kind: MemoryType, who: str = "guest") -> Mapped:
    return Mapped(0, 0, 0x1000, kind, who)


@pytest.mark.parametrize("kind", MEMORY_TYPES, ids=str)
def test_a_mapping_alone_is_enough_if_it_is_normal(kind: MemoryType) -> None:
    found = [(reach.offset, reach.size, reach.section) for reach in reaches([mapped(kind)])]
    assert found == ([] if kind.is_device else [(0, 0x1000, "B2.10.1")])


@pytest.mark.parametrize(
    ("part", "window"),
    [
        (load(0x104, 4), None),
        (load(0x110, 16), (0x110, 16)),
        (load(0x118, 16), (0x110, 32)),
        (load(0x114, 4, flags=Flag.SIMD), (0x110, 16)),
        (load(0x114, 4, flags=Flag.STRUCTURE), (0x110, 16)),
        (load(0x148, flags=Flag.SVE), (0x140, 64)),
        (load(0x148, flags=Flag.MOPS), (0x140, 64)),
        (load(0x148, flags=Flag.NON_TEMPORAL), None),
        (load(0x148, type=GRE, flags=Flag.NON_TEMPORAL), (0x100, 128)),
        (store(0x100, 16), None),
    ],
)
def test_device_memory_only_around_some_loads(part: Part, window: tuple[int, int] | None) -> None:
    kind = part[0].type
    assert kind is not None
    found = reaches([mapped(kind), mapped(NGNRNE, "host")], part)
    assert [(reach.offset, reach.size, reach.mapped.who) for reach in found] == ([(*window, "guest")] if window else [])


def test_a_window_ends_with_its_mapping() -> None:
    part = load(0x118, flags=Flag.SVE)
    (reach,) = reaches([Mapped(0, 0x110, 0x20, NGNRE)], part)
    assert (reach.offset, reach.size) == (0x110, 0x20)
    assert reaches([Mapped(2, 0x100, 0x40, NGNRE)], part) == []
    assert reaches([Mapped(0, 0x100, 0x40, NGNRE, peripheral=1)], part) == []  # another function's BAR 0


def test_through_whose_mapping_a_fifo_loses_an_entry() -> None:
    guest, host = mapped(NGNRE), mapped(NORMAL_NC, "host")
    assert [str(reach) for reach in reaches([guest, host]) if reach.covers(0, FIFO)] == [
        "bar0+0x0 4096 through the host's Normal Non-cacheable mapping (B2.10.1)"
    ]
    assert not [reach for reach in reaches([guest, host]) if reach.covers(2, FIFO)]


def test_the_fifo_is_read_in_some_behaviour_and_need_not_be() -> None:
    program = speculated(Program.of(store(8)), [Mapped(0, FIFO, 8, NORMAL_NC)], seed=3, most=1)
    found = behaviours(program)
    reads = sum(effect.bit for effect in found.effects if effect.optional)
    checked = found.check([never_arrives(reads)])
    assert 0 < checked.broken[0] < checked.count


def test_a_committed_wrong_load_of_device_always_arrives() -> None:
    found = behaviours(Program.of(store(8), load(FIFO)))
    assert found.check([never_arrives(0b10)]).broken == (found.count,)


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 0x1F), st.integers(1, 0x40))
def test_reads_stay_in_reach_and_are_single_copy_atomic(seed: int, offset: int, size: int) -> None:
    where = Mapped(2, offset, size, NORMAL_WB, "host", 8)
    program = speculated(Program.of(store(0)), [where], seed)
    assert program == speculated(Program.of(store(0)), [where], seed)
    events = [event for event in program.events if event.kind is Kind.SPECULATIVE]
    assert events
    for event in events:
        assert offset <= event.offset and event.offset + event.size <= offset + size
        assert event.offset % event.size == 0
        assert (event.bar, event.peripheral, event.type) == (2, 8, NORMAL_WB)
    assert len(effects(program)) == len(program.events)


def test_without_reach_nothing_is_added() -> None:
    program = Program.of(store(0))
    assert speculated(program, [mapped(NGNRE)], seed=1) == program
    with pytest.raises(DefinitionError, match=r"^most must not be negative, not -1$"):
        speculated(program, [], seed=1, most=-1)
