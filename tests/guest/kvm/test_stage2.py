"""Looking up stage-2 descriptors: pages, blocks, concatenated tables, and what is not mapped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.kvm import stage2
from pyvfio_user.guest.kvm.stage2 import Descriptor, look_up, read_tables

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


@pytest.mark.parametrize("kind", [0b00, 0b01, 0b10])
def test_a_descriptor_of_level_3_that_is_no_page(kind: int) -> None:
    """0b01, a block elsewhere, is reserved there, and invalid (DDI 0487, D8.3)."""
    words = {BASE: 0x9003, 0x9000 + 8 * 0x80: 0xA003, 0xA000: 0x1234_5000 | PAGES & ~3 | kind}
    assert find(words, 0x1000_0000) is None


def test_another_granule_is_refused() -> None:
    with pytest.raises(QemuError, match=r"^stage 2 must have a granule of 4 KiB, not VTCR_EL2\.TG0 = 1$"):
        find({}, 0, VTCR_40_BITS | 1 << 14)


class Stub:
    """A machine that is at these exception levels, one each time it is stopped; HCR_EL2 is as in a virtual machine."""

    def __init__(self, *levels: int) -> None:
        self.levels = list(levels)

    async def register(self, name: str) -> int:
        return {"HCR_EL2": 1, "CPSR": self.levels[0] << 2, "VTTBR_EL2": BASE, "VTCR_EL2": VTCR_40_BITS}[name]

    async def run_on(self, seconds: float) -> None:
        if len(self.levels) > 1:
            self.levels.pop(0)


def test_the_machine_is_stopped_until_it_is_in_its_virtual_machine() -> None:
    """However often: one that waits for a command is hardly ever."""
    stub: Any = Stub(*[2] * 1000, 1)
    assert asyncio.run(read_tables(stub, ())).vttbr == BASE
    assert stub.levels == [1]


def test_a_machine_that_is_never_in_its_virtual_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage2, "_PATIENCE", 0.0)
    stub: Any = Stub(2)
    with pytest.raises(QemuError, match=r"^the machine must be in its virtual machine when it is stopped, "):
        asyncio.run(read_tables(stub, ()))
