"""Regions: the BARs, the ROM and the config space of a device, and how each byte of them is accessed."""

from __future__ import annotations

import fcntl
import mmap
import os
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import DefinitionError
from .hotpath._native import ffi, lib
from .wire import PAGE

ReadHandler = Callable[[int, int], int | None]
WriteHandler = Callable[[int, int, int], None]
RingHandler = Callable[[int], None]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Rules:
    """How the bits of a span of registers are accessed: masks as little-endian bytes, each as long as the span.

    A write gives `new = old & ~open | data & open`, where `open` is `writable` and those `once` bits whose byte was not
    written before; then the `w1c` bits that `data` has set are cleared. A read returns the value, then clears its `rc`
    bits. `reset` is the value at first and after a reset, which opens the `once` bits again. Bits in no mask are
    read-only.
    """

    reset: bytes
    writable: bytes
    w1c: bytes
    rc: bytes
    once: bytes

    def __post_init__(self) -> None:
        for name in ("writable", "w1c", "rc", "once"):
            if len(getattr(self, name)) != len(self.reset):
                raise DefinitionError(
                    f"{name} must be {len(self.reset)} bytes as reset is, not {getattr(self, name)!r}"
                )


class Hook(NamedTuple):
    """What Python does about a span at `offset` in its region."""

    offset: int
    length: int
    on_read: ReadHandler | None = None
    on_write: WriteHandler | None = None
    ring: RingHandler | None = None
    name: str = ""


class _Span(NamedTuple):
    offset: int
    length: int
    kind: int
    flags: int
    hook: int
    rules: Rules | None


class Echo:
    """A poller in C of memory that the client maps: a thread that spins until `stop`; made by `Region.echo`."""

    def __init__(self, region: Region, source: int, target: int) -> None:
        self._region = region  # its memory must outlive the thread
        native = lib.pvu_echo_start(region.native, source, target)
        if not native:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._native = ffi.gc(native, lib.pvu_echo_stop)

    def stop(self) -> None:
        """Ends the thread; again is harmless."""
        ffi.release(self._native)


