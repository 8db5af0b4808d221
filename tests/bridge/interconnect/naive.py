"""The legal behaviours of a small program found the slow way: all ordered partitions but those that a rule forbids.

Written from the specification, without the relation, closure and enumeration that it is to check: a total order that
keeps every pair keeps every chain.

One vCPU and one peripheral; accesses are of 8 aligned bytes, of a Device type with XS=1 or NC.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

NR, NG, NC = ("00", "04"), ("00", "04", "08"), "44"
FULL, LD, ST, NOTHING = "full", "ld", "st", "ish"


class Access(NamedTuple):
    """A load or store with its type as two hex digits; `fence` is what comes before it."""

    write: bool
    slot: int
    type: str
    acquire: bool = False
    release: bool = False
    fence: str = NOTHING


class Naive:
    """Of a few accesses: which behaviours there are, by trying all."""

    def __init__(self, accesses: tuple[Access, ...]) -> None:
        self.accesses = accesses
        mixed = {a.slot for a in accesses for b in accesses if a.slot == b.slot and a.type != b.type}
        self.behave = [("44" if a.type == NC else "0c") if a.slot in mixed else a.type for a in accesses]

    def fenced(self, i: int, j: int) -> bool:
        """Barrier-ordered-before."""
        first, second = self.accesses[i], self.accesses[j]
        fences = {access.fence for access in self.accesses[i + 1 : j + 1]}
        return (
            FULL in fences
            or (LD in fences and not first.write)
            or (ST in fences and first.write and second.write)
            or (first.acquire and not first.write)
            or (second.release and second.write)
            or (first.release and first.write and second.acquire and not second.write)
        )

    def chained(self, i: int, j: int) -> bool:
        """Likewise, through others."""
        return self.fenced(i, j) or any(self.chained(i, k) and self.fenced(k, j) for k in range(i + 1, j))

    def coherent(self, i: int, j: int) -> bool:
        """Of one location and type."""
        return self.accesses[i][1:3] == self.accesses[j][1:3]

    def mergeable(self, i: int, j: int) -> bool:
        """Whether types and kinds let the two be gathered."""
        same = self.accesses[i].write == self.accesses[j].write
        return same and self.behave[i] not in NG and self.behave[j] not in NG

    def forbidden(self, i: int, j: int, at_i: int, at_j: int) -> bool:
        """Whether a rule is broken by the earlier access i arriving in block at_i, and j in at_j."""
        if at_i == at_j:
            return not self.mergeable(i, j) or self.fenced(i, j)
        if at_i < at_j:
            return False
        return (self.behave[i] in NR and self.behave[j] in NR) or self.fenced(i, j) or self.coherent(i, j)

    def optional(self) -> list[int]:
        """Loads that a store in the buffer may answer."""
        pairs = combinations(range(len(self.accesses)), 2)
        return sorted(
            {
                j
                for i, j in pairs
                if self.accesses[i].write and not self.accesses[j].write
                if self.coherent(i, j) and self.behave[i] not in NG and not self.chained(i, j)
            }
        )

    def behaviours(self) -> Iterator[tuple[int, ...]]:
        """All of them, as masks."""
        optional = self.optional()
        for count in range(len(optional) + 1):
            for absent in combinations(optional, count):
                present = [i for i in range(len(self.accesses)) if i not in absent]
                yield from self._of(present)

    def _of(self, present: list[int]) -> Iterator[tuple[int, ...]]:
        pairs = list(combinations(present, 2))
        for blocks in partitions(present):
            at = {i: number for number, block in enumerate(blocks) for i in block}
            if not any(self.forbidden(i, j, at[i], at[j]) for i, j in pairs):
                yield tuple(sum(1 << i for i in block) for block in blocks)


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All ordered partitions."""
    if not items:
        yield []
        return
    for size in range(1, len(items) + 1):
        for first in combinations(items, size):
            for others in partitions([item for item in items if item not in first]):
                yield [list(first), *others]
