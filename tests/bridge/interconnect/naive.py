"""The legal behaviours of a small program found the slow way: all ordered partitions but those that a rule forbids.

Written from the specification (DDI 0487 B2.2, B2.4.1.1, B2.10, B2.11), without the relation, closure and enumeration
that it is to check: a total order that keeps every pair keeps every chain.

One vCPU, two PCIe functions and RAM; no dependencies. Accesses are of 4 or 8 aligned bytes, or pairs of such.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

RAM = 2
"""As a place; 0 and 1 are functions."""
WITHOUT_XS = {"01": "00", "05": "04", "09": "08", "0d": "0c", "40": "44"}
"""The encodings with XS=0, and what they are the same type as."""
FULL, LD, ST = (True, True), (True, False), (False, True)
"""What a barrier waits for: loads, stores."""


class Fence(NamedTuple):
    """A DMB or DSB in a domain that counts."""

    dsb: bool
    waits: tuple[bool, bool]


class Access(NamedTuple):
    """A load or store with its type as two hex digits; `fence` is what comes before it. `pair`: STP, LDP."""

    write: bool
    offset: int
    size: int
    type: str
    place: int = 0
    pair: bool = False
    acquire: bool = False
    rcpc: bool = False
    release: bool = False
    fence: Fence | None = None


class Piece(NamedTuple):
    """One register of an access: `number` is the access's."""

    number: int
    write: bool
    place: int
    offset: int
    size: int
    type: str
    xs: bool


class Naive:
    """Of a few accesses: which behaviours there are, by trying all."""

    def __init__(self, accesses: tuple[Access, ...]) -> None:
        self.accesses = accesses
        self.pieces = [
            Piece(
                number,
                each.write,
                each.place,
                each.offset + each.size * second,
                each.size,
                "ff" if each.place == RAM else WITHOUT_XS.get(each.type, each.type),
                each.type not in WITHOUT_XS,
            )
            for number, each in enumerate(accesses)
            for second in range(1 + each.pair)
        ]
        self.behave = [self._behaves(each) for each in self.pieces]

    def _behaves(self, piece: Piece) -> str:
        """Mismatched aliases of a location lose what Device promises (B2.11)."""
        mixed = any(other.type != piece.type and shared(other, piece) for other in self.pieces)
        return "0c" if mixed and piece.type.startswith("0") else piece.type

    def gathers(self, i: int) -> bool:
        """Whether the type permits it."""
        return self.behave[i] in ("0c", "44", "ff")

    def reorders(self, i: int) -> bool:
        """Likewise."""
        return self.behave[i] not in ("00", "04")

    def fences(self, i: int, j: int) -> list[Fence]:
        """Those between."""
        first, second = self.pieces[i].number, self.pieces[j].number
        return [each.fence for each in self.accesses[first + 1 : second + 1] if each.fence]

    def fenced(self, i: int, j: int) -> bool:
        """Barrier-ordered-before (B2.3)."""
        one, two = self.pieces[i], self.pieces[j]
        first, second = self.accesses[one.number], self.accesses[two.number]
        if one.number >= two.number:
            return False
        for fence in self.fences(i, j):
            loads, stores = fence.waits
            if (loads and stores) or (loads and not one.write) or (stores and one.write and two.write):
                return True
        acquires = not one.write and (first.acquire or first.rcpc)
        released = one.write and first.release and not two.write and second.acquire
        return acquires or (two.write and second.release) or released

    def completed(self, i: int, j: int) -> bool:
        """Whether a DSB between waits for the first (DSB-ordered-before, B2.3.4)."""
        return any(fence.dsb and fence.waits[self.pieces[i].write] for fence in self.fences(i, j))

    def chained(self, i: int, j: int, dsb: bool) -> bool:
        """Barrier-ordered-before, through others; with `dsb` Ordered-before."""

        def direct(first: int, second: int) -> bool:
            return self.fenced(first, second) or (dsb and self.completed(first, second))

        return direct(i, j) or any(self.chained(i, k, dsb) and direct(k, j) for k in range(i + 1, j))

    def coherent(self, i: int, j: int) -> bool:
        """Of one location and type, in program order."""
        one, two = self.pieces[i], self.pieces[j]
        return one.number < two.number and shared(one, two) and one.type == two.type

    def before(self, i: int, j: int) -> bool:
        """Whether a rule has i arrive before j, and not as one with it."""
        one, two = self.pieces[i], self.pieces[j]
        if one.number == two.number:
            return False
        if one.place == RAM:
            return self.chained(i, j, dsb=True)
        if two.place == RAM:
            return not one.write and self.chained(i, j, dsb=True)
        if one.place != two.place:
            return not one.write and self.completed(i, j)
        strong = not self.reorders(i) and not self.reorders(j) and one.xs == two.xs
        alone = not self.gathers(i) and not self.gathers(j)
        return strong or self.fenced(i, j) or (alone and self.chained(i, j, dsb=True))

    def mergeable(self, i: int, j: int) -> bool:
        """Whether the two may be one. The elements of one instruction have no number outside the PE (B2.10.2.4)."""
        one, two = self.pieces[i], self.pieces[j]
        pages = {at // 4096 for each in (one, two) for at in (each.offset, each.offset + each.size - 1)}
        if RAM in (one.place, two.place) or one.place != two.place or one.write != two.write or len(pages) > 1:
            return False
        return one.number == two.number or (self.gathers(i) and self.gathers(j))

    def forbidden(self, i: int, j: int, at_i: int, at_j: int) -> bool:
        """Whether a rule is broken by the earlier piece i arriving in block at_i, and j in at_j."""
        if at_i == at_j:
            return not self.mergeable(i, j) or self.before(i, j)
        return at_i > at_j and (self.before(i, j) or self.coherent(i, j))

    def answers(self, i: int, j: int) -> bool:
        """Whether bytes of the load j may come from the store i, in a write buffer."""
        kinds = self.pieces[i].write and not self.pieces[j].write and self.gathers(i) and self.gathers(j)
        return kinds and self.coherent(i, j) and not self.chained(i, j, dsb=self.pieces[i].place == RAM)

    def answered(self, j: int) -> bool:
        """Whether such stores have all bytes of the load j."""
        load, stores = self.pieces[j], [self.pieces[i] for i in range(j) if self.answers(i, j)]
        return all(
            any(s.offset <= at < s.offset + s.size for s in stores)
            for at in range(load.offset, load.offset + load.size)
        )

    def behaviours(self) -> Iterator[tuple[int, ...]]:
        """All of them, as masks."""
        everything = range(len(self.pieces))
        optional = [j for j in everything if self.answered(j)]
        for count in range(len(optional) + 1):
            for absent in combinations(optional, count):
                yield from self._of([i for i in everything if i not in absent])

    def _of(self, present: list[int]) -> Iterator[tuple[int, ...]]:
        pairs = list(combinations(present, 2))
        for blocks in partitions(present):
            at = {i: number for number, block in enumerate(blocks) for i in block}
            if not any(self.forbidden(i, j, at[i], at[j]) for i, j in pairs):
                yield tuple(sum(1 << i for i in block) for block in blocks)


def shared(one: Piece, two: Piece) -> bool:
    """Whether they have a byte in common."""
    return one.place == two.place and one.offset < two.offset + two.size and two.offset < one.offset + one.size


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All ordered partitions."""
    if not items:
        yield []
        return
    for size in range(1, len(items) + 1):
        for first in combinations(items, size):
            for others in partitions([item for item in items if item not in first]):
                yield [list(first), *others]
