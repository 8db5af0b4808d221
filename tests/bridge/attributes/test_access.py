"""Which bytes an access touches."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import Access, Kind


@pytest.mark.parametrize(
    ("address", "size", "within"),
    [(0, 16, True), (1, 16, False), (8, 8, True), (9, 8, False), (15, 1, True), (31, 2, False)],
)
def test_the_block_of_16_bytes_that_feat_lse2_asks_for(address: int, size: int, within: bool) -> None:
    assert Access(Kind.ATOMIC, False, size, address).within_16_bytes == within


@pytest.mark.parametrize(
    ("address", "size", "crosses"),
    [(4088, 8, False), (4089, 8, True), (4095, 1, False), (8191, 2, True), (0, 4096, False)],
)
def test_the_page_ends_behind_its_last_byte(address: int, size: int, crosses: bool) -> None:
    assert Access(Kind.PLAIN, True, size, address).crosses_page == crosses


def test_dc_zva_begins_where_its_block_does() -> None:
    assert Access(Kind.DC_ZVA, True, 64, 0x1007F).start == 0x10040
