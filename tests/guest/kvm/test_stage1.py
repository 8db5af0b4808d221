"""A process's memory types, from the tables of a host that runs at EL2 (Arm ARM DDI 0487, D8.3)."""

from __future__ import annotations

import asyncio

import pytest

from pyvfio_user.bridge.attributes import NGNRNE, NORMAL_NC, MemoryType
from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.kvm.stage1 import Mapping, host_types, kernel_mapping
from pyvfio_user.guest.kvm.stage2 import Tables
from pyvfio_user.guest.kvm.translation import Snapshot

E2H = 1 << 34
BASE = 0x8000
LEAF = 1 << 10 | 3
AREA = 0x10_0000_0000


class Machine:
    """A stopped machine with registers and 8-byte words."""

    def __init__(self, registers: dict[str, int], words: dict[int, int]) -> None:
        self.registers, self.words = registers, words

    async def register(self, name: str) -> int:
        return self.registers[name]

    async def memory(self, address: int, size: int) -> bytes:
        return b"".join(self.words.get(at, 0).to_bytes(8, "little") for at in range(address, address + size, 8))


def find(words: dict[int, int], address: int, **registers: int) -> dict[int, MemoryType | None] | None:
    """With 48-bit addresses, an ASID, and Linux' order of MAIR_EL2: index 0 is Write-Back, 2 NC, 3 Device-nGnRnE."""
    common = {"HCR_EL2": E2H, "TCR_EL2": 16, "TTBR0_EL2": 7 << 48 | BASE | 1, "MAIR_EL2": 0x04_00_44_F0_FF}
    return asyncio.run(host_types(Machine({**common, **registers}, words), [address]))


def test_a_page_of_a_process_with_48_bits() -> None:
    """Index 64 of level 1: the address is 64 GiB; level 0 comes first."""
    words = {BASE: 0x9003, 0x9000 + 8 * 64: 0xA003, 0xA000: 0xB003, 0xB000 + 8 * 5: 0x1000_0000 | LEAF | 3 << 2}
    assert find(words, AREA + 0x5000) == {AREA + 0x5000: NGNRNE}
    assert find(words, AREA + 0x6000) == {AREA + 0x6000: None}


def test_the_type_is_any_of_eight_in_mair() -> None:
    mair = 0x0C_BB_08_04_00_44_F0_FF
    words = {BASE: 0x9003, 0x9000 + 8 * 64: 0xA003, 0xA000: 0xB003}
    words |= {0xB000 + 8 * index: 0x1000_0000 | LEAF | index << 2 for index in range(8)}
    found = [find(words, AREA + 0x1000 * index, MAIR_EL2=mair) for index in range(8)]
    kinds = [MemoryType(byte) for byte in mair.to_bytes(8, "little")]
    assert found == [{AREA + 0x1000 * index: kind} for index, kind in enumerate(kinds)]


def test_52_bits_begin_a_level_earlier() -> None:
    words = {BASE: 0x7003, 0x7000: 0x9003, 0x9000 + 8 * 64: 0x4000_0000 | LEAF & ~2 | 2 << 2}
    assert find(words, AREA + 0x5000, TCR_EL2=12) == {AREA + 0x5000: NORMAL_NC}


@pytest.mark.parametrize("registers", [{"HCR_EL2": 0}, {"TCR_EL2": 16 | 1 << 14}], ids=["no VHE", "64 KiB"])
def test_tables_that_cannot_be_seen(registers: dict[str, int]) -> None:
    assert find({}, AREA, **registers) is None


def test_a_snapshot_fetches_each_piece_once() -> None:
    asked: list[tuple[int, int]] = []

    class Counted:
        async def memory(self, address: int, size: int) -> bytes:
            asked.append((address, size))
            return bytes(range(256)) * 8

    async def look() -> list[bytes]:
        memory = Snapshot(Counted())
        return [await memory.memory(address, 8) for address in (0x1000, 0x1008, 0x17F8, 0x1800)]

    assert asyncio.run(look()) == [bytes(range(8)), bytes(range(8, 16)), bytes(range(0xF8, 0x100)), bytes(range(8))]
    assert asked == [(0x1000, 2048), (0x1800, 2048)]


RAM = 0x4000_0000
STAGE2 = {BASE + 8: 0xA003, 0xA000: 0xB003}
STAGE2 |= {0xB000 + 8 * page: 0x7000_0000 + page * 4096 | LEAF for page in range(4)}
"""Stage 2 of a virtual machine: guest physical 1 GiB and four pages on are at 0x70000000; 40 bits from level 1."""
TABLES = Tables(BASE, 24 | 1 << 6, 1, {})
VIRTUAL = 0xFFFF_8000_8123_4000


def kernel(words: dict[int, int], **registers: int) -> Mapping | None:
    """Linux' MAIR_EL1 and TCR_EL1, with 48 bits; its first table is the first page of RAM."""
    common = {"TCR_EL1": 16 << 16 | 2 << 30, "TTBR1_EL1": 5 << 48 | RAM | 1, "MAIR_EL1": 0x04_00_44_F0_FF}
    return asyncio.run(kernel_mapping(Machine({**common, **registers}, {**STAGE2, **words}), TABLES, VIRTUAL))


def tables(leaf: int) -> dict[int, int]:
    """Its tables, which name guest physical addresses, where stage 2 has them."""
    indexes = [VIRTUAL >> shift & 511 for shift in (39, 30, 21, 12)]
    entries = [RAM + 0x1000 | 3, RAM + 0x2000 | 3, RAM + 0x3000 | 3, leaf]
    return {0x7000_0000 + 0x1000 * n + 8 * indexes[n]: entries[n] for n in range(4)}


def test_a_mapping_of_a_guests_kernel() -> None:
    assert kernel(tables(0x1015_0000 | LEAF | 2 << 2)) == Mapping(NORMAL_NC, 0x1015_0000)
    assert kernel(tables(0x1015_0000 | LEAF | 3 << 2)) == Mapping(NGNRNE, 0x1015_0000)
    assert kernel(tables(0)) is None


def test_tables_of_a_guest_that_cannot_be_followed() -> None:
    with pytest.raises(QemuError, match="must be in its RAM, not at 0x50000800"):
        kernel({}, TTBR1_EL1=0x5000_0000)
    with pytest.raises(QemuError, match=r"must have a granule of 4 KiB, not TCR_EL1\.TG1 = 3"):
        kernel({}, TCR_EL1=16 << 16 | 3 << 30)
