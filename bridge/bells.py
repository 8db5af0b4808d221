"""Doorbells in pages that clients map: they ring without a message, so the hot path looks at them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence

from .hotpath._native import ffi, lib
from .loop import Poller
from .regions import Region

_RING = struct.Struct("=IIQ")  # number of the doorbell, 0, value
_NS = 1_000_000_000


class MappedBells:
    """Doorbells of `width` bytes (1, 2, 4 or 8) at `offsets` of a region, multiples of the width; 0 at first.

    While they are watched, `rung` is called with the number of each doorbell that holds another value, and that value,
    in the order of `offsets`; it must not raise. A doorbell that changed twice between two looks rang once.
    """

    def __init__(self, region: Region, offsets: Sequence[int], width: int, rung: Callable[[int, int], None]) -> None:
        self._region = region
        self._offsets = offsets
        self._width = width
        self._rung = rung
        self._native: object | None = None
        self._poller: Poller | None = None

    def watch(self, poller: Poller, interval: float) -> None:
        """Has `poller` look every `interval` seconds, and all the time while it spins, which it does after a ring.

        Raises:
            OSError: EINVAL when there are no such places in the region.
        """
        poller.watch_bells(self, self.native, interval)
        self._poller = poller

    def unwatch(self) -> None:
        """Ends what `watch` began; again is harmless."""
        if self._poller is not None:
            self._poller.unwatch_bells(self, self.native)
            self._poller = None

    def reset(self) -> None:
        """Gives the doorbells their reset value, 0, which is no ring."""
        lib.pvu_bells_reset(self.native)

    def on_rung(self, rings: bytes) -> None:
        """What one look found."""
        for number, _, value in _RING.iter_unpack(rings):
            self._rung(number, value)

    @property
    def native(self) -> object:
        """The doorbells for the hot path; from now on no span can be added to the region."""
        if self._native is None:
            offsets = [*self._offsets]
            native = lib.pvu_bells_new(self._region.native, offsets, len(offsets), self._width)
            if not native:
                raise OSError(ffi.errno, os.strerror(ffi.errno))
            self._native = ffi.gc(native, lib.pvu_bells_free)
        return self._native
