"""Guest memory as the client gave it (DMA_MAP), and a device's accesses to it. Addresses and lengths are in bytes."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from .hotpath._native import ffi, lib
from .wire import MAX_DMA_MAPS, MAX_DMA_READ, MAX_DMA_WRITE, DmaFlag

Segment = tuple[int, int]
"""A piece of guest memory: address and length."""

Buffer = Any  # cffi's, over somebody's bytes
Ending = tuple[int, int, int]
"""How a transfer ended: 0, or an errno for the message about an address and length."""

Transfer = Callable[[list[Segment], Buffer, int, int], Awaitable[Ending]]
"""Copies between segments and a buffer, in a direction (`DmaFlag`), with up to so many bytes in a message."""

_from_buffer = ffi.from_buffer
_BYTES = ffi.typeof("char[]")
_dma_copy = lib.pvu_dma_copy
_READ: int = DmaFlag.READ.value
_WRITE: int = DmaFlag.WRITE.value

_REASONS = {
    errno.EFAULT: "must lie within memory the guest mapped, not outside it",
    errno.ENXIO: "must lie within memory mapped with a file descriptor, not be reachable by message only",
    errno.EPERM: "must wait until the guest enables bus mastering",
}


class DmaError(OSError):
    """A DMA access that cannot be; `errno` is EFAULT, EACCES, ENXIO, EPERM, ENOTCONN, or the client's own."""

    def __init__(self, error: int, message: str) -> None:
        super().__init__(message)
        self.errno = error


class SegmentList(tuple[Segment, ...]):
    """Pieces of guest memory in the hot path's form too, which spares those who go over the same ones many times.

    Raises:
        OverflowError: an address or length is no integer of 64 bits.
    """

    def __init__(self, segments: Iterable[Segment]) -> None:
        self.native = ffi.new("pvu_segment[]", self)


