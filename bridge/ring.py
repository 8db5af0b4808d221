"""The ring of labelled events: shared memory that a tracer writes and this process reads. Layout: hotpath/event.h."""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import struct
from types import TracebackType
from typing import Self

from .attributes import Controls, MemoryType, combine
from .errors import DefinitionError
from .hotpath._native import ffi, lib
from .stream import EVENT, NO_STAGE_2

_HEADER = struct.Struct("<QIIQ")
_MAGIC = 0x474E4952_55565000
_VERSION = 1
_TYPES_AT = 256
_EVENTS_AT = 7 * 4096
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_RESERVED = 0x02
"""An encoding that MAIR_ELx reserves: the effective type is not known."""


@functools.cache
def effective_types() -> bytes:
    """The effective type by HCR_EL2.CD, HCR_EL2.FWB, stage-2 MemAttr (16: no stage 2) and stage-1 byte.

    So that the writer has the rules of `attributes` without knowing them. 0x02 where they say nothing.
    """
    return bytes(
        _effective(stage1, stage2, bool(fwb), Controls(cd=bool(cd)))
        for cd in (0, 1)
        for fwb in (0, 1)
        for stage2 in range(NO_STAGE_2 + 1)
        for stage1 in range(256)
    )


def _effective(stage1: int, stage2: int, fwb: bool, controls: Controls) -> int:
    try:
        return combine(
            MemoryType(stage1), None if stage2 == NO_STAGE_2 else stage2, fwb, controls=controls, mte_perm=False
        ).byte
    except DefinitionError:
        return _RESERVED


class Ring:
    """A ring in memory of its own; a context manager. `path` names it for other processes of this user, while it lives.

    There is one reader, this object. What finds the ring full is not in it: `dropped` counts it, and an event of kind
    LOST stands in its place as soon as there is room.
    """

    def __init__(self, capacity: int = 1 << 20) -> None:
        """Lay out a ring of `capacity` events (a power of two, 16 to 2**26) of 64 bytes each. Raises OSError."""
        if capacity.bit_count() != 1 or not 16 <= capacity <= 1 << 26:
            raise DefinitionError(f"capacity must be a power of two, 16 to {1 << 26} events, not {capacity}")
        self._capacity = capacity
        self._fd = os.memfd_create("pyvfio-user-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._fd, _EVENTS_AT + capacity * EVENT.size)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)  # a writer that cut it short would end its reader
            self._map = mmap.mmap(self._fd, 0)
        except BaseException:
            os.close(self._fd)
            raise
        _HEADER.pack_into(self._map, 0, _MAGIC, _VERSION, EVENT.size, capacity)
        types = effective_types()
        self._map[_TYPES_AT : _TYPES_AT + len(types)] = types
        self._shared = ffi.from_buffer(self._map, require_writable=True)
        self._taken = ffi.new("uint64_t *")
        self._batch = bytearray(min(capacity, 1 << 16) * EVENT.size)
        self._to = ffi.from_buffer(self._batch, require_writable=True)

    @property
    def path(self) -> str:
        """Where another process opens it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @property
    def dropped(self) -> int:
        """How many events found no room, in all."""
        return int(lib.pvu_ring_dropped(self._shared))

    def take(self) -> memoryview:
        """The oldest events, whole, as they are packed: at most 65536; empty when there are none.

        The view is of memory that the next call uses again. One thread may call this while others run.
        """
        count = lib.pvu_ring_take(self._shared, self._capacity, self._taken, self._to, len(self._batch) // EVENT.size)
        return memoryview(self._batch)[: count * EVENT.size]

    def close(self) -> None:
        """Give up the memory; a writer keeps its own map of it."""
        ffi.release(self._shared)
        self._map.close()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
