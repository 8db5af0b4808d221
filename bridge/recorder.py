"""The log of what a guest did: every access to the spans of a device that record."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import DefinitionError
from .hotpath._native import ffi, lib

_RECORD = struct.Struct("=QQIBB2x8s")


class Transaction(NamedTuple):
    """One access as it reached the device, of 1 to 8 bytes; `data` is what was written, or what the read was answered.

    `sequence` counts the device's recorded transactions from 0, over all regions; `offset` is in the region.
    """

    sequence: int
    write: bool
    region: int
    offset: int
    size: int
    data: bytes

    def __str__(self) -> str:
        arrow = "<-" if self.write else "->"
        return f"#{self.sequence} region {self.region} +{self.offset:#x} {arrow} {self.data.hex(' ')}"


class Recorder:
    """Keeps the last `capacity` transactions until they are drained; what is older is dropped, and counted.

    An access of more than 8 bytes (QEMU sends none) is recorded in pieces of 8, with one sequence number each.
    """

    def __init__(self, capacity: int = 1 << 20) -> None:
        if not 1 <= capacity <= 1 << 28:
            raise DefinitionError(f"capacity must be 1 to {1 << 28} transactions, not {capacity}")
        native = lib.pvu_recorder_new(capacity)
        if not native:
            raise MemoryError(f"no memory for a recorder of {capacity} transactions")
        self.native = ffi.gc(native, lib.pvu_recorder_free)
        self._first = ffi.new("const pvu_record **")

    @property
    def dropped(self) -> int:
        """How many transactions were overwritten before they were drained, in all."""
        return int(lib.pvu_recorder_dropped(self.native))

    def drain(self) -> list[Transaction]:
        """Takes out all transactions, the oldest first."""
        found: list[Transaction] = []
        while count := lib.pvu_recorder_peek(self.native, self._first):
            records = ffi.buffer(self._first[0], count * _RECORD.size)
            found += [
                Transaction(sequence, write != 0, region, offset, size, data[:size])
                for sequence, offset, size, region, write, data in _RECORD.iter_unpack(records)
            ]
            lib.pvu_recorder_take(self.native, count)
        return found
