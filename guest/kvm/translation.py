"""Walking translation tables in physical memory: a granule of 4 KiB, either stage (Arm ARM DDI 0487, D8.3)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..operation import PAGE

_OUTPUT = 0x0000_FFFF_FFFF_F000


class Memory(Protocol):
    """Physical memory: `GdbStub` has it."""

    async def memory(self, address: int, size: int) -> bytes:
        """So many bytes from an address."""


class Leaf(NamedTuple):
    """The descriptor that ends a walk: the level it is at (3 is a page), itself, and the page that was looked up."""

    level: int
    entry: int
    output: int


async def walk(memory: Memory, table: int, level: int, bits: int, address: int) -> Leaf | None:
    """Look up an address of so many bits from a table of this level (-1 to 2); None where there is no valid leaf.

    The first table may be several, one behind the other, or less than one: its index is what is left of the address.
    """
    index = (address & ((1 << bits) - 1)) >> _shift(level)
    while True:
        entry = int.from_bytes(await memory.memory(table + 8 * index, 8), "little")
        if not entry & 1 or (level == 3 and not entry & 2):
            return None
        if level == 3 or not entry & 2:
            within = address & ((1 << _shift(level)) - PAGE)
            return Leaf(level, entry, (entry & _OUTPUT & ~((1 << _shift(level)) - 1)) | within)
        level += 1
        table, index = entry & _OUTPUT, address >> _shift(level) & 511


class Snapshot:
    """Memory that does not change while it is looked at: each 2 KiB of it is fetched once."""

    SIZE = 2048

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._pieces: dict[int, bytes] = {}

    async def memory(self, address: int, size: int) -> bytes:
        """So many bytes from an address, which must not cross a multiple of 2 KiB."""
        start = address - address % self.SIZE
        if start not in self._pieces:
            self._pieces[start] = await self._memory.memory(start, self.SIZE)
        return self._pieces[start][address - start : address - start + size]


def _shift(level: int) -> int:
    return 12 + 9 * (3 - level)
