"""Doorbells in mapped pages: they ring without a message, so the hot path looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..bridge.bells import MappedBells
from ..bridge.log import limited
from ..bridge.loop import Poller
from ..bridge.regions import Region
from ..bridge.watchdog import watched

logger = limited("pyvfio_user.devices")


class DoorbellPoller:
    """Has the hot path look at doorbells while it is running, and rings for those that hold a new value.

    It looks every `interval` seconds, and for a while without a pause when one was rung. `names` are for the log;
    `offsets` are those of the doorbells in `region`, each of `width` bytes.
    """

    def __init__(
        self,
        names: Sequence[str],
        interval: float,
        region: Region,
        offsets: Sequence[int],
        width: int,
        rings: Sequence[Callable[[int], None]],
    ) -> None:
        self._names = names
        self._interval = interval
        self._rings = rings
        self._bells = MappedBells(region, offsets, width, self._rung)
        self._running = False

    def run(self, enabled: bool) -> None:
        """Start looking, in the running event loop, or stop."""
        if enabled and not self._running:
            self._bells.watch(Poller.of(asyncio.get_running_loop()), self._interval)
        elif not enabled and self._running:
            self._bells.unwatch()
        self._running = enabled

    def reset(self) -> None:
        """Give the doorbells their reset value, 0."""
        self._bells.reset()

    def _rung(self, index: int, value: int) -> None:
        try:
            watched(f"{self._names[index]}, value {value:#x},", self._rings[index], value)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # one that is cancelled, too
            logger.exception("%s raised for value %#x", self._names[index], value)
