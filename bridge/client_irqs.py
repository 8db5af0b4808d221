"""Interrupts as the client sees them: an eventfd a vector, and the SET_IRQS requests with which QEMU sets them up."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator, Sequence

from . import wire
from .client_link import Link

_INFO = struct.Struct("<IIII")  # argsz, flags, index, count
_SET = struct.Struct("<IIIII")  # argsz, flags, index, start, count


async def set_irqs(
    link: Link, flags: int, index: int, start: int, count: int, *, data: bytes = b"", fds: Sequence[int] = ()
) -> None:
    """Sends one SET_IRQS.

    `flags` is a DATA and an ACTION flag, `data` holds the booleans of DATA_BOOL, `fds` are those of DATA_EVENTFD.
    """
    body = _SET.pack(_SET.size + len(data), flags, index, start, count) + data
    await link.request(wire.Command.DEVICE_SET_IRQS, body, fds)


class Vector:
    """One interrupt vector: an eventfd that the server signals."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self.number = number
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def take(self) -> int:
        """How often the interrupt was signalled since the last look, 0 if it was not."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    async def wait(self, timeout: float | None = 5.0) -> int:
        """Waits until the interrupt is signalled; returns how often it was since the last look.

        Raises:
            TimeoutError: it was not within `timeout` seconds.
            ConnectionError: the connection to the server is lost, and the interrupt was not signalled before.
        """
        loop = asyncio.get_running_loop()
        signalled: asyncio.Future[None] = loop.create_future()

        def signal() -> None:
            if not signalled.done():
                signalled.set_result(None)

        loop.add_reader(self.fd, signal)
        try:
            waiters: list[asyncio.Future[None] | asyncio.Future[ConnectionError]] = [signalled, self._link.lost]
            await asyncio.wait(waiters, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self.fd)
        count = self.take()
        if count:
            return count
        if self._link.lost.done():
            reason = self._link.lost.result()
            raise type(reason)(*reason.args)
        raise TimeoutError(f"vector {self.number} was not signalled within {timeout} s")

    def close(self) -> None:
        """Closes the eventfd."""
        os.close(self.fd)


class ClientInterrupts:
    """The vectors of one kind of interrupt: INTx, MSI, MSI-X, ERR or REQ.

    `len()` is what the device offers; a vector exists once `enable` gave it an eventfd. `flags` are those of
    GET_IRQ_INFO.
    """

    def __init__(self, link: Link, index: int, flags: int, count: int, max_fds: int) -> None:
        self._link = link
        self._max_fds = max_fds
        self.index = index
        self.flags = flags
        self.count = count
        self._vectors: list[Vector] = []

    @classmethod
    async def query(cls, link: Link, index: int, max_fds: int) -> ClientInterrupts:
        """Asks the server for the description of interrupt kind `index`."""
        reply = await link.request(wire.Command.DEVICE_GET_IRQ_INFO, _INFO.pack(_INFO.size, 0, index, 0))
        _, flags, _, count = _INFO.unpack(reply.body)
        return cls(link, index, flags, count, max_fds)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Vector:
        if not 0 <= number < self.count:
            raise IndexError(f"vector must be 0 to {self.count - 1}, not {number}")
        if number >= len(self._vectors):
            raise RuntimeError(f"vector {number} must be enabled before it is used")
        return self._vectors[number]

    def __iter__(self) -> Iterator[Vector]:
        return iter(self._vectors)

    async def enable(self, count: int | None = None) -> None:
        """Gives the first `count` vectors (all by default) an eventfd each, as many a message as the server takes."""
        await self.disable()
        await self.assign(self.count if count is None else count, self._max_fds)

    async def assign(self, count: int, step: int) -> None:
        """Gives `count` vectors an eventfd each, `step` vectors a message, without disabling the kind before."""
        self.close()
        self._vectors = [Vector(self._link, number) for number in range(count)]
        for start in range(0, count, step):
            fds = [vector.fd for vector in self._vectors[start : start + step]]
            await self._set(wire.IrqSet.DATA_EVENTFD | wire.IrqSet.TRIGGER, start, len(fds), fds)

    async def disable(self) -> None:
        """Takes all vectors from the device: DATA_NONE, TRIGGER, count 0."""
        await self._set(wire.IrqSet.DATA_NONE | wire.IrqSet.TRIGGER, 0, 0)
        self.close()

    async def unmask(self, number: int = 0) -> None:
        """Unmasks a vector; for INTx this is the end of the interrupt, and it fires again if still asserted."""
        await self._set(wire.IrqSet.DATA_NONE | wire.IrqSet.UNMASK, number, 1)

    async def mask(self, number: int = 0) -> None:
        """Masks a vector."""
        await self._set(wire.IrqSet.DATA_NONE | wire.IrqSet.MASK, number, 1)

    async def trigger(self, number: int = 0) -> None:
        """Makes the server signal a vector, as if the device had."""
        await self._set(wire.IrqSet.DATA_NONE | wire.IrqSet.TRIGGER, number, 1)

    def close(self) -> None:
        """Closes the eventfds."""
        for vector in self._vectors:
            vector.close()
        self._vectors.clear()

    async def _set(self, flags: int, start: int, count: int, fds: Sequence[int] = ()) -> None:
        await set_irqs(self._link, flags, self.index, start, count, fds=fds)
