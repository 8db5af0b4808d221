"""Windows and memory: parts of a BAR that are bytes, not registers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..bridge.errors import DefinitionError, check_integer
from .piece import PAGE, Area, Piece

if TYPE_CHECKING:
    from ..bridge.regions import Region
    from .handlers import Handlers


class Memory(Piece):
    """`size` bytes of plain memory: what is written is what is read.

    Trapped, every access is a message that C answers, and `record=True` puts each into the device's recorder, in the
    order of arrival. With `mapped=True` the guest's accesses go straight to memory shared with the device, which sees
    nothing of them; size and offset must be multiples of 4096 then. Either way the device reads and writes `memory`.
    The guest may write a mapped one between any two looks at it: take a copy, `bytes(memory[...])`, check and use that.
    """

    def __init__(self, size: int, *, mapped: bool = False, record: bool = False) -> None:
        check_integer("size", size)
        if size <= 0:
            raise DefinitionError(f"size must be at least 1 byte, not {size}")
        if mapped and record:
            raise DefinitionError("a recorded window must be trapped, not mapped: its accesses are no messages")
        super().__init__(size, alignment=PAGE if mapped else 1)
        self.mapped = mapped
        self.record = record

    def areas(self) -> Iterator[Area]:
        """The whole of it."""
        yield Area(type(self).__name__, 0, self.size, self.mapped)

    def install(self, region: Region, base: int, handlers: Handlers) -> None:
        """Add plain memory to `region`."""
        region.add_memory(base, self.size, record=self.record)


class WriteCombineWindow(Memory):
    """A window that a driver may map write-combining: merged, split, repeated or speculated accesses do no harm."""
