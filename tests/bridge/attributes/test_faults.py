"""Which accesses fault, where they are taken to, and with which exact ESR."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import (
    GRE,
    MEMORY_TYPES,
    NGNRE,
    NGNRNE,
    NORMAL_NC,
    NORMAL_WB,
    NORMAL_WT,
    Access,
    Controls,
    Effect,
    Implementation,
    Kind,
    MemoryType,
    Outcome,
    Page,
    combine,
    outcomes,
    permitted,
)
from pyvfio_user.bridge.errors import DefinitionError


def seen(
    access: Access,
    page: Page,
    beyond: Page | None = None,
    *,
    fwb: bool = False,
    controls: Controls | None = None,
    implementation: Implementation | None = None,
) -> set[str]:
    """The outcomes as text."""
    found = outcomes(
        access,
        page,
        beyond,
        fwb=fwb,
        controls=controls or Controls(),
        implementation=implementation or Implementation(),
    )
    return {str(outcome) for outcome in found}


def store(address: int, el: int = 1, size: int = 8) -> Access:
    return Access(Kind.PLAIN, True, size, address, el=el)


def load(address: int, el: int = 1, size: int = 8) -> Access:
    return Access(Kind.PLAIN, False, size, address, el=el)


@pytest.mark.parametrize(
    ("access", "page", "expected"),
    [
        (load(1), Page(NGNRE, 1), "EL1 fault 96000021"),
        (store(1), Page(NGNRE, 1), "EL1 fault 96000061"),
        (load(1, el=0), Page(NGNRE, 5), "EL1 fault 92000021"),
        (store(1, el=0), Page(GRE, 5), "EL1 fault 92000061"),
        (load(1), Page(NORMAL_NC, 1), "EL2 fault 92000021"),
        (store(1), Page(NORMAL_NC, 1), "EL2 fault 92000061"),
        (store(1, el=0), Page(NORMAL_WB, 3), "EL2 fault 92000061"),
        (load(1, el=2), Page(NGNRE), "EL2 fault 96000021"),
        (store(1, el=2), Page(NGNRNE), "EL2 fault 96000061"),
        (store(1), Page(NORMAL_NC, 5), "works"),
        (store(1, el=2), Page(NORMAL_NC), "works"),
        (store(8), Page(NGNRNE, 1), "works"),
    ],
)
def test_one_register(access: Access, page: Page, expected: str) -> None:
    assert seen(access, page) == {expected}


def test_which_bits_of_the_esr_are_fixed() -> None:
    (fault,) = outcomes(store(1), Page(NGNRE, 1))
    assert (fault.level, fault.esr, fault.mask, fault.dfsc) == (1, 0x96000061, 0xFFFFFFFF, 0x21)
    (fault,) = outcomes(store(1), Page(NORMAL_NC, 1))
    assert (fault.level, fault.esr, fault.mask) == (2, 0x92000061, 0xFE003FFF)
    # ISV=1 with the instruction's syndrome, as for one general register, is the same fault.
    assert fault.matches(Effect.FAULT, 2, 0x93C18061)
    assert fault.matches(Effect.FAULT, 2, 0x92000061)
    assert not fault.matches(Effect.FAULT, 2, 0x93C18021)
    assert not fault.matches(Effect.FAULT, 1, 0x92000061)
    assert not fault.matches(Effect.WORKS)


def test_stage_1_is_checked_by_itself() -> None:
    assert seen(store(1), Page(NGNRE, 6), fwb=True) == {"EL1 fault 96000061"}
    assert seen(store(1), Page(NGNRE, 0xF)) == {"EL1 fault 96000061"}
    assert seen(store(1), Page(NORMAL_NC, 6), fwb=True) == {"works"}


def test_stage_1_off() -> None:
    off = Controls(stage1=False)
    assert seen(store(1), Page(NORMAL_WB, 0xF), controls=off) == {"EL1 fault 96000061"}
    assert seen(store(1), Page(NGNRNE, 0xF), controls=Controls(dc=True)) == {"works"}


def test_alignment_check_enabled() -> None:
    strict = Controls(a=True)
    assert seen(store(1), Page(NORMAL_WB, 0xF), controls=strict) == {"EL1 fault 96000061"}
    assert seen(store(1, el=2), Page(NORMAL_WB), controls=strict) == {"EL2 fault 96000061"}
    assert seen(store(8), Page(NORMAL_WB, 0xF), controls=strict) == {"works"}


@pytest.mark.parametrize(
    ("size", "element", "address", "works"),
    [
        (16, 8, 8, True),  # STP x: aligned to the register
        (16, 8, 4, False),
        (16, 16, 8, False),  # STR q
        (32, 16, 16, True),  # STP q
        (64, 1, 3, True),  # ST1 {.16b x 4}: elements of one byte are never unaligned
        (64, 8, 4, False),  # ST1 {.2d x 4}
    ],
)
def test_elements_decide_alignment(size: int, element: int, address: int, works: bool) -> None:
    access = Access(Kind.PLAIN, True, size, address, element)
    assert seen(access, Page(NGNRE, 5)) == ({"works"} if works else {"EL1 fault 96000061"})


@pytest.mark.parametrize("address", [0, 3])
def test_dc_zva_faults_on_device_even_aligned(address: int) -> None:
    zva = Access(Kind.DC_ZVA, True, 64, address)
    assert seen(zva, Page(NGNRE, 5)) == {"EL1 fault 96000061"}
    assert seen(zva, Page(NORMAL_NC, 1)) == {"EL2 fault 92000061"}
    assert seen(zva, Page(NORMAL_NC, 5)) == {"works"}
    assert seen(Access(Kind.DC_ZVA, True, 64, address, el=0), Page(GRE, 5)) == {"EL1 fault 92000061"}


def test_dc_zva_at_the_end_of_a_page_does_not_cross() -> None:
    assert seen(Access(Kind.DC_ZVA, True, 64, 4095), Page(NORMAL_NC, 5)) == {"works"}


def test_atomics_are_guaranteed_on_write_back_alone() -> None:
    atomic = Access(Kind.ATOMIC, False, 8)
    assert seen(atomic, Page(NORMAL_WB, 0xF)) == {"works"}
    assert seen(atomic, Page(NGNRE, 6), fwb=True) == {"works"}
    assert seen(atomic, Page(NORMAL_NC, 0xF)) == {
        "works",
        "EL1 fault 96000035",
        "EL1 fault 96000010",
        "serror",
        "nop",
    }
    assert seen(atomic, Page(NORMAL_WB, 5)) == {"works", "EL2 fault 92000035", "EL1 fault 96000010", "serror", "nop"}
    assert seen(Access(Kind.ATOMIC, False, 8, el=2), Page(NGNRE)) == {
        "works",
        "EL2 fault 96000035",
        "EL2 fault 96000010",
        "serror",
        "nop",
    }


def test_exclusives_may_not_vanish() -> None:
    exclusive = Access(Kind.EXCLUSIVE, True, 8)
    assert seen(exclusive, Page(NORMAL_WT, 0xF)) == {"works", "EL1 fault 96000035", "EL1 fault 96000050"}


def test_write_not_read_is_unknown_in_an_unsupported_atomic() -> None:
    found = outcomes(Access(Kind.ATOMIC, False, 8), Page(NORMAL_NC, 0xF))
    (fault,) = [outcome for outcome in found if outcome.dfsc == 0x35]
    assert fault.mask == 0xFFFFE7BF
    assert fault.matches(Effect.FAULT, 1, 0x96000075)


def test_unaligned_atomics_with_and_without_lse2() -> None:
    within, beyond = Access(Kind.ATOMIC, False, 4, 2), Access(Kind.ATOMIC, False, 8, 12)
    page = Page(NORMAL_WB, 0xF)
    assert seen(within, page) == {"works"}
    assert seen(beyond, page) == {"works", "EL1 fault 96000021"}
    old = Implementation(lse2=False)
    assert seen(within, page, implementation=old) == {"EL1 fault 96000021"}
    # On Device stage 2 makes it fault at EL2, or at EL1 since it is unaligned at all; it never works.
    assert seen(within, Page(NORMAL_WB, 1)) >= {"EL1 fault 96000021", "EL2 fault 92000021"}
    assert "works" not in seen(within, Page(NORMAL_WB, 1))


def test_ordered_accesses() -> None:
    within, beyond = Access(Kind.ORDERED, True, 4, 2), Access(Kind.ORDERED, True, 8, 12)
    page = Page(NORMAL_WB, 0xF)
    assert seen(Access(Kind.ORDERED, True, 8), Page(NGNRE, 1)) == {"works"}
    assert seen(within, page) == {"works"}
    assert seen(within, Page(NORMAL_NC, 5)) == {"works", "EL1 fault 96000061"}
    assert seen(beyond, page) == {"EL1 fault 96000061"}
    assert seen(beyond, page, controls=Controls(naa=True)) == {"works"}
    assert seen(within, page, implementation=Implementation(lse2=False)) == {"EL1 fault 96000061"}


def test_64_byte_accesses() -> None:
    st64b = Access(Kind.LS64, True, 64)
    assert seen(Access(Kind.LS64, True, 64, 8), Page(NORMAL_NC, 5)) == {"EL1 fault 96000061"}
    # A location that does not support it may fault at stage 1.
    assert seen(st64b, Page(NORMAL_NC, 5)) == {"works", "EL1 fault 96000035"}
    assert seen(st64b, Page(NGNRE, 1)) == {"works", "EL1 fault 96000035"}
    assert seen(st64b, Page(NORMAL_WB, 0xF)) == {"EL1 fault 96000035", "EL2 fault 92000035"}
    # Each stage checked by itself, or the combined type: both are permitted.
    assert seen(st64b, Page(NORMAL_WB, 5)) == {"works", "EL1 fault 96000035"}
    assert seen(st64b, Page(NORMAL_NC, 0xF)) == {"works", "EL1 fault 96000035", "EL2 fault 92000035"}
    assert seen(st64b, Page(NGNRE, 6), fwb=True) == {"EL2 fault 92000035"}
    assert seen(st64b, Page(NORMAL_NC, 7), fwb=True) == {"works", "EL1 fault 96000035"}
    write_back = Implementation(ls64wb=True)
    assert seen(st64b, Page(NORMAL_WB, 0xF), implementation=write_back) == {"works", "EL1 fault 96000035"}
    assert seen(st64b, Page(NORMAL_WT, 0xF), implementation=write_back) == {"EL1 fault 96000035", "EL2 fault 92000035"}


def test_crossing_between_device_and_normal() -> None:
    access = store(4092)
    device, normal = Page(NGNRE, 5), Page(NORMAL_NC, 5)
    stage1 = {"works", "nop", "EL1 fault 96000061"}
    assert seen(access, device, normal) == stage1
    assert seen(access, normal, device) == stage1
    assert seen(access, Page(NORMAL_NC, 1), normal) == {"works", "nop", "EL2 fault 92000061"}
    assert seen(access, Page(NGNRE, 1), normal) == stage1 | {"EL2 fault 92000061"}


def test_crossing_between_device_pages() -> None:
    access, pair = store(4092), Access(Kind.PLAIN, True, 16, 4088, 8)
    device = Page(NGNRE, 5)
    assert seen(access, device, device) == {"nop", "EL1 fault 96000061"}
    assert seen(pair, device, device) == {"works", "nop", "EL1 fault 96000061"}
    by_stage2 = Page(NORMAL_NC, 1)
    assert seen(access, by_stage2, by_stage2) == {"nop", "EL2 fault 92000061"}
    assert seen(access, by_stage2, device) == {"nop", "EL1 fault 96000061", "EL2 fault 92000061"}


def test_crossing_within_one_type_is_an_ordinary_access() -> None:
    normal = Page(NORMAL_NC, 5)
    assert seen(store(4092), normal, normal) == {"works"}
    assert seen(store(4092, el=2), normal, normal) == {"works"}
    assert seen(store(4092, el=2), Page(NGNRE), normal) == {"works", "nop", "EL2 fault 96000061"}
    assert seen(Access(Kind.ATOMIC, False, 8, 4092), normal, normal) >= {"works", "EL1 fault 96000021"}


def test_crossing_between_shareabilities() -> None:
    assert seen(store(4092), Page(NORMAL_NC, 0xF), Page(NORMAL_WB, 0xF)) == {"works", "nop", "EL1 fault 96000061"}


def test_a_location_that_supports_unaligned_device_accesses() -> None:
    kind = Implementation(unaligned_device=True)
    assert seen(store(1), Page(NGNRE, 1), implementation=kind) == {"works", "EL1 fault 96000061"}


def test_crossing_needs_the_other_page() -> None:
    with pytest.raises(DefinitionError) as error:
        outcomes(store(4092), Page(NORMAL_NC, 5))
    assert str(error.value) == ("beyond must be given for an access that crosses a page, not None for 8 bytes at 0xffc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1 byte, not 0"),
        ({"size": 8, "address": -1}, "address must not be negative, not -1"),
        ({"size": 8, "el": 3}, "el must be 0, 1 or 2, not 3"),
        ({"size": 48, "element": 6}, "element must be a power of two, not 6"),
    ],
)
def test_bad_accesses_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DefinitionError) as error:
        Access(Kind.PLAIN, True, **arguments)
    assert str(error.value) == message


kinds = st.sampled_from(list(Kind))
pages = st.builds(Page, st.sampled_from(MEMORY_TYPES), st.sampled_from([0, 1, 2, 3, 5]))


@given(kinds, st.booleans(), st.sampled_from([1, 2, 4, 8]), st.integers(0, 4200), st.integers(0, 2), pages, pages)
def test_something_is_always_permitted(
    kind: Kind, write: bool, size: int, address: int, el: int, page: Page, beyond: Page
) -> None:
    access = Access(kind, write, 64 if kind in (Kind.LS64, Kind.DC_ZVA) else size, address, el=el)
    found = outcomes(access, page, beyond)
    assert found
    for outcome in found:
        if outcome.effect is Effect.FAULT:
            assert outcome.level in ((2,) if el == 2 else (1, 2))
            assert permitted(found, Effect.FAULT, outcome.level, outcome.esr)
            assert outcome.rule


@given(st.booleans(), st.sampled_from([1, 2, 4, 8]), st.integers(0, 500), pages)
def test_plain_accesses_fault_exactly_when_unaligned_on_device(write: bool, size: int, slot: int, page: Page) -> None:
    for offset in range(size):
        access = Access(Kind.PLAIN, write, size, slot * 8 + offset)
        if access.crosses_page:
            continue
        device = combine(page.s1, page.s2, False).is_device
        found = outcomes(access, page)
        assert len(found) == 1
        assert (Outcome(Effect.WORKS) in found) == (offset == 0 or not device)


@given(st.integers(0, 4000), st.sampled_from(MEMORY_TYPES), st.sampled_from([0, 1, 5]))
def test_el2_does_not_look_at_stage_2(address: int, s1: MemoryType, s2: int) -> None:
    access = Access(Kind.PLAIN, True, 8, address, el=2)
    assert outcomes(access, Page(s1, s2)) == outcomes(access, Page(s1))
