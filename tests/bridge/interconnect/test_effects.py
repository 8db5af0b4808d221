"""What one instruction is: the single-copy-atomic units, and what is assumed where nothing is promised."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect.effects import RAM, Effects, Model, Op, Place, effects
from pyvfio_user.bridge.interconnect.program import (
    Part,
    Program,
    atomic,
    burst,
    dc_zva,
    dmb,
    load,
    on_vcpu,
    pair,
    ram_store,
    speculative,
    st1,
    st64b,
    store,
)
from pyvfio_user.bridge.stream import BAR_CONFIG, Event, Flag, Kind


def of(*parts: Part, model: Model = Model()) -> Effects:  # noqa: B008
    return effects(Program.of(*parts), model)


def units(*parts: Part, model: Model = Model()) -> list[tuple[int, int]]:  # noqa: B008
    return [(effect.offset, effect.size) for effect in of(*parts, model=model)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_aligned_register_is_one(size: int) -> None:
    assert units(store(0x40, size)) == [(0x40, size)]
    assert units(load(0x40, size)) == [(0x40, size)]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (store(0x40, 16), [(0x40, 8), (0x48, 8)]),
        (pair(store(0x40, 4)), [(0x40, 4), (0x44, 4)]),
        (pair(store(0x40, 8)), [(0x40, 8), (0x48, 8)]),
        (pair(load(0x40, 16)), [(0x40, 8), (0x48, 8), (0x50, 8), (0x58, 8)]),
        (st64b(0x40), [(0x40, 64)]),
        (st1(0x40, 2), [(at, 8) for at in range(0x40, 0x60, 8)]),
        (dc_zva(0x7F), [(at, 8) for at in range(0x40, 0x80, 8)]),
        (store(0x43, 4, type=NORMAL_NC), [(0x43, 1), (0x44, 1), (0x45, 1), (0x46, 1)]),
        (atomic(0x40), [(0x40, 8)]),
    ],
)
def test_units_of_an_instruction(part: Part, expected: list[tuple[int, int]]) -> None:
    found = of(part)
    assert [(effect.offset, effect.size) for effect in found] == expected
    assert {effect.instruction for effect in found} == {0}


def test_the_model_says_how_far_bytes_are_cut() -> None:
    assert units(store(0x43, 8, type=NORMAL_NC), model=Model(unaligned=4)) == [(0x43, 1), (0x44, 4), (0x48, 3)]
    assert len(units(dc_zva(0), model=Model(piece=1))) == 64
    elements = (Event(Kind.STORE, 0x40, 16, bytes(16), 0, type=NGNRE, peripheral=0, flags=Flag.STRUCTURE),)
    assert units(elements, model=Model(piece=4)) == [(at, 4) for at in range(0x40, 0x50, 4)]
    with pytest.raises(DefinitionError, match=r"^unaligned must be a power of two up to 8, not 3$"):
        Model(unaligned=3)


def test_data_follow_the_cut() -> None:
    assert [e.data for e in of(store(0x40, 16, bytes(range(16))))] == [bytes(range(8)), bytes(range(8, 16))]
    assert [e.data for e in of(dc_zva(0, 16))] == [bytes(8), bytes(8)]
    (whole,) = of(st64b(0x40))
    assert whole.data == bytes(range(0x41, 0x81))
    assert [e.data for e in of(load(0))] == [None]


def test_each_execution_is_an_instruction_of_its_own() -> None:
    found = of(pair(store(0)), pair(store(0)), on_vcpu(1, pair(store(0x20))), dmb(), store(0x40))
    assert [effect.instruction for effect in found] == [0, 0, 2, 2, 4, 4, 7]
    assert [effect.position for effect in found] == [0, 1, 2, 3, 4, 5, 7]


def test_interleaved_vcpus_keep_the_order_of_the_stream() -> None:
    first, second = pair(store(0))
    (other,) = on_vcpu(1, store(0x20))
    found = effects(Program((first, other, second)))
    assert [(effect.vcpu, effect.instruction) for effect in found] == [(0, 0), (1, 1), (0, 0)]


@pytest.mark.parametrize("flag", [Flag.SVE, Flag.MOPS])
def test_sve_and_mops_behave_as_gre_on_any_device_type(flag: Flag) -> None:
    (device,) = of(store(0, type=NGNRNE, flags=flag))
    assert (device.type, device.event.type, device.gathering) == (GRE, NGNRNE, True)
    (normal,) = of(store(0, type=NORMAL_NC, flags=flag))
    assert normal.type == NORMAL_NC


def test_an_unknown_type_promises_nothing_and_is_noted() -> None:
    found = of(store(0, type=None))
    assert (found[0].gathering, found[0].at_device) == (True, False)
    assert found.notes == ("event 0: its memory type is unknown: no order is promised, anything may be gathered",)


@pytest.mark.parametrize(
    ("event", "note"),
    [
        (
            store(0, flags=Flag.EXCLUSIVE)[0],
            "event 0: an exclusive at a BAR faults or aborts: PCIe has no exclusives (6.15 has AtomicOps)",
        ),
        (Event(Kind.TAG_STORE, 0, 16), "event 0: allocation tags are no access to a device"),
        (
            Event(Kind.LOST, size=7, vcpu=2),
            "event 0: 7 events of vCPU 2 were lost here: their accesses and barriers are missing",
        ),
    ],
)
def test_what_never_arrives_is_noted(event: Event, note: str) -> None:
    found = effects(Program((event,)))
    assert (len(found), found.notes) == (0, (note,))


def test_what_may_not_be_as_assumed_is_noted() -> None:
    notes = of(store(0xFFC, type=NORMAL_NC), atomic(0), store(0, peripheral=None)).notes
    assert (
        notes
        == (
            "event 0: it crosses a 4 KiB boundary: CONSTRAINED UNPREDICTABLE (K1.2.13-14); here both parts are done",
            "event 1: an atomic over PCIe needs a completer of AtomicOps (6.15); else it faults or aborts",
            "event 2: which device it is at is unknown: it has no order with others",
            "effect 8: its location has mismatched types (B2.11): it behaves as Device-GRE",
        )[:3]
    )


def test_places() -> None:
    places = [effect.place for effect in of(store(0x2000), store(0x2000, bar=2), ram_store(0x4000_0000))]
    assert places == [Place(0), Place(0), RAM]
    small = Model(peripheral_size=4096)
    assert [e.place for e in of(store(0x2000), store(0x10, bar=2), model=small)] == [Place(0, 0, 2), Place(0, 2, 0)]
    assert of(store(0x10, 4, bar=BAR_CONFIG))[0].place == Place(0, BAR_CONFIG)
    recorded = Program.recorded(ram_store(0x4000_0000))
    assert [e.place for e in effects(recorded)] == [None]


@pytest.mark.parametrize(
    ("types", "behave"),
    [
        ((NGNRE, NORMAL_NC), (GRE, NORMAL_NC)),
        ((NGNRNE, NGNRE), (GRE, GRE)),
        ((NGNRE, NORMAL_WB), (None, None)),
        ((NGNRE, MemoryType(0x05)), (NGNRE, MemoryType(0x05))),
    ],
)
def test_aliases_of_different_types_lose_what_they_promise(
    types: tuple[MemoryType, MemoryType], behave: tuple[MemoryType | None, MemoryType | None]
) -> None:
    found = of(store(0x40, type=types[0]), store(0x44, 4, type=types[1]), store(0x48, type=types[0]))
    assert tuple(effect.type for effect in found) == (*behave, types[0])


def test_effects_and_masks_print() -> None:
    found = of(burst(0x40, 16), store(0x1000, 4), ram_store(0x4000_0000), speculative(0x80))
    assert [str(effect) for effect in found] == [
        "0: W Normal Non-cacheable bar0+0x40 8",
        "1: W Normal Non-cacheable bar0+0x48 8",
        "2: W nGnRE bar0+0x1000 4",
        "3: W Normal Write-Back ram+0x40000000 8",
        "4: R Normal Non-cacheable bar0+0x80 8",
    ]
    assert [effect.index for effect in found.of(0b10100)] == [2, 4]
    assert found.mask(1) == 0b10
    assert [effect.optional for effect in found] == [False] * 4 + [True]
    assert found[4].op is Op.READ
