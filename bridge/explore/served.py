"""A served device whose client's posted writes wait, merge and change places, as the memory types permit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from ..attributes import MemoryType
from ..endpoint import Endpoint, HasEndpoint
from ..inprocess import Direct
from ..interconnect import DEFAULT_LINK, RULES, Link, Rules, dmb
from ..regions import Region
from ..regions import Rules as Access
from ..stream import Event, Flag, Kind
from ..wire import RegionIndex
from .live import HELD, Arrived, Live


class Assumed(NamedTuple):
    """What the driver does with a range of a BAR: the effective type, and whether a DMB OSHST is before each store.

    A client sends no types and no barriers: what is said here is taken for true. `barrier` is what Linux's writel has.
    """

    bar: int
    offset: int
    size: int
    type: MemoryType
    barrier: bool = False


class Reordered:
    """Stands before a device, to be served in its place: `serve(Reordered(Mine(), [Assumed(...)], seed=1), path)`.

    All BARs are trapped. Accesses outside of the ranges go straight on. `wait`: seconds after which writes arrive
    though nothing comes behind them: they do in finite time. A run is the same again with the same seed when the client
    makes the same accesses, without a pause of that length within them.
    """

    def __init__(
        self,
        device: HasEndpoint,
        types: Sequence[Assumed],
        *,
        seed: int,
        held: int = HELD,
        wait: float = 0.02,
        rules: Rules = RULES,
        link: Link = DEFAULT_LINK,
    ) -> None:
        self.device = device
        self.live = Live(seed, held=held, rules=rules, link=link)
        self._types = types
        self._wait = wait
        self._direct = Direct(device)
        self._timer: asyncio.TimerHandle | None = None
        inner = device.endpoint
        regions = {
            index: self._front(index, region.size) if index < RegionIndex.ROM else region
            for index, region in inner.regions.items()
        }
        self.endpoint = Endpoint(
            regions,
            inner.interrupts,
            inner.memory,
            on_reset=self._reset,
            on_disconnect=self._disconnected,
            name=inner.name,
        )

    def settle(self) -> None:
        """Let everything arrive that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._do(self.live.settle())

    def _front(self, bar: int, size: int) -> Region:
        region = Region(size)
        nothing = bytes(size)

        def on_read(offset: int, length: int) -> None:
            region.memory[offset : offset + length] = self._read(bar, offset, length)

        def on_write(offset: int, length: int, value: int) -> None:
            self._write(bar, offset, value.to_bytes(length, "little"))

        rules = Access(nothing, nothing, nothing, nothing, nothing)
        region.add_registers(0, rules, on_read=on_read, on_write=on_write, name=f"BAR {bar}")
        return region

    def _assumed(self, bar: int, offset: int) -> Assumed | None:
        return next((each for each in self._types if each.bar == bar and 0 <= offset - each.offset < each.size), None)

    def _write(self, bar: int, offset: int, data: bytes) -> None:
        assumed = self._assumed(bar, offset)
        if assumed is None:
            self._direct.write(bar, offset, data)
            return
        if assumed.barrier:
            (barrier,) = dmb("oshst")
            self._do(self.live.take(barrier)[0])
        event = Event(Kind.STORE, offset, len(data), data, bar, type=assumed.type, peripheral=0)
        self._do(self.live.take(event)[0])
        if self.live.waiting:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._wait, self.settle)

    def _read(self, bar: int, offset: int, size: int) -> bytes:
        assumed = self._assumed(bar, offset)
        if assumed is None:
            return self._direct.read(bar, offset, size)
        event = Event(Kind.LOAD, offset, size, b"", bar, type=assumed.type, peripheral=0, flags=Flag.NO_DATA)
        arrived, answer = self.live.take(event)
        found = bytearray(size)
        self._do(arrived, found, offset)
        return bytes(found) if answer is None else answer

    def _do(self, arrived: Sequence[Arrived], found: bytearray | None = None, start: int = 0) -> None:
        for access in (access for each in arrived for access in each.accesses):
            if access.bar is None:
                continue
            if access.data is not None:
                self._direct.write(access.bar, access.offset, access.data)
            elif found is not None:
                at = access.offset - start
                found[at : at + access.size] = self._direct.read(access.bar, access.offset, access.size)

    def _forget(self) -> None:
        self.live.drop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _reset(self) -> None:
        self._forget()
        if self.device.endpoint.on_reset is not None:
            self.device.endpoint.on_reset()

    def _disconnected(self) -> None:
        self._forget()
        if self.device.endpoint.on_disconnect is not None:
            self.device.endpoint.on_disconnect()
