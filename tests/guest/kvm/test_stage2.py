"""Looking up stage-2 descriptors: pages, blocks, concatenated tables, and what is not mapped."""

from __future__ import annotations

import asyncio

import pytest

from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.kvm.stage2 import Descriptor, look_up

BASE = 0x8000
PAGES = 0xC0 | 1 << 10 | 3
VTCR_40_BITS = 24 | 1 << 6
"""T0SZ 24 (40 bits), SL0 1: the first lookup is at level 1, in two tables."""


class Tables:
    """Physical memory with 8-byte words."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    async def memory(self, address: int, size: int) -> bytes:
        return self.words.get(address, 0).to_bytes(size, "little")


def find(words: dict[int, int], address: int, vtcr: int = VTCR_40_BITS) -> Descriptor | None:
    return asyncio.run(look_up(Tables(words), 5 << 48 | BASE | 1, vtcr, address))


def test_a_page() -> None:
    words = {
        BASE: 0x9003,
        0x9000 + 8 * 0x80: 0xA003,
        0xA000 + 8 * 0x45: 0x1234_5000 | PAGES | 5 << 2,
    }
    assert find(words, 0x1004_5000) == Descriptor(3, 5, 3, 0x1234_5000)


def test_a_block_gives_the_page_in_it() -> None:
    words = {BASE + 8: 0x9003, 0x9000 + 8: 0x8020_0000 | 0xC0 | 0xF << 2 | 1}
    assert find(words, 0x4020_3000) == Descriptor(2, 0xF, 3, 0x8020_3000)


def test_the_second_of_two_first_tables() -> None:
    words = {BASE + 8 * 513: 0x40_0000_0000 | 0x40 | 1 << 2 | 1}
    assert find(words, 513 << 30) == Descriptor(1, 1, 1, 0x40_0000_0000)


def test_nothing_is_mapped() -> None:
    assert find({}, 0x1000_0000) is None


def test_another_granule_is_refused() -> None:
    with pytest.raises(QemuError, match=r"^stage 2 must have a granule of 4 KiB, not VTCR_EL2\.TG0 = 1$"):
        find({}, 0, VTCR_40_BITS | 1 << 14)
