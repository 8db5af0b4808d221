"""Combination of stages: every cell of the table, the controls, the encodings."""

from __future__ import annotations

import csv
from pathlib import Path

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
    TAGGED_WB,
    TAGGED_WB_NO_TAG_ACCESS,
    Controls,
    MemoryType,
    combine,
    decode_stage2,
    effective_stage1,
    encode_stage2,
)
from pyvfio_user.bridge.errors import DefinitionError

TABLE = Path(__file__).parents[2] / "data" / "s1_s2_combination.csv"
with TABLE.open() as file:
    CELLS = [(int(row["fwb"]), row["s1"], int(row["s2"], 16), row["arm"]) for row in csv.DictReader(file)]
NIBBLES = {fwb: sorted({s2 for row_fwb, _, s2, _ in CELLS if row_fwb == fwb}) for fwb in (0, 1)}

types = st.sampled_from(MEMORY_TYPES)
stages = st.sampled_from([(bool(fwb), s2) for fwb, nibbles in NIBBLES.items() for s2 in nibbles])


def test_the_table_is_whole() -> None:
    assert len(CELLS) == 160
    assert len(set(CELLS)) == 160
    assert NIBBLES == {0: [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15], 1: [0, 1, 2, 3, 5, 6, 7]}


@pytest.mark.parametrize(("fwb", "s1", "s2", "arm"), CELLS)
def test_every_cell(fwb: int, s1: str, s2: int, arm: str) -> None:
    assert str(combine(MemoryType.parse(s1), s2, bool(fwb))) == arm


@given(types)
def test_no_stage_2_leaves_stage_1(s1: MemoryType) -> None:
    assert combine(s1, None, False) == s1


@given(types, stages)
def test_stage_2_never_gives_a_freedom_unless_it_forces(s1: MemoryType, stage: tuple[bool, int]) -> None:
    fwb, s2 = stage
    second = decode_stage2(s2, fwb)
    result = combine(s1, s2, fwb)
    if second.forces:
        assert result.is_write_back
    else:
        for freedom in ("gathering", "reordering", "early_ack", "speculation"):
            assert getattr(result, freedom) == (getattr(s1, freedom) and getattr(second.type, freedom))


@given(types, stages)
def test_combining_twice_changes_nothing(s1: MemoryType, stage: tuple[bool, int]) -> None:
    fwb, s2 = stage
    once = combine(s1, s2, fwb)
    assert combine(once, s2, fwb) == once


@given(types, stages)
def test_cd_leaves_nothing_cacheable(s1: MemoryType, stage: tuple[bool, int]) -> None:
    fwb, s2 = stage
    result = combine(s1, s2, fwb, controls=Controls(cd=True))
    plain = combine(s1, s2, fwb)
    assert result == (plain if plain.is_device else NORMAL_NC)


def test_stage_1_off_is_device_over_any_stage_2_but_forced() -> None:
    off = Controls(stage1=False)
    assert effective_stage1(NORMAL_WB, controls=off) == NGNRNE
    assert combine(NORMAL_WB, 0xF, False, controls=off) == NGNRNE
    assert combine(NORMAL_WB, 6, True, controls=off) == NORMAL_WB


def test_default_cacheable() -> None:
    assert combine(NGNRNE, 0xF, False, controls=Controls(dc=True)) == NORMAL_WB
    assert combine(NGNRNE, 0xF, False, controls=Controls(dc=True, dct=True)) == TAGGED_WB
    assert combine(NGNRNE, 1, False, controls=Controls(dc=True)) == NGNRE
    assert combine(NGNRNE, 5, True, controls=Controls(stage1=False, dc=True)) == NORMAL_NC


def test_c_off_makes_normal_stage_1_non_cacheable() -> None:
    off = Controls(c=False)
    assert [str(effective_stage1(kind, controls=off)) for kind in MEMORY_TYPES] == [
        "00",
        "04",
        "08",
        "0c",
        "44",
        "44",
        "44",
        "44",
    ]
    assert combine(NORMAL_WB, 7, True, controls=off) == NORMAL_NC


def test_hints_are_those_of_stage_1() -> None:
    assert str(combine(MemoryType(0xAA), 0xF, False)) == "aa"
    assert str(combine(MemoryType(0x77), 0xA, False)) == "33"
    assert str(combine(MemoryType(0xEE), 0xA, False)) == "aa"
    assert str(combine(MemoryType(0xAA), 6, True)) == "ee"
    assert str(combine(MemoryType(0x4F), 6, True)) == "ff"


def test_xs_is_not_part_of_the_result() -> None:
    assert combine(MemoryType(0x05), 5, True) == NGNRE
    assert combine(MemoryType(0x40), 0xF, False) == NORMAL_NC
    assert str(combine(MemoryType(0xA0), 6, True)) == "ee"
    assert str(combine(MemoryType(0xA0), 0xF, False)) == "aa"


def test_no_tag_access() -> None:
    assert combine(TAGGED_WB, 4, False, mte_perm=True) == TAGGED_WB_NO_TAG_ACCESS
    assert combine(NORMAL_WB, 4, False, mte_perm=True) == NORMAL_WB
    assert combine(TAGGED_WB, 0xE, True, mte_perm=True) == TAGGED_WB_NO_TAG_ACCESS
    assert combine(TAGGED_WB, 0xF, True, mte_perm=True) == TAGGED_WB_NO_TAG_ACCESS
    assert combine(GRE, 0xE, True, mte_perm=True) == NORMAL_WB
    assert combine(GRE, 0xF, True, mte_perm=True) == GRE


@pytest.mark.parametrize(
    ("fwb", "s2"), [(0, 4), (0, 8), (0, 0xC), (1, 4), (1, 8), (1, 9), (1, 0xC), (1, 0xD), (1, 0xE), (1, 0xF)]
)
def test_reserved_stage_2_is_refused(fwb: int, s2: int) -> None:
    with pytest.raises(DefinitionError) as error:
        combine(NORMAL_NC, s2, bool(fwb))
    assert str(error.value) == (f"stage-2 MemAttr must be an encoding that is not reserved with FWB={fwb}, not {s2:#x}")


def test_what_is_no_nibble_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^stage-2 MemAttr must be 0 to 0xf, not 0x10$"):
        decode_stage2(16, False)


@pytest.mark.parametrize("fwb", [False, True])
def test_what_kvm_installs(fwb: bool) -> None:
    assert encode_stage2(NGNRE, fwb) == 1
    assert encode_stage2(NORMAL_NC, fwb) == 5
    assert encode_stage2(NORMAL_WB, fwb) == (6 if fwb else 0xF)
    assert [encode_stage2(kind, fwb) for kind in MEMORY_TYPES[:4]] == [0, 1, 2, 3]
    assert encode_stage2(NORMAL_WT, False) == 0xA
    with pytest.raises(DefinitionError, match="must have a stage-2 MemAttr with FWB=1, not Normal Write-Through"):
        encode_stage2(NORMAL_WT, True)
