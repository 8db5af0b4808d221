"""What stands before a served device and decides when its client's accesses arrive."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import Callable, Iterable

from ..endpoint import Endpoint, HasEndpoint
from ..inprocess import Direct
from ..log import logger
from ..regions import Region, Rules
from ..stream import Event
from ..wire import RegionIndex
from .live import Arrived, Live
from .replay import Part
from .watched import Watch


class Front(abc.ABC):
    """An endpoint of the same regions, BARs `trapped`, whose accesses go to `_write` and `_read`.

    `wait`: seconds after which writes arrive though nothing comes behind them: they do in finite time. `watch` draws
    what is done.
    """

    def __init__(
        self,
        device: HasEndpoint,
        live: Live,
        *,
        wait: float,
        trapped: Callable[[Region], bool] = lambda region: True,
        watch: Watch | None = None,
    ) -> None:
        self.device = device
        self.live = live
        self.wait = wait
        self._watch = watch
        self._numbered = 0
        if watch is not None:
            device.endpoint.observe(watch.builder)
        self._direct = Direct(device)
        self._timer: asyncio.TimerHandle | None = None
        inner = device.endpoint
        regions = {
            index: self._front(index, region) if index < RegionIndex.ROM and trapped(region) else region
            for index, region in inner.regions.items()
        }
        self.endpoint = Endpoint(
            regions,
            inner.interrupts,
            inner.memory,
            on_reset=self._reset,
            on_leave=self.settle,  # what was posted arrives, though nobody is there any more
            on_disconnect=self._disconnected,
            name=inner.name,
        )

    def settle(self) -> None:
        """Let everything arrive that waits."""
        self._stop_timer()
        self._do(self.live.settle())

    @abc.abstractmethod
    def _write(self, bar: int, offset: int, data: bytes) -> None:
        """Take what a client writes to a BAR: `data`, 1, 2, 4 or 8 bytes at `offset`."""

    @abc.abstractmethod
    def _read(self, bar: int, offset: int, size: int) -> bytes:
        """Return the `size` bytes, 1, 2, 4 or 8, that a client's read at `offset` gets."""

    def _front(self, bar: int, inner: Region) -> Region:
        region = Region(inner.size)
        nothing = bytes(inner.size)

        def on_read(offset: int, length: int) -> None:
            region.memory[offset : offset + length] = self._read(bar, offset, length)

        def on_write(offset: int, length: int, value: int) -> None:
            self._write(bar, offset, value.to_bytes(length, "little"))

        rules = Rules(nothing, nothing, nothing, nothing, nothing)
        region.add_registers(0, rules, on_read=on_read, on_write=on_write, name=f"BAR {bar}")
        return region

    def _do(self, arrived: Iterable[Arrived], found: bytearray | None = None, start: int = 0) -> None:
        """Do what arrived; what the program's own load returns goes into `found`, whose first byte is at `start`.

        A handler that raises stops nothing else: that is logged, but the error of the program's own load is raised.
        """
        failed: list[BaseException] = []
        for each in arrived:
            if self._watch is not None:
                self._watch.arrives(each)
            made = not any(effect.optional for effect in each.effects)
            for part in each.parts:
                with contextlib.nullcontext() if self._watch is None else self._watch.delivers(part, each):
                    failed += self._deliver(part, found if made else None, start)
        if failed:
            raise failed[0]

    def _deliver(self, part: Part, found: bytearray | None, start: int) -> list[BaseException]:
        """Do it; the errors of the program's own load."""
        failed: list[BaseException] = []
        for access in part.accesses:
            if access.bar is None:
                continue
            if access.data is not None:
                self._post(access.bar, access.offset, access.data)
                continue
            try:
                data = self._direct.read(access.bar, access.offset, access.size)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                if found is None:
                    self._log("read", access.bar, access.offset, access.size)
                else:
                    failed.append(error)
                continue
            if found is not None:
                at = access.offset - start
                found[at : at + access.size] = data
        return failed

    def _post(self, bar: int, offset: int, data: bytes) -> None:
        """A write whose writer has gone on."""
        try:
            self._direct.write(bar, offset, data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            self._log("write", bar, offset, len(data))

    def _log(self, what: str, bar: int, offset: int, size: int) -> None:
        name = self.endpoint.name
        logger.exception("%s: %s of %d bytes in BAR %d at %#x, done later, failed", name, what, size, bar, offset)

    def _take(self, event: Event) -> tuple[list[Arrived], bytes | None]:
        """`Live.take`, drawn."""
        self._numbered += 1
        if self._watch is not None:
            self._watch.taken(self._numbered, event)
        arrived, answer = self.live.take(event._replace(sequence=self._numbered))
        if answer is not None and self._watch is not None:
            self._watch.answered(self._numbered)
        return arrived, answer

    def _straight(self, event: Event) -> contextlib.AbstractContextManager[None]:
        """Draws an access that is done within the block, past all that waits."""
        self._numbered += 1
        return contextlib.nullcontext() if self._watch is None else self._watch.straight(self._numbered, event)

    def _settle_later(self) -> None:
        """Unless something else comes before: by then the driver waits for the device, or does something else."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(self.wait, self.settle)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget(self) -> None:
        self.live.drop()
        if self._watch is not None:
            self._watch.dropped()
        self._stop_timer()

    def _reset(self) -> None:
        self._forget()
        if self.device.endpoint.on_reset is not None:
            self.device.endpoint.on_reset()

    def _disconnected(self) -> None:
        self._forget()
        if self.device.endpoint.on_disconnect is not None:
            self.device.endpoint.on_disconnect()
