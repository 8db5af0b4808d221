"""What a scheme decides: pieces with a type on each side, the mappings they cost, refusals, changes at run time."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from ..attributes import MEMORY_TYPES, PAGE, MemoryType, combine
from .inputs import Range, Situation


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request the kernel refuses: the errno (positive) and why."""

    errno: int
    reason: str

    @property
    def name(self) -> str:
        """The errno's symbol, as `EINVAL`."""
        return errno.errorcode[self.errno]


@dataclass(frozen=True, slots=True)
class Choice:
    """A scheme's decision for one page, before encoding: host type (None: no user mapping), stage-2 bound, VMA flags.

    `veto`: what was asked for was refused or narrowed, and this is what stands instead.
    """

    host: MemoryType | None
    stage2: MemoryType
    vma_flags: tuple[str, ...] = ()
    veto: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Pages `offset` to `offset + size` of a BAR (or, `bar` None, at a physical address) that are treated alike.

    `host`: the type of the user mapping, None where no process maps it. `s2`: the stage-2 MemAttr nibble for the host's
    FWB setting, None where nothing is installed because `refusal` says why. `stage2`: the type that nibble stands for.
    `veto`: an ask that was refused or narrowed while the piece itself stands. `range` is the name of the range it lies
    in; `first_page` the index of its first page there.
    """

    range: str
    bar: int | None
    offset: int
    size: int
    first_page: int
    host: MemoryType | None
    vma_flags: tuple[str, ...]
    s2: int | None
    stage2: MemoryType | None
    refusal: Refusal | None = None
    veto: Refusal | None = None

    @property
    def pages(self) -> int:
        """How many 4 KiB pages it has."""
        return self.size // PAGE

    def effective(self, s1: MemoryType, fwb: bool) -> MemoryType | None:
        """The effective type of a guest that maps it as `s1`, None where stage 2 is refused."""
        return None if self.s2 is None else combine(s1, self.s2, fwb)

    def reachable(self, fwb: bool) -> dict[MemoryType, MemoryType]:
        """For each effective type that a guest can have, the first stage-1 type that gives it (slot order)."""
        found: dict[MemoryType, MemoryType] = {}
        for s1 in MEMORY_TYPES:
            result = self.effective(s1, fwb)
            if result is not None:
                found.setdefault(result, s1)
        return found


@dataclass(frozen=True, slots=True)
class BarMapping:
    """What mapping one BAR cost: mmap() calls that succeeded, VMAs that are left of them, KVM memslots."""

    bar: int
    mmaps: int
    vmas: int
    memslots: int


@dataclass(frozen=True)
class Decision:
    """A scheme's whole answer to a situation. Pieces cover every page of every BAR once, platform ranges first."""

    scheme: str
    situation: Situation
    pieces: tuple[Piece, ...]
    bars: tuple[BarMapping, ...]

    @property
    def fwb(self) -> bool:
        """Whether the nibbles are to be read with FWB=1."""
        return self.situation.host.fwb

    def of(self, name: str) -> tuple[Piece, ...]:
        """The pieces of one range, in address order; one unless its pages differ."""
        return tuple(piece for piece in self.pieces if piece.range == name)

    def at(self, name: str, page: int = 0) -> Piece:
        """The piece that holds page `page` of range `name`. Raises KeyError."""
        for piece in self.of(name):
            if piece.first_page <= page < piece.first_page + piece.pages:
                return piece
        raise KeyError((name, page))


@dataclass(frozen=True, slots=True)
class Change:
    """The device says at run time: page `page` of `range` (None: all) is write-combining-safe now, or no longer."""

    range: str
    page: int | None = None
    wc_safe: bool = True

    def pages_of(self, where: Range) -> frozenset[tuple[str, int]]:
        """The pages meant, as (name, index). Raises KeyError for a page that the range does not have."""
        if self.page is None:
            return frozenset((where.name, page) for page in range(where.pages))
        if not 0 <= self.page < where.pages:
            raise KeyError((where.name, self.page))
        return frozenset(((where.name, self.page),))


@dataclass(frozen=True)
class Adaptation:
    """What became of a change. `driver`: who brings it about for the guest, "guest", "vmm" or "nobody".

    `changed`: whether the mappings changed. The guest can be the driver without any change: its own stage 1 is enough
    where stage 2 permits both. The host's user mapping alone may change too, which is nothing to the guest.
    """

    decision: Decision
    changed: bool
    driver: str
    reason: str
