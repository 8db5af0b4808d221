"""The battery: what its operations say about themselves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.guest.battery import BATTERY, FULL, INDEX, PLATFORM, SHORT, named
from pyvfio_user.guest.doorbells import BETWEEN, DOORBELLS, PROGRAMS
from pyvfio_user.guest.operation import (
    PATTERN_SIZE,
    SLOT,
    Access,
    Element,
    Kind,
    Op,
    Piece,
    pattern,
    qemu_pieces,
    qemu_transactions,
)
from pyvfio_user.guest.stubs import ops_source, probe_header

ZERO = bytes(2 * SLOT)


def op(name: str) -> Op:
    return named(name)[0]


def test_every_operation_has_a_name_of_its_own() -> None:
    assert len(INDEX) == len(BATTERY) == 93 + 44
    assert all(BATTERY[index].name == name for name, index in INDEX.items())
    # Seven ways to store 64 bytes with seven things before the doorbell; five of them drivers do.
    assert {each.name for each in BATTERY} - {each.name for each in FULL} == {each.name for each in PROGRAMS}
    assert (len(DOORBELLS), len(PROGRAMS)) == (49, 44)


def test_subsets() -> None:
    assert set(SHORT) < set(BATTERY)
    assert {each.kind for each in SHORT} == {Kind.LOAD, Kind.STORE, Kind.TRANSLATE}
    assert not all(each.aligned for each in SHORT)
    assert {"at-s1e1r", "at-s12e1r", "at-s1e2r"} <= {each.name for each in SHORT}
    assert not any(each.stores for each in PLATFORM)
    assert {each.kind for each in PLATFORM} == {Kind.LOAD, Kind.TRANSLATE}


def test_which_operations_fault_on_device_memory() -> None:
    assert [each.name for each in BATTERY if each.kind is Kind.STORE and not each.aligned] == [
        "str-h+1",
        "str-w+1",
        "str-w+2",
        "str-x+1",
        "str-x+4",
        "str-x+12",
        "str-q+4",
        "str-q+8",
        "stp-x+4",
        "stp-q+8",
        "st1-2x2d+4",
        "str-x/page",
        "str-q/page",
        "stlr-x+4",
        "dc-zva",
        "libc-memcpy",
        "libc-memset",
        *(f"{way}-{between}-doorbell" for way in ("memcpy", "dc-zva") for between in BETWEEN),
    ]


def test_an_idiom_faults_at_its_first_unaligned_access() -> None:
    fault = op("libc-memset").first_fault
    assert fault == Element(64, 64, True, 64, instruction=2, source=-1, access=Access.ZERO)
    assert op("stp-x+8").first_fault is None
    assert op("st1-1x16b+1").first_fault is None


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("stp-x", [8, 8]),
        ("str-q", [8, 8]),
        ("stp-q", [8] * 4),
        ("st1-4x16b", [8] * 8),
        ("str-q+4", [4] * 4),
        ("str-x+1", [1] * 8),
        ("str-x+4", [4, 4]),
        ("str-x+12", [4, 4]),
        ("str-w+1", [1] * 4),
        ("str-w+2", [2, 2]),
        ("stp-w", [8]),
        ("ldp-w", [8]),
        ("ldadd-x", [8, 8]),
        ("ldxr-stxr-w", [4, 4, 4]),
        ("dc-zva", [1] * 64),
        ("str-x/page", [4, 4]),
        ("memcpy-toio", [1, 1, 1, 8, 8, 8, 8, 8, 8, 8, 1, 1]),
    ],
)
def test_how_qemu_cuts_an_access(name: str, sizes: list[int]) -> None:
    assert [piece.size for piece in qemu_transactions(op(name))] == sizes


def test_transactions_of_the_accesses_before_a_fault() -> None:
    memset = op("libc-memset")
    assert qemu_transactions(memset, memset.elements[:1]) == (Piece(16, 8, True), Piece(24, 8, True))


@given(st.integers(0, 255), st.integers(1, 64))
def test_pieces_cover_an_access_exactly(offset: int, size: int) -> None:
    at = offset
    for start, length in qemu_pieces(offset, size):
        assert start == at
        assert length in (1, 2, 4, 8)
        assert start % length == 0
        at += length
    assert at == offset + size


@given(st.sampled_from([each for each in BATTERY if each.stores]), st.integers(0, 2**32 - 1))
def test_transactions_write_the_bytes_that_the_operation_stores(each: Op, mark: int) -> None:
    ones, zeros = b"\xff" * each.span, bytes(each.span)
    written = {
        at for piece in qemu_transactions(each) if piece.write for at in range(piece.offset, piece.offset + piece.size)
    }
    untouched = {
        at
        for at in range(each.span)
        if each.stored(pattern(mark), ones)[at] == 0xFF and each.stored(pattern(mark), zeros)[at] == 0
    }
    assert written | untouched == set(range(each.span))
    # An update can leave 0xff over 0xff and 0 over 0; a plain store cannot leave both.
    assert each.kind is Kind.UPDATE or not written & untouched


@given(st.integers(0, 2**32 - 2))
def test_patterns_differ_within_and_between_neighbours(mark: int) -> None:
    one, two = pattern(mark), pattern(mark + 1)
    assert len(one) == PATTERN_SIZE == len(set(one))
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_what_updates_leave_and_load() -> None:
    data, before = pattern(0), bytes([0xFF] * 8) + bytes(SLOT - 8)
    # 0xffffffffffffffff + 0x0807060504030201 loses the carry
    assert op("ldadd-x").stored(data, before)[:8] == bytes.fromhex("0002030405060708")[:8]
    assert op("swp-x").stored(data, before)[:8] == data[:8]
    assert op("cas-x").stored(data, before) == before
    assert op("cas-x").stored(data, ZERO[:SLOT])[:8] == data[:8]
    assert op("swp-x").value(before) == (2**64 - 1, 0)
    assert op("ldp-x").value(bytes(range(SLOT))) == (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    assert op("dc-zva").stored(data, b"\xff" * SLOT) == bytes(64) + b"\xff" * 64
    assert op("payload-dmb-doorbell").doorbell_value(data) == bytes((65, 66, 67, 68))


def test_an_operation_outside_its_slot_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^offset of x must be between 0 and 127, not 128$"):
        Op(name="x", kind=Kind.LOAD, access=Access.SINGLE, asm=(), offset=128, size=1)
    with pytest.raises(DefinitionError, match=r"^x must end within its 128-byte slot, not at 129$"):
        Op(name="x", kind=Kind.LOAD, access=Access.SINGLE, asm=(), offset=125, size=4)
    with pytest.raises(DefinitionError, match=r"^x must end past its 128-byte slot, not at 128$"):
        Op(name="x", kind=Kind.LOAD, access=Access.SINGLE, asm=(), offset=124, size=4, crossing=True)
    with pytest.raises(DefinitionError, match=r"^elements of x must lie in 0\.\.4, not Element\(offset=0, size=8"):
        Op(name="x", kind=Kind.LOAD, access=Access.SINGLE, asm=(), size=4, elements=(Element(0, 8, False, 8),))


def test_the_generated_sources_have_each_operation_cold_and_warm() -> None:
    source = ops_source(named("str-x", "ldr-x/page"))
    assert "op_0_access:\n    str x3, [x0]\nop_0_end:\n" in source
    assert "op_0_warm_before:\n    ldr xzr, [x29]\nop_0_warm_access:\n    str x3, [x0]\nop_0_warm_end:\n" in source
    assert "op_1_warm_before:\n    ldr xzr, [x29]\n    ldr xzr, [x30]\nop_1_warm_access:\n" in source
    assert "    .hword 124, 8\n    .word 0x7 " in source
    assert "op_count:\n    .word 2\n" in source


def test_no_generated_code_crosses_a_page() -> None:
    at = 0
    for block in re.split(r"\n    \.balign (?=\d+\nop_)", ops_source().partition(".section")[0])[1:]:
        align, *lines = block.splitlines()
        start = -(-at // int(align)) * int(align)
        at = start + 4 * sum(line.startswith("    ") for line in lines)
        assert start // 4096 == (at - 4) // 4096, lines[0]


def test_the_generated_header_has_the_probes_registers() -> None:
    assert "#define PROBE_MAILBOX_COMMAND 0x30u\n" in probe_header()
