"""Labelled events as a tracer writes them while the guest runs, given out by device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..ring import Ring
from ..stream import EVENT, Event, Kind, unpack_all

_OF_ALL = (Kind.BARRIER, Kind.DGH, Kind.LOST)
"""What is of no device: it counts for all that its vCPU does."""


class Labels:
    """The reader of a ring. `keep` is given all that was read, as it is packed: to write it to a file.

    QEMU's plugin writes an event right *after* the access, before the vCPU goes on: so when a device sees an access,
    the events of all that the same vCPU did before are in the ring, and the access's own may be or come soon.
    """

    def __init__(self, ring: Ring, keep: Callable[[memoryview], object] | None = None) -> None:
        self.events = 0
        """How many were read."""
        self.dropped = 0
        """How many found the ring full."""
        self._ring = ring
        self._keep = keep
        self._devices: dict[int, deque[Event]] = {}

    def of(self, peripheral: int) -> deque[Event]:
        """The events of a PCI function and what orders them, the oldest first; `read` appends to it."""
        return self._devices.setdefault(peripheral, deque())

    def read(self) -> None:
        """Give out what has come."""
        self.dropped = self._ring.dropped
        while batch := self._ring.take():
            self.events += len(batch) // EVENT.size
            if self._keep is not None:
                self._keep(batch)
            for event in unpack_all(batch):
                if event.kind in _OF_ALL:
                    for each in self._devices.values():
                        if not _there_already(each, event):
                            each.append(event)
                elif event.peripheral in self._devices:
                    self._devices[event.peripheral].append(event)


def _there_already(events: deque[Event], event: Event) -> bool:
    """Whether the same barrier of that vCPU stands there, and no access behind it."""
    for earlier in reversed(events):
        if earlier.kind not in _OF_ALL or earlier.kind is Kind.LOST:
            return False
        if (earlier.vcpu, earlier.kind, earlier.barrier) == (event.vcpu, event.kind, event.barrier):
            return True
    return False
