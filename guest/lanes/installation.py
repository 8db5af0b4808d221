"""What a lane is told to install: pages with a stage-2 attribute and a host type, and the ranges that lie in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...bridge.attributes import MemoryType
from ..operation import PAGE
from ..plan import MAIR, Range
from .places import Place


@dataclass(frozen=True)
class Patch:
    """Pages treated alike: stage-2 MemAttr, and the type of the host's own mapping (None: no process maps it)."""

    place: Place
    stage2: int
    host: MemoryType | None


@dataclass(frozen=True)
class Installation:
    """Patches by name."""

    patches: Mapping[str, Patch]

    def ranges(self) -> list[Range]:
        """The pages as the guest is told them. Where the host maps nothing the guest's EL2 window has Device-nGnRnE."""
        return [
            Range(p.place.bar, p.place.offset, p.place.size // PAGE, p.stage2, MAIR.index(p.host.byte) if p.host else 0)
            for p in self.patches.values()
        ]

    def following(self, name: str) -> str | None:
        """The patch whose arena begins where this one's ends, which a crossing operation can reach."""
        place = self.patches[name].place
        if not place.crossable:
            return None
        for other, patch in self.patches.items():
            after = patch.place
            if after.arena_size and (after.bar, after.offset, after.arena_offset) == (place.bar, place.end, place.end):
                return other
        return None