class GuestMemory:
    """The guest's memory, as far as the client mapped it for the device and the guest lets it master the bus.

    The synchronous methods reach memory that came with a file descriptor, and copy in C. The asynchronous ones reach
    the rest too, by DMA_READ and DMA_WRITE messages: never await them before a synchronous access is answered, for the
    client answers only after it. Threads may call the synchronous ones too: the client's DMA_UNMAP waits for them.

    The guest goes on writing its memory: what is read twice can be two things. Every read here is one copy; check the
    copy, use the copy, and do not read again what was checked.

    What is mapped must be memory, a memfd or a file on tmpfs or hugetlbfs, or a file on a disk: on a file system that
    has a block device, as ext4 and XFS. A file on any other could have the device wait for whoever serves the file
    (FUSE, NFS, 9p), or is none that memory should be on (procfs, an overlay). Btrfs and ZFS look like those.
    """

    def __init__(self) -> None:
        native = lib.pvu_dma_new(MAX_DMA_MAPS)
        if not native:
            raise MemoryError("no memory for the table of DMA maps")
        self._native = ffi.gc(native, lib.pvu_dma_free)
        self._failed = ffi.new("size_t *")
        self._transfer: Transfer | None = None
        self._chunks = {_READ: MAX_DMA_READ, _WRITE: MAX_DMA_WRITE}
        self.bus_master = False
        """Bus Master Enable of the Command register; the config space sets it."""
        self.on_moved: Callable[[bool, Sequence[Segment]], None] | None = None
        """Called when guest memory was written (True) or read, with its pieces."""

    @property
    def maps(self) -> int:
        """How many maps there are."""
        return int(lib.pvu_dma_maps(self._native))

    def read_mapped(self, address: int, length: int) -> bytes:
        """Reads guest memory at once.

        Raises:
            DmaError: not all of it is mapped, readable and with a file descriptor; or no bus mastering.
        """
        return self.gather([(address, length)])

    def write_mapped(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Writes guest memory at once.

        Raises:
            DmaError: as `read_mapped`, for writing. Nothing was written.
        """
        self.scatter([(address, len(data))], data)

    def read_into(self, address: int, buffer: bytearray | memoryview) -> None:
        """Reads as much as fills `buffer`, without another copy.

        Raises:
            DmaError: as `read_mapped`.
        """
        native = _from_buffer(_BYTES, buffer, True)
        segments = [(address, len(native))]
        if status := self._copy(segments, native, _READ):
            raise self._failure(segments, native, _READ, status)

    def gather(self, segments: Sequence[Segment]) -> bytes:
        """Reads several pieces in one call, one after another.

        Raises:
            DmaError: as `read_mapped`; the message names the first piece at fault.
        """
        buffer = bytearray(_length(segments))
        self.gather_into(segments, buffer)
        return bytes(buffer)

    def gather_into(self, segments: Sequence[Segment], buffer: bytearray | memoryview) -> None:
        """Reads several pieces in one call into `buffer`, without another copy; their lengths must add up to its own.

        Raises:
            DmaError: as `gather`.
            ValueError: the lengths do not add up.
        """
        native = _from_buffer(_BYTES, buffer, True)
        if status := self._copy(segments, native, _READ):
            raise self._failure(segments, native, _READ, status)

    def scatter(self, segments: Sequence[Segment], data: bytes | bytearray | memoryview) -> None:
        """Writes `data` to several pieces in one call, one after another; their lengths must add up to its own.

        Raises:
            DmaError: as `write_mapped`; nothing was written.
            ValueError: the lengths do not add up.
        """
        native = _from_buffer(_BYTES, data)
        if status := self._copy(segments, native, _WRITE):
            raise self._failure(segments, native, _WRITE, status)

    def read_ring(self, base: int, entry_size: int, entries: int, first: int, count: int) -> bytes:
        """Reads `count` entries of a ring of `entries` at `base`, from entry `first` on, past its end to its start.

        Raises:
            DmaError: as `read_mapped`.
            ValueError: the ring has no such entries.
        """
        if entry_size < 1 or not 0 <= first < entries or not 0 <= count <= entries:
            raise ValueError(
                f"ring entries must be within {entries} of at least 1 byte, not {count} of {entry_size} from {first}"
            )
        straight = min(count, entries - first)
        start = base + first * entry_size
        return self.gather([(start, straight * entry_size), (base, (count - straight) * entry_size)])

    async def read(self, address: int, length: int) -> bytes:
        """Reads guest memory, by messages where it came without a file descriptor.

        Raises:
            DmaError: not all of it is mapped and readable; no bus mastering; the client refused, or left.
        """
        buffer = bytearray(length)
        await self.read_segments([(address, length)], buffer)
        return bytes(buffer)

    async def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Writes guest memory, by messages where it came without a file descriptor. `data` must not change meanwhile.

        Raises:
            DmaError: as `read`, for writing; what other messages than the one that failed wrote is written.
        """
        await self.write_segments([(address, len(data))], data)

    async def read_segments(self, segments: Sequence[Segment], buffer: bytearray | memoryview) -> None:
        """As `gather_into`, by messages if not all came with a file descriptor; faster than one `read` after another.

        Raises:
            DmaError: as `read`; `buffer` has what was read before.
            ValueError: the lengths do not add up.
        """
        await self._move(segments, _from_buffer(_BYTES, buffer, True), _READ)

    async def write_segments(self, segments: Sequence[Segment], data: bytes | bytearray | memoryview) -> None:
        """As `scatter`, by messages if not all came with a file descriptor. `data` must not change meanwhile.

        Raises:
            DmaError: as `write`.
            ValueError: the lengths do not add up.
        """
        await self._move(segments, _from_buffer(_BYTES, data), _WRITE)

    def map(self, address: int, size: int, flags: int, fd: int | None, offset: int) -> None:
        """Does a DMA_MAP; `fd` stays the caller's.

        Raises:
            OSError: EINVAL for what is misaligned, empty, too long for the file, or beyond 64 bits; EEXIST for an
                overlap; ENOSPC for too many maps; EOPNOTSUPP for a file that is neither memory nor on a disk; or why
                mmap failed.
        """
        status = lib.pvu_dma_map(self._native, address, size, flags, -1 if fd is None else fd, offset)
        if status == -errno.EOPNOTSUPP:
            name = os.readlink(f"/proc/self/fd/{fd}")
            raise OSError(-status, f"guest memory must be a memfd, or a file on tmpfs, hugetlbfs or a disk, not {name}")
        _check(status)

    def unmap(self, address: int, size: int) -> None:
        """Does a DMA_UNMAP of all maps in the range.

        Raises:
            OSError: ENOENT when there is none, EINVAL when the range cuts one in two.
        """
        _check(lib.pvu_dma_unmap(self._native, address, size))

    def unmap_all(self) -> None:
        """Drops all maps."""
        lib.pvu_dma_unmap_all(self._native)

    def connect(self, transfer: Transfer, chunk: int) -> None:
        """A client is there: `transfer` reaches its memory, with up to `chunk` bytes in a message."""
        self._transfer = transfer
        self._chunks = {_READ: min(chunk, MAX_DMA_READ), _WRITE: min(chunk, MAX_DMA_WRITE)}

    def disconnect(self) -> None:
        """The client left, and its memory with it."""
        self._transfer = None
        self.unmap_all()

    def _copy(self, segments: Sequence[Segment], native: Buffer, access: int) -> int:
        """Copies between `segments` and `native` at once; 0 or a negative errno, after which `_failed` says where."""
        if not self.bus_master:
            self._failed[0] = 0
            return -errno.EPERM if segments else 0
        pieces = segments.native if type(segments) is SegmentList else [*segments]
        try:
            status: int = _dma_copy(self._native, pieces, len(segments), native, len(native), access, self._failed)
        except OverflowError:
            self._failed[0] = next(n for n, each in enumerate(segments) if not all(0 <= v < 1 << 64 for v in each))
            return -errno.EFAULT
        if self.on_moved is not None and not status:
            self.on_moved(access == _WRITE, segments)
        return status

    async def _move(self, segments: Sequence[Segment], native: Buffer, access: int) -> None:
        """Copies between `segments` and `native`, by messages if need be."""
        status = self._copy(segments, native, access)
        if status == -errno.ENXIO:
            await self._exchange(segments, native, access)
        elif status:
            raise self._failure(segments, native, access, status)

    async def _exchange(self, segments: Sequence[Segment], native: Buffer, access: int) -> None:
        direction = DmaFlag(access)
        try:
            if self._transfer is None:
                raise self._error(errno.ENOTCONN, direction, *segments[0], "must have a client that answers it")
            error, address, size = await self._transfer([*segments], native, access, self._chunks[access])
            if error == errno.EBADMSG:
                reason = "must be answered with its address, its length, and all its bytes"
                raise self._error(error, direction, address, size, reason)
            if error:
                raise self._error(error, direction, address, size, f"failed at the client: {os.strerror(error)}")
            if self.on_moved is not None:
                self.on_moved(access == _WRITE, segments)
        except ConnectionResetError as error:
            reason = f"failed at the client: {error.strerror}"
            raise self._error(errno.ECONNRESET, direction, *segments[0], reason) from error
        finally:
            ffi.release(native)

    def _failure(self, segments: Sequence[Segment], native: Buffer, access: int, status: int) -> DmaError | ValueError:
        """Why `_copy` failed; lets go of `native`."""
        length = len(native)
        ffi.release(native)  # or the exception's traceback would hold on to the caller's buffer
        if status == -errno.EINVAL:
            what = "buffer" if access == _READ else "data"
            return ValueError(f"{what} must be {_length(segments)} bytes as the segments are, not {length}")
        return self._error(-status, DmaFlag(access), *segments[self._failed[0]])

    def _error(self, error: int, access: DmaFlag, address: int, length: int, reason: str | None = None) -> DmaError:
        way = "read" if access == DmaFlag.READ else "write"
        if reason is None:
            able = "readable" if access == DmaFlag.READ else "writable"
            reason = _REASONS.get(error, f"must lie within memory mapped {able}, not otherwise")
        return DmaError(error, f"DMA {way} of {length} bytes at {address:#x} {reason}")


def _check(status: int) -> None:
    if status < 0:
        raise OSError(-status, os.strerror(-status))


def _length(segments: Sequence[Segment]) -> int:
    return sum(length for _, length in segments)
