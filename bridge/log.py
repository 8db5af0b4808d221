"""The loggers. What they say is often a client's or a guest's doing, who could fill a disk: so it is limited."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

BURST = 50
"""Most records of one kind, that is of one format, in `PERIOD`."""
PERIOD = 5.0
"""Seconds; the first record of the kind after it says how many were left out."""


class Limit(logging.Filter):
    """Lets `BURST` records of a kind pass in `PERIOD`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # since when, and how many

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        now = self._clock()
        since, count = self._kinds.get(record.msg, (now, 0))
        left_out = count - BURST
        if now - since >= PERIOD:
            since, count = now, 0
        self._kinds[record.msg] = since, count + 1
        if not count and left_out > 0:
            record.msg = f"{record.msg} ({left_out} more like it were left out before)"
        return count < BURST


def limited(name: str) -> logging.Logger:
    """The logger of this name, limited. All of it says what a limited number of formats say."""
    found = logging.getLogger(name)
    if not any(isinstance(each, Limit) for each in found.filters):
        found.addFilter(Limit())
    return found


logger = limited("pyvfio_user.bridge")
