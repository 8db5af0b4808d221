"""Which battery a cell gets: every operation once under each pair of types on each range, a named few after that.

Programs with a doorbell are for what the device gets, which no range changes: once under each pair of types.
"""

from __future__ import annotations

from .battery import BATTERY, FULL, PLATFORM, SHORT, named
from .doorbells import PROGRAMS
from .lanes.places import PLACES
from .operation import Op

CROSSING = tuple(op for op in BATTERY if op.crossing)
PLATFORM_SHORT = named("ldr-w")

Key = tuple[object, ...]


class Coverage:
    """Remembers what has had its full battery. Without ``full`` all batteries are short.

    What lies beyond a range matters to the operations that cross into it alone: when only that is new, they alone are
    run again, beside the short battery.
    """

    def __init__(self, *, full: bool) -> None:
        self._wanted = full
        self._full: dict[Key, str] = {}
        self._crossed: set[Key] = set()
        self._programmed: set[Key] = set()

    def choose(self, name: str, types: Key, beyond: Key | None) -> tuple[tuple[Op, ...], str]:
        """The operations, and the battery's name: "full", "crossing", "short", or "types" where nothing is known to be.

        ``name`` is a range, ``types`` what its accesses depend on, ``beyond`` the same of the next range (None: no
        operation can cross into another range).
        """
        if name == "platform":
            return (PLATFORM, "full") if self._wanted and (name, types) not in self._full else (PLATFORM_SHORT, "short")
        if not self._wanted:
            return SHORT, "short"
        if (name, types) not in self._full:
            return FULL + (PROGRAMS if self._to_be_programmed(name, types) else ()), "full"
        if beyond is not None and (name, types, beyond) not in self._crossed:
            return SHORT + CROSSING, "crossing"
        return SHORT, "short"

    def ran(self, name: str, types: Key, beyond: Key | None, size: str, battery: str) -> None:
        """A battery of this size was run: its key."""
        if size == "full":
            if self._to_be_programmed(name, types):
                self._programmed.add(types)
            self._full[name, types] = battery
        if size in ("full", "crossing"):
            self._crossed.add((name, types, beyond))

    def _to_be_programmed(self, name: str, types: Key) -> bool:
        place = PLACES.get(name)
        return types not in self._programmed and place is not None and place.trapped and not place.unrecorded

    def full(self, name: str, types: Key) -> str | None:
        """The key of the full battery that was run on this range under these types."""
        return self._full.get((name, types))
