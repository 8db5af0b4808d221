"""Programs written in a test: what is refused, and that parts are found again in the events."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect.effects import effects
from pyvfio_user.bridge.interconnect.program import (
    OPTIONS,
    Dependency,
    DependencyKind,
    Program,
    burst,
    dgh,
    dmb,
    dsb,
    isb,
    load,
    on_vcpu,
    pair,
    ram_load,
    ram_store,
    st1,
    st64b,
    store,
    windows,
)
from pyvfio_user.bridge.stream import pack, unpack


def test_barriers_are_as_an_assembler_has_them() -> None:
    assert [str(dmb(option)[0].barrier) for option in OPTIONS] == [f"dmb {option}" for option in OPTIONS]
    assert sorted(OPTIONS.values()) == [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15]
    assert (str(dsb("ish")[0].barrier), str(isb()[0].barrier)) == ("dsb ish", "isb")


def test_events_are_the_stream_s() -> None:
    program = Program.of(burst(0x40), dmb("oshst"), store(0x1000, 4, 7), dgh(), load(0, 2))
    assert tuple(unpack(pack(event)) for event in program.events) == program.events
    assert [event.sequence for event in program.events] == list(range(1, 13))
    assert program.events[9].data == b"\x07\0\0\0"


def test_pairs_count_parts() -> None:
    program = Program.of(
        burst(0, 16),
        load(0x20),
        store(0x28),
        ram_store(0),
        on_vcpu(1, ram_load(0)),
        dependencies=[Dependency(1, 2, DependencyKind.ADDRESS)],
        reads_from=[(3, 4)],
    )
    assert program.dependencies == (Dependency(2, 3, DependencyKind.ADDRESS),)
    assert program.reads_from == ((4, 5),)
    longer = program.inserted(3, dmb())
    assert (longer.dependencies, longer.reads_from) == ((Dependency(2, 4, DependencyKind.ADDRESS),), ((5, 6),))
    assert [longer.events.index(event) for event in program.events] == [0, 1, 2, 4, 5, 6]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: store(0, 3), "size must be 1, 2, 4, 8 or 16 bytes, not 3"),
        (lambda: store(0, 4, b"x"), "data must be 4 bytes, not 1"),
        (lambda: st64b(8), "offset of ST64B must be a multiple of 64, not 0x8"),
        (lambda: st1(0, 5), "registers must be 1 to 4, not 5"),
        (lambda: dmb("full"), f"option must be one of {', '.join(OPTIONS)}, not full"),
        (
            lambda: Program.of(store(0), store(8), dependencies=[Dependency(0, 1)]),
            "a dependency must be on a load of the same vCPU, not on STORE of vCPU 0",
        ),
        (
            lambda: Program.of(load(0), store(8), dependencies=[Dependency(0, 2)]),
            "a part must be 0 to 1, not 2",
        ),
        (
            lambda: Program(store(8) + load(0), dependencies=(Dependency(1, 0),)),
            "positions must go forward within 2 events, not from 1 to 0",
        ),
        (
            lambda: Program.of(load(0), load(8), reads_from=[(0, 1)]),
            "reads_from must pair a store with a load, not LOAD with LOAD",
        ),
        (lambda: Program(()).inserted(1, isb()), "position must be 0 to 0, not 1"),
    ],
)
def test_what_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert str(caught.value) == message


def test_an_interrupted_instruction_is_done_again() -> None:
    program = Program.of(store(0), pair(store(8)), store(0x20))
    again = program.interrupted(1, 1)
    assert [event.offset for event in again.events] == [0, 8, 8, 16, 0x20]
    assert [effect.instruction for effect in effects(again)] == [0, 1, 2, 2, 4]
    assert len(program.interrupted(1, 2).events) == 6
    for done in (0, 3):
        with pytest.raises(DefinitionError) as caught:
            program.interrupted(1, done)
        assert str(caught.value) == f"done must be 1 to as many events as the instruction at 1 has, not {done}"


def test_windows_cut_between_instructions() -> None:
    events = store(0) + pair(store(8)) + pair(store(0x20)) + st64b(0x40) + store(0x80)
    assert [len(window.events) for window in windows(events, 4)] == [3, 2, 4, 1]
    assert [len(window.events) for window in windows(events, 2)] == [1, 2, 2, 2, 2, 1]
    assert tuple(event for window in windows(events, 2) for event in window.events) == events
