"""A served device whose client's posted writes wait, merge and change places, as memory types that are named permit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..attributes import MemoryType
from ..endpoint import HasEndpoint
from ..errors import DefinitionError
from ..interconnect import DEFAULT_LINK, RULES, Link, Rules, dmb
from ..stream import Event, Flag, Kind
from ..wire import RegionIndex
from .front import Front
from .live import HELD, Live
from .watched import Watch

WAIT = 0.02
"""Seconds without an access after which what waits arrives, if not told otherwise."""


class Assumed(NamedTuple):
    """What the driver does with a range of a BAR: the effective type, and whether a DMB OSHST is before each store.

    A client sends no types and no barriers: what is said here is taken for true. `barrier` is what Linux's writel has.
    """

    bar: int
    offset: int
    size: int
    type: MemoryType
    barrier: bool = False


class Reordered(Front):
    """Stands before a device, to be served in its place: `serve(Reordered(Mine(), [Assumed(...)], seed=1), path)`.

    All BARs are trapped. Accesses outside of the ranges go straight on. `wait`: seconds after which writes arrive
    though nothing comes behind them: they do in finite time. A run is the same again with the same seed when the client
    makes the same accesses, without a pause of that length within them. `watch` draws the run.

    Raises DefinitionError for a range that is not within a BAR of the device.
    """

    def __init__(
        self,
        device: HasEndpoint,
        types: Sequence[Assumed],
        *,
        seed: int,
        held: int = HELD,
        wait: float = WAIT,
        rules: Rules = RULES,
        link: Link = DEFAULT_LINK,
        watch: Watch | None = None,
    ) -> None:
        for each in types:
            region = device.endpoint.regions.get(each.bar) if each.bar < RegionIndex.ROM else None
            size = 0 if region is None else region.size
            if not 0 < each.size <= size - each.offset:
                raise DefinitionError(
                    f"what is assumed must be within BAR {each.bar}, of {size} bytes, "
                    f"not {each.size} bytes at {each.offset:#x}"
                )
        super().__init__(device, Live(seed, held=held, rules=rules, link=link), wait=wait, watch=watch)
        self._types = types

    def _assumed(self, bar: int, offset: int) -> Assumed | None:
        return next((each for each in self._types if each.bar == bar and 0 <= offset - each.offset < each.size), None)

    def _write(self, bar: int, offset: int, data: bytes) -> None:
        assumed = self._assumed(bar, offset)
        event = Event(Kind.STORE, offset, len(data), data, bar, peripheral=0)
        if assumed is None:
            with self._straight(event):
                self._direct.write(bar, offset, data)
            return
        if assumed.barrier:
            (barrier,) = dmb("oshst")
            self._do(self._take(barrier)[0])
        self._do(self._take(event._replace(type=assumed.type))[0])
        if self.live.waiting:
            self._settle_later()

    def _read(self, bar: int, offset: int, size: int) -> bytes:
        assumed = self._assumed(bar, offset)
        event = Event(Kind.LOAD, offset, size, b"", bar, peripheral=0, flags=Flag.NO_DATA)
        if assumed is None:
            with self._straight(event):
                return self._direct.read(bar, offset, size)
        arrived, answer = self._take(event._replace(type=assumed.type))
        found = bytearray(size)
        self._do(arrived, found, offset)
        return bytes(found) if answer is None else answer
