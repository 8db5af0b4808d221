"""Doorbells in mapped pages: they ring without a message, so the device looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..bridge.log import limited
from ..bridge.watchdog import watched

logger = limited("pyvfio_user.devices")


class DoorbellPoller:
    """Looks at doorbells every `interval` seconds while it is running, and rings for those that hold a new value.

    `names` are for the log; `doorbells` are views of one item each, so that a value is loaded in one piece (8 bytes at
    most).
    """

    def __init__(
        self,
        names: Sequence[str],
        interval: float,
        doorbells: Sequence[memoryview],
        rings: Sequence[Callable[[int], None]],
    ) -> None:
        self._names = names
        self._interval = interval
        self._doorbells = doorbells
        self._rings = rings
        self._seen = [0] * len(doorbells)
        self._timer: asyncio.TimerHandle | None = None

    def run(self, enabled: bool) -> None:
        """Start looking, in the running event loop, or stop."""
        if enabled and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._poll)
        elif not enabled and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset(self) -> None:
        """Give the doorbells their reset value, 0."""
        for doorbell in self._doorbells:
            doorbell[0] = 0
        self._seen = [0] * len(self._doorbells)

    def _poll(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._poll)
        for index, doorbell in enumerate(self._doorbells):
            value = doorbell[0]
            if value != self._seen[index]:
                self._seen[index] = value
                try:
                    watched(f"{self._names[index]}, value {value:#x},", self._rings[index], value)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException:  # one that is cancelled, too
                    logger.exception("%s raised for value %#x", self._names[index], value)