class Region:
    """One region of `size` bytes, with spans that give it a meaning; bytes outside them read 0 and ignore writes.

    Args:
        size: in bytes. What a BAR may have is checked where a device is put together.
        mapped: parts, as (offset, length) in whole pages, that the client may map. There is then one memfd for the
            whole region, sealed against a change of its size; a client that is given it can reach all of the region.

    Raises:
        DefinitionError: a size or an area that cannot be.
    """

    def __init__(self, size: int, *, mapped: Sequence[tuple[int, int]] = ()) -> None:
        if size < 1:
            raise DefinitionError(f"size must be at least 1 byte, not {size}")
        self.size = size
        self.mapped = tuple(sorted(mapped))
        self.hooks: list[Hook] = []
        self.fd: int | None = None
        self._spans: list[_Span] = []
        self._resets: list[tuple[slice, bytes]] = []
        self._counters: tuple[int, int] | None = None
        self._signals: dict[int, Any] = {}
        self._native: Any = None
        end = 0
        for offset, length in self.mapped:
            if length < 1 or offset % PAGE or length % PAGE or offset < end or offset + length > size:
                raise DefinitionError(
                    f"mapped areas must be whole pages of {PAGE} bytes within {size:#x} bytes, without overlap, "
                    f"not {length:#x} bytes at {offset:#x}"
                )
            end = offset + length
        if self.mapped:
            self.fd = os.memfd_create("pyvfio-user", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self.fd, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            self._backing = mmap.mmap(self.fd, size)
        else:
            self._backing = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory = memoryview(self._backing)
        self._pointer = ffi.from_buffer("uint8_t[]", self._backing)

    def __del__(self) -> None:
        if getattr(self, "fd", None) is not None:
            os.close(self.fd)  # type: ignore[arg-type]
            self.fd = None

    def add_memory(self, offset: int, length: int, *, record: bool = False) -> None:
        """Makes `length` bytes at `offset` plain memory: what is written is what is read.

        Raises:
            DefinitionError: the bytes are not all in the region, or another span has some of them.
        """
        self._add(offset, length, lib.PVU_SPAN_MEMORY, record=record)

    def add_registers(
        self,
        offset: int,
        rules: Rules,
        *,
        on_read: ReadHandler | None = None,
        on_write: WriteHandler | None = None,
        record: bool = False,
        name: str = "",
    ) -> None:
        """Makes the bytes at `offset` registers under `rules`, with their reset value.

        Handlers run in the event loop's thread before the access is answered; one that raises makes it an error (EIO).
        An access that is wider than the span, or reaches over its end, is split at the spans' edges.

        Args:
            on_read: called as (offset in the span, size) before a read; returns what the *whole span* holds now, which
                is stored and then read by the rules, or None for what is stored.
            on_write: called as (offset in the span, size, value) after a write was applied by the rules; `value` is as
                written, `memory` holds what came of it.
            name: what the log calls the registers.

        Raises:
            DefinitionError: as `add_memory`.
        """
        hook = Hook(offset, len(rules.reset), on_read, on_write, name=name)
        self._add(offset, len(rules.reset), lib.PVU_SPAN_REGISTERS, hook, rules, record=record)
        place = slice(offset, offset + len(rules.reset))
        self.memory[place] = rules.reset
        self._resets.append((place, rules.reset))

    def add_doorbell(self, offset: int, width: int, ring: RingHandler, *, record: bool = False, name: str = "") -> None:
        """Makes the `width` (1, 2, 4 or 8) bytes at `offset` a doorbell.

        Each write, whole or partial, is stored, and `ring` called with the value that the doorbell then holds. The
        write is answered first and `ring` runs soon after it: calls are batched, in the order of the writes. Before a
        read is answered, any handler runs or another message is received, all doorbells rung before it have been told.

        Raises:
            DefinitionError: as `add_memory`; or `width` cannot be.
        """
        if width not in (1, 2, 4, 8):
            raise DefinitionError(f"width must be 1, 2, 4 or 8 bytes, not {width}")
        self._add(offset, width, lib.PVU_SPAN_DOORBELL, Hook(offset, width, ring=ring, name=name), record=record)
        self._resets.append((slice(offset, offset + width), bytes(width)))

    def count_accesses(self, *, reads_at: int, writes_at: int) -> None:
        """Has the hot path count all accesses to the region, in 4 bytes of `memory` each, at these offsets.

        To be said before the device is served. An access counts once it was done without an error; what it reads of the
        counters does not include itself.

        Raises:
            DefinitionError: the counters do not lie in the region.
        """
        for offset in (reads_at, writes_at):
            if not 0 <= offset <= self.size - 4:
                raise DefinitionError(f"a counter must lie in the region's {self.size:#x} bytes, not at {offset:#x}")
        self._counters = reads_at, writes_at

    def signal(self, offset: int, vectors: Any) -> None:
        """Has a write of v to the registers at `offset` signal eventfd v of `vectors` in C, before it is answered.

        To be said before the device is served. Where there is no such eventfd, `on_write` is called, which the
        registers must have.

        Args:
            offset: as given to `add_registers`.
            vectors: an array for C: `Interrupts.msix_eventfds`.

        Raises:
            DefinitionError: there are no registers with an `on_write` at `offset`.
        """
        if not any(hook.offset == offset and hook.on_write for hook in self.hooks):
            raise DefinitionError(f"registers that signal must have an on_write, not those at {offset:#x}")
        self._signals[offset] = vectors

    def echo(self, source: int, target: int) -> Echo:
        """Copies each new value of the 4 bytes at `source` to those at `target`, in a thread that spins in C.

        Both are offsets, multiples of 4. One CPU is busy until the `Echo` is stopped.

        Raises:
            OSError: EINVAL when there are no such bytes; or why there is no thread.
        """
        return Echo(self, source, target)

    def reset(self) -> None:
        """Gives registers their reset value and doorbells 0; leaves memory alone."""
        memory = self.memory
        for place, value in self._resets:
            memory[place] = value
        if self._native is not None:
            lib.pvu_region_unlock(self._native)

    @property
    def records(self) -> bool:
        """Whether any span's accesses are recorded."""
        return any(span.flags & lib.PVU_RECORD for span in self._spans)

    def record_all(self) -> None:
        """Has accesses to every span recorded, however it was added.

        Raises:
            DefinitionError: the device was served already.
        """
        if self._native is not None:
            raise DefinitionError("spans must be recorded before the device is served, not after")
        self._spans = [span._replace(flags=span.flags | lib.PVU_RECORD) for span in self._spans]

    def hooks_in(self, offset: int, size: int) -> list[Hook]:
        """The hooks about any of the `size` bytes at `offset`, ascending."""
        found = [each for each in self.hooks if each.offset < offset + size and offset < each.offset + each.length]
        return sorted(found, key=lambda each: each.offset)

    @property
    def native(self) -> Any:
        """The region for the hot path; from now on no span can be added."""
        if self._native is None:
            native = lib.pvu_region_new(self._pointer, self.size, len(self._spans))
            if not native:
                raise MemoryError(f"no memory for {len(self._spans)} spans of a region")
            self._native = ffi.gc(native, lib.pvu_region_free)
            for span in self._spans:
                masks = ffi.NULL
                if span.rules is not None:
                    rules = span.rules
                    masks = ffi.from_buffer("uint8_t[]", rules.writable + rules.w1c + rules.rc + rules.once)
                status = lib.pvu_region_add(native, span.offset, span.length, span.kind, span.flags, span.hook, masks)
                if status < 0:
                    raise OSError(-status, os.strerror(-status))
            for offset, vectors in self._signals.items():
                lib.pvu_region_signal(native, offset, vectors, len(vectors))
            if self._counters is not None:
                lib.pvu_region_count(native, *self._counters)
        return self._native

    def _add(
        self,
        offset: int,
        length: int,
        kind: int,
        hook: Hook | None = None,
        rules: Rules | None = None,
        *,
        record: bool,
    ) -> None:
        if self._native is not None:
            raise DefinitionError("spans must be added before the device is served, not after")
        if offset < 0 or length < 1 or offset + length > self.size:
            raise DefinitionError(
                f"a span must lie in the region's {self.size:#x} bytes, not {length:#x} at {offset:#x}"
            )
        at = bisect(self._spans, offset, key=lambda span: span.offset)
        for other in self._spans[max(at - 1, 0) : at + 1]:
            if offset < other.offset + other.length and other.offset < offset + length:
                raise DefinitionError(
                    f"a span must not overlap the {other.length:#x} bytes at {other.offset:#x}, "
                    f"not be {length:#x} bytes at {offset:#x}"
                )
        flags = lib.PVU_RECORD if record else 0
        index = 0
        if hook is not None and (hook.on_read or hook.on_write or hook.ring):
            flags |= (lib.PVU_HOOK_READ if hook.on_read else 0) | (lib.PVU_HOOK_WRITE if hook.on_write else 0)
            index = len(self.hooks)
            self.hooks.append(hook)
        self._spans.insert(at, _Span(offset, length, kind, flags, index, rules))
