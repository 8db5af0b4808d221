"""What a device does while somebody looks on: when its handlers run, its DMA, and which interrupts it raises."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Observer(Protocol):
    """Is told of the handlers that accesses made in process (`inprocess.Direct`) have run, of DMA and of interrupts."""

    def handler(self, name: str, value: int | None) -> AbstractContextManager[None]:
        """A handler runs within the block; what it raises comes through. None: it is a read's."""

    def put_off(self, name: str) -> None:
        """The handler that runs only asks for one of `name` to run later, as `task`."""

    def task(self, name: str, value: int) -> AbstractContextManager[None]:
        """An `async` handler runs within the block; at its awaits, others may."""

    def forgotten(self, name: str) -> None:
        """What was put off will not run: the device was reset."""

    def dma(self, write: bool, segments: Sequence[tuple[int, int]]) -> None:
        """The device wrote or read guest memory: pieces by address and length. Threads of its own may, too."""

    def interrupt(self, name: str, sent: bool) -> None:
        """An interrupt was raised; not `sent`: the guest enabled none of that kind."""
