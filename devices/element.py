"""The common part of registers and doorbells: a name, an offset in a block, and a width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..bridge.errors import DefinitionError, check_integer
from .piece import Area

if TYPE_CHECKING:
    from ..bridge.regions import Region
    from .handlers import Handlers
    from .registers import Registers


class Element(ABC):
    """What a `Registers` block is made of: a register or a set of doorbells, at an offset in the block."""

    def __init__(self, offset: int, *, width: int, alignment: int | None = None) -> None:
        self.offset = offset
        self.width = width
        self.alignment = width if alignment is None else alignment
        self.name = ""
        self._owner = ""
        self._names: list[str] = []

    def __set_name__(self, owner: type, name: str) -> None:
        self._names.append(name)
        if not self.name:
            self.name, self._owner = name, owner.__name__

    def __str__(self) -> str:
        return f"{self._owner}.{self.name}" if self.name else type(self).__name__

    def check(self) -> None:
        """Raise `DefinitionError` when the element cannot work."""
        if len(self._names) > 1:
            raise DefinitionError(f"{self} must be declared once, not also as {self._names[1]}")
        for what, value in (("width", self.width), ("offset", self.offset)):
            check_integer(f"{what} of {self}", value)
        if self.width not in (1, 2, 4, 8):
            raise DefinitionError(f"width of {self} must be 1, 2, 4 or 8 bytes, not {self.width}")
        if self.offset < 0 or self.offset % self.width:
            raise DefinitionError(
                f"offset of {self} must be a multiple of its {self.width} bytes, not {self.offset:#x}"
            )

    def areas(self) -> Iterator[Area]:
        """Where the element lies in its block."""
        yield Area(str(self), self.offset, self.width)

    @abstractmethod
    def install(self, region: Region, base: int, handlers: Handlers) -> None:
        """Add the element to `region`, its block starting at `base`."""

    @abstractmethod
    def lines(self, block: Registers) -> Iterator[tuple[int, str, str]]:
        """(offset, name, decoded value) for each line the element takes in a printed block."""
