"""What is laid out in a BAR: the common part of register blocks, windows and memory."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ..bridge.errors import DefinitionError

if TYPE_CHECKING:
    from ..bridge.regions import Region
    from .handlers import Handlers

PAGE = 4096
"""Bytes in the page that mapped areas are made of."""


@dataclass(frozen=True)
class Area:
    """`length` bytes at `offset` that belong to what `name` names; `mapped` when shared with the client as memory."""

    name: str
    offset: int
    length: int
    mapped: bool = False
    read_side_effects: bool = False

    def moved(self, distance: int) -> Area:
        """The same area, `distance` bytes further on."""
        return Area(self.name, self.offset + distance, self.length, self.mapped, self.read_side_effects)


class Piece(ABC):
    """Something that takes `size` bytes of a BAR.

    The one in a device class is a declaration; a device object has its own, `attach`ed, whose `memory` is the bytes
    that the guest sees.
    """

    memory: memoryview

    def __init__(self, size: int, *, alignment: int = 1) -> None:
        self.size = size
        self.alignment = alignment

    @abstractmethod
    def areas(self) -> Iterator[Area]:
        """The parts of the piece that hold something, offsets from its start."""

    @abstractmethod
    def install(self, region: Region, base: int, handlers: Handlers) -> None:
        """Add the piece's contents to `region` at offset `base`."""

    def attach(self, region: Region, base: int, handlers: Handlers) -> Self:
        """A device's own copy of the declaration, living in `region` at offset `base`."""
        self.install(region, base, handlers)
        own = copy.copy(self)
        own.memory = region.memory[base : base + self.size]
        return own


def check_areas(areas: Iterable[Area]) -> None:
    """Raise `DefinitionError` when areas overlap or a mapped one is not made of whole pages."""
    before: Area | None = None
    for area in sorted(areas, key=lambda each: each.offset):
        for what, value in (("offset", area.offset), ("size", area.length)):
            if area.mapped and value % PAGE:
                raise DefinitionError(f"{what} of the mapped {area.name} must be a multiple of {PAGE}, not {value:#x}")
        if before is not None and area.offset < (end := before.offset + before.length):
            raise DefinitionError(
                f"{area.name} must begin at or after {end:#x}, the end of {before.name}, not at {area.offset:#x}"
            )
        before = area
