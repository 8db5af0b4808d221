"""Encodings, names and properties of the memory types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import MEMORY_TYPES, Cacheability, MemoryType, permissions
from pyvfio_user.bridge.errors import DefinitionError


def _valid(byte: int) -> bool:
    try:
        MemoryType(byte)
    except DefinitionError:
        return False
    return True


VALID = [byte for byte in range(256) if _valid(byte)]


def test_the_eight_types_in_slot_order() -> None:
    assert [str(kind) for kind in MEMORY_TYPES] == ["00", "04", "08", "0c", "44", "bb", "ff", "f0"]
    assert [kind.name for kind in MEMORY_TYPES] == [
        "Device-nGnRnE",
        "Device-nGnRE",
        "Device-nGRE",
        "Device-GRE",
        "Normal Non-cacheable",
        "Normal Write-Through",
        "Normal Write-Back",
        "Tagged Normal Write-Back",
    ]


@pytest.mark.parametrize(
    ("byte", "gathering", "reordering", "early_ack", "speculation", "unaligned", "atomics", "st64b"),
    [
        (0x00, False, False, False, False, False, "implementation defined", True),
        (0x04, False, False, True, False, False, "implementation defined", True),
        (0x08, False, True, True, False, False, "implementation defined", True),
        (0x0C, True, True, True, False, False, "implementation defined", True),
        (0x44, True, True, True, True, True, "implementation defined", True),
        (0xBB, True, True, True, True, True, "implementation defined", False),
        (0xFF, True, True, True, True, True, "guaranteed", False),
        (0xF0, True, True, True, True, True, "guaranteed", False),
    ],
)
def test_what_each_type_permits(
    byte: int,
    gathering: bool,
    reordering: bool,
    early_ack: bool,
    speculation: bool,
    unaligned: bool,
    atomics: str,
    st64b: bool,
) -> None:
    got = permissions(MemoryType(byte))
    assert (got.gathering, got.reordering, got.early_ack, got.speculation) == (
        gathering,
        reordering,
        early_ack,
        speculation,
    )
    assert (got.unaligned, got.dc_zva, got.atomics, got.st64b) == (unaligned, unaligned, atomics, st64b)


@pytest.mark.parametrize(
    ("byte", "name", "canonical"),
    [
        (0x01, "Device-nGnRnE XS=0", "00"),
        (0x05, "Device-nGnRE XS=0", "04"),
        (0x0D, "Device-GRE XS=0", "0c"),
        (0x40, "Normal Non-cacheable XS=0", "44"),
        (0xA0, "Normal Write-Through XS=0", "aa"),
        (0xE0, "Tagged Normal Write-Back NoTagAccess", "e0"),
        (0x4F, "Normal outer Non-cacheable, inner Write-Back", "4f"),
        (0xB4, "Normal outer Write-Through, inner Non-cacheable", "b4"),
        (0x33, "Normal Write-Through", "33"),
        (0x77, "Normal Write-Back", "77"),
    ],
)
def test_the_less_usual_encodings(byte: int, name: str, canonical: str) -> None:
    assert MemoryType(byte).name == name
    assert str(MemoryType(byte).canonical) == canonical


@pytest.mark.parametrize("byte", [0x02, 0x03, 0x06, 0x0A, 0x0F, 0x10, 0x50, 0x80, 0xB0, 0xD0])
def test_reserved_encodings_are_refused(byte: int) -> None:
    with pytest.raises(DefinitionError) as error:
        MemoryType(byte)
    assert str(error.value) == f"memory type must be an attribute encoding that is not reserved, not 0x{byte:02x}"


def test_what_is_no_byte_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^memory type must be a byte, not 0x100$"):
        MemoryType(0x100)


@pytest.mark.parametrize("text", ["", "4", "044", "0x4", "zz", " 4"])
def test_parse_refuses_what_str_does_not_write(text: str) -> None:
    with pytest.raises(DefinitionError) as error:
        MemoryType.parse(text)
    assert str(error.value) == f"memory type must be two hex digits, not {text!r}"


def test_device_types_have_no_cacheability_and_normal_ones_no_strength() -> None:
    with pytest.raises(DefinitionError, match="must be a Normal type to have a cacheability, not Device-GRE"):
        _ = MemoryType(0x0C).inner
    with pytest.raises(DefinitionError, match="must be a Device type to have a strength, not Normal Non-cacheable"):
        _ = MemoryType(0x44).strength


@given(st.sampled_from(VALID))
def test_every_valid_byte_survives_text(byte: int) -> None:
    kind = MemoryType(byte)
    assert MemoryType.parse(str(kind)) == kind
    assert kind.name
    assert kind.canonical.canonical == kind.canonical


@given(st.sampled_from(VALID))
def test_each_freedom_implies_the_ones_before_it(byte: int) -> None:
    kind = MemoryType(byte)
    assert kind.speculation <= kind.gathering <= kind.reordering <= kind.early_ack


def test_outer_and_inner() -> None:
    assert (MemoryType(0x4B).outer, MemoryType(0x4B).inner) == (Cacheability.NC, Cacheability.WT)
    assert (MemoryType(0xF0).outer, MemoryType(0xF0).inner) == (Cacheability.WB, Cacheability.WB)
    assert (MemoryType(0x40).outer, MemoryType(0xA0).inner) == (Cacheability.NC, Cacheability.WT)
