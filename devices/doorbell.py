"""Doorbells: registers that a driver writes to say that there is work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self, overload

from ..bridge.errors import DefinitionError, check_integer
from ..bridge.regions import Rules
from .element import Element
from .handlers import RingHandlerT, attach_handler
from .piece import PAGE, Area

if TYPE_CHECKING:
    from ..bridge.regions import Region
    from .handlers import Handlers
    from .registers import Registers


class Doorbell(Element):
    """`count` doorbells, `stride` bytes apart from `offset` on, each of `width` bytes.

    A ring is a write. Trapped, it is a message that the hot path queues, and handlers get rings in batches; with
    `record=True` each goes into the device's recorder too. With `mapped=True` each doorbell has a page of its own that
    is shared with the guest, and a ring is a plain store: the hot path looks every `poll` seconds while the guest has
    memory space enabled, and without a pause for a while after a ring (`spin_us`), and rings when the value is another
    one. Rings between two looks are one, the last; the doorbells of all that one look finds are rung one after another.
    """

    def __init__(
        self,
        offset: int,
        *,
        width: int = 4,
        count: int = 1,
        stride: int | None = None,
        mapped: bool = False,
        poll: float = 0.001,
        record: bool = False,
    ) -> None:
        super().__init__(offset, width=width, alignment=PAGE if mapped else None)
        self.count = count
        self.stride = stride if stride is not None else PAGE if mapped else width
        self.mapped = mapped
        self.poll = poll
        self.record = record

    @overload
    def __get__(self, block: None, owner: type) -> Self: ...
    @overload
    def __get__(self, block: Registers, owner: type) -> tuple[int, ...]: ...
    def __get__(self, block: Registers | None, owner: type) -> Self | tuple[int, ...]:
        if block is None:
            return self
        starts = range(self.offset, self.offset + self.count * self.stride, self.stride)
        return tuple(int.from_bytes(block.memory[start : start + self.width], "little") for start in starts)

    def rung(self, handler: RingHandlerT) -> RingHandlerT:
        """Call the decorated method of a device, `(self, index, value)`, for each ring, in their order.

        `index` is 0 to `count` - 1. An `async` method runs as a task, for each doorbell one call after another.
        """
        return attach_handler(handler, self, "ring")

    def areas(self) -> Iterator[Area]:
        """The bytes of each doorbell, or its pages when it is mapped."""
        for index in range(self.count):
            name = f"{self}[{index}]" if self.count > 1 else str(self)
            yield Area(name, self.offset + index * self.stride, PAGE if self.mapped else self.width, self.mapped)

    def check(self) -> None:
        """Raise `DefinitionError` when the doorbells cannot be told apart."""
        super().check()
        for what, value in (("count", self.count), ("stride", self.stride)):
            check_integer(f"{what} of {self}", value)
        if self.count < 1:
            raise DefinitionError(f"count of {self} must be at least 1, not {self.count}")
        if self.stride < self.width or self.stride % self.width:
            raise DefinitionError(f"stride of {self} must be a multiple of its {self.width} bytes, not {self.stride}")
        if not isinstance(self.poll, int | float) or not self.poll > 0:
            raise DefinitionError(f"poll of {self} must be more than 0 seconds, not {self.poll!r}")
        if self.mapped and self.record:
            raise DefinitionError(f"{self} must be trapped to be recorded, not mapped: its rings are no messages")

    def install(self, region: Region, base: int, handlers: Handlers) -> None:
        """Add the doorbells to `region`, with the device's handler."""
        starts = [base + self.offset + index * self.stride for index in range(self.count)]
        rings = [ring for index, start in enumerate(starts) if (ring := handlers.ring(self, index, start)) is not None]
        for index, start in enumerate(starts):
            if self.mapped:
                region.add_memory(start, PAGE)
            elif rings:
                name = f"{self}[{index}]" if self.count > 1 else str(self)
                region.add_doorbell(start, self.width, rings[index], record=self.record, name=name)
            else:
                ones, none = b"\xff" * self.width, bytes(self.width)
                region.add_registers(start, Rules(none, ones, none, none, none), record=self.record)
        if self.mapped and rings:
            handlers.add_poller(self, self.poll, region, starts, rings)

    def lines(self, block: Registers) -> Iterator[tuple[int, str, str]]:
        """One line for each doorbell."""
        for index, value in enumerate(self.__get__(block, type(block))):
            name = f"{self.name}[{index}]" if self.count > 1 else self.name
            yield self.offset + index * self.stride, name, f"{value:#0{2 + 2 * self.width}x}"
