"""Regions as the client sees them: BARs, the expansion ROM and config space, by message or through a map."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import wire
from .client_link import Link, ProtocolError

if TYPE_CHECKING:
    from typing import Self

_INFO = struct.Struct("<IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
_CAPABILITY = struct.Struct("<HHI")  # id, version, next
_AREAS = struct.Struct("<II")  # nr_areas, reserved
_AREA = struct.Struct("<QQ")  # offset, size
_ACCESS = struct.Struct("<QII")  # offset, region, count
_MULTI = struct.Struct("<QII8s")
_SPARSE_MMAP = 1
_MULTI_LIMIT = 200  # writes in one REGION_WRITE_MULTI, QEMU's own limit


@dataclass(frozen=True)
class MappedArea:
    """A part of a region that the client has mapped: `offset` bytes into the region, `memory` is the map itself."""

    offset: int
    memory: memoryview
    _map: mmap.mmap

    def close(self) -> None:
        """Drops the map; a view that the caller still holds keeps it alive."""
        with contextlib.suppress(BufferError):
            self.memory.release()
            self._map.close()


class ClientRegion:
    """One region of the device: its size, its access flags and its mapped areas, and the accesses to it.

    `size` is in bytes, 0 for a region that the device does not have. Accesses go by message even where the region is
    mapped: `areas` holds the maps.
    """

    def __init__(self, link: Link, index: int, flags: int, size: int, max_transfer: int) -> None:
        self._link = link
        self.index = index
        self.flags = flags
        self.size = size
        self.areas: list[MappedArea] = []
        self._max_transfer = max_transfer

    @classmethod
    async def query(cls, link: Link, index: int, max_transfer: int) -> Self:
        """Asks for the region's description as QEMU does, again when the first room was too small, and maps it."""
        body, fd = await _describe(link, index, _INFO.size)
        needed = _INFO.unpack_from(body)[0]
        if needed > _INFO.size:
            if fd is not None:
                os.close(fd)
            body, fd = await _describe(link, index, needed)
        try:
            _, flags, _, _, size, offset = _INFO.unpack_from(body)
            region = cls(link, index, flags, size, max_transfer)
            if flags & wire.RegionFlag.MMAP and fd is not None:
                for start, length in _areas(body) or [(0, size)]:
                    region._map(fd, offset, start, length)
            return region
        finally:
            if fd is not None:
                os.close(fd)

    def _map(self, fd: int, base: int, start: int, length: int) -> None:
        try:
            area = mmap.mmap(fd, length, offset=base + start)
        except (OSError, ValueError) as error:
            raise ProtocolError(
                f"an area of region {self.index} must lie within its file, not at {start:#x}, {length} bytes ({error})"
            ) from error
        self.areas.append(MappedArea(start, memoryview(area), area))

    def close(self) -> None:
        """Drops the maps."""
        for area in self.areas:
            area.close()
        self.areas.clear()

    async def read(self, offset: int, size: int) -> int:
        """Reads `size` bytes (a CPU makes accesses of 1, 2, 4 or 8) at `offset` in one message, little-endian."""
        return int.from_bytes(await self._read(offset, size), "little")

    async def write(self, offset: int, value: int, size: int) -> None:
        """Writes `value` in `size` bytes at `offset`, little-endian, and waits until the device has taken it."""
        await self._write(offset, value.to_bytes(size, "little"))

    async def post(self, offset: int, value: int, size: int) -> None:
        """Writes without a reply (NO_REPLY), as QEMU writes to a device without mapped areas."""
        body = _ACCESS.pack(offset, self.index, size) + value.to_bytes(size, "little")
        await self._link.post(wire.Command.REGION_WRITE, body)

    async def read_bytes(self, offset: int, count: int) -> bytes:
        """Reads `count` bytes at `offset`, in messages as large as the server takes."""
        step = self._max_transfer
        parts = [await self._read(at, min(step, offset + count - at)) for at in range(offset, offset + count, step)]
        return b"".join(parts)

    async def write_bytes(self, offset: int, data: bytes) -> None:
        """Writes `data` at `offset`, in messages as large as the server takes."""
        for start in range(0, len(data), self._max_transfer):
            await self._write(offset + start, data[start : start + self._max_transfer])

    async def _read(self, offset: int, count: int) -> bytes:
        reply = await self._link.request(wire.Command.REGION_READ, _ACCESS.pack(offset, self.index, count))
        if reply.body[: _ACCESS.size] != _ACCESS.pack(offset, self.index, count):
            raise ProtocolError("a reply to REGION_READ must repeat the offset, region and count of the request")
        if len(reply.body) != _ACCESS.size + count:
            raise ProtocolError(
                f"a reply to REGION_READ must carry {count} bytes, not {len(reply.body) - _ACCESS.size}"
            )
        return reply.body[_ACCESS.size :]

    async def _write(self, offset: int, data: bytes) -> None:
        access = _ACCESS.pack(offset, self.index, len(data))
        reply = await self._link.request(wire.Command.REGION_WRITE, access + data)
        if reply.body != access:
            raise ProtocolError("a reply to REGION_WRITE must repeat the offset, region and count of the request")


async def write_multi(link: Link, writes: Iterable[tuple[ClientRegion, int, bytes]]) -> None:
    """Sends writes of 1 to 8 bytes, (region, offset, data), in REGION_WRITE_MULTI messages, which have no reply."""
    packed = [_MULTI.pack(offset, region.index, len(data), data) for region, offset, data in writes]
    for start in range(0, len(packed), _MULTI_LIMIT):
        batch = packed[start : start + _MULTI_LIMIT]
        await link.post(wire.Command.REGION_WRITE_MULTI, struct.pack("<Q", len(batch)) + b"".join(batch))


async def _describe(link: Link, index: int, room: int) -> tuple[bytes, int | None]:
    """A region's description of at most `room` bytes, and its file descriptor if one came."""
    request = _INFO.pack(room, 0, index, 0, 0, 0)
    reply = await link.request(wire.Command.DEVICE_GET_REGION_INFO, request, reply_fds=1)
    if not _INFO.size <= len(reply.body) <= room:
        for fd in reply.fds:
            os.close(fd)
        raise ProtocolError(f"a region's description must be of 32 to {room} bytes, not {len(reply.body)}")
    return reply.body, reply.fds[0] if reply.fds else None


def _areas(body: bytes) -> list[tuple[int, int]]:
    """The (offset, length) areas of the sparse-mmap capability in a region's description, if it has one."""
    _, flags, _, at, _, _ = _INFO.unpack_from(body)
    seen: set[int] = set()
    try:
        while flags & wire.RegionFlag.CAPS and at and at not in seen:
            seen.add(at)
            identity, version, following = _CAPABILITY.unpack_from(body, at)
            if (identity, version) == (_SPARSE_MMAP, 1):
                count, _ = _AREAS.unpack_from(body, at + _CAPABILITY.size)
                first = at + _CAPABILITY.size + _AREAS.size
                return [_AREA.unpack_from(body, first + i * _AREA.size) for i in range(count)]
            at = following
    except struct.error as error:
        raise ProtocolError(f"a region's capabilities must lie within its description ({error})") from error
    return []
