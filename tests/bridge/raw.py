"""A client without manners: full control over the bytes, the descriptors and the order of what a server gets."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

HEADER = struct.Struct("<HHIII")  # id, command, size, flags, errno
VERSION, DMA_MAP, DMA_UNMAP, DEVICE_GET_INFO, GET_REGION_INFO = 1, 2, 3, 4, 5
GET_IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET = 7, 8, 9, 10, 11, 12, 13
WRITE_MULTI = 15
REPLY, NO_REPLY, ERROR = 1, 0x10, 0x20

# Byte for byte what QEMU 11.1.3 sends.
QEMU_JSON = (
    b'{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, '
    b'"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "write_multiple": true}}\0'
)


class Received(NamedTuple):
    """A message as it came: header fields, body, descriptors."""

    id: int
    command: int
    flags: int
    errno: int
    body: bytes
    fds: list[int]


def message(command: int, body: bytes = b"", *, id: int = 0, flags: int = 0, size: int | None = None) -> bytes:
    """A message; `size` lies about its length when given."""
    return HEADER.pack(id, command, HEADER.size + len(body) if size is None else size, flags, 0) + body


def version(json_text: bytes = QEMU_JSON, *, major: int = 0, minor: int = 0) -> bytes:
    """The body of a VERSION request."""
    return struct.pack("<HH", major, minor) + json_text


def access(region: int, offset: int, count: int, data: bytes = b"") -> bytes:
    """The body of a REGION_READ or REGION_WRITE."""
    return struct.pack("<QII", offset, region, count) + data


def write_multi(*writes: tuple[int, int, bytes]) -> bytes:
    """The body of a REGION_WRITE_MULTI of (region, offset, data)."""
    packed = [struct.pack("<QII8s", offset, region, len(data), data) for region, offset, data in writes]
    return struct.pack("<Q", len(writes)) + b"".join(packed)


def set_irqs(flags: int, index: int, start: int, count: int, data: bytes = b"") -> bytes:
    """The body of a SET_IRQS."""
    return struct.pack("<IIIII", 20 + len(data), flags, index, start, count) + data


def dma_map(iova: int, size: int, *, offset: int = 0, flags: int = 3, argsz: int = 32) -> bytes:
    """The body of a DMA_MAP."""
    return struct.pack("<IIQQQ", argsz, flags, offset, iova, size)


def dma_unmap(iova: int, size: int, *, flags: int = 0, argsz: int = 24) -> bytes:
    """The body of a DMA_UNMAP."""
    return struct.pack("<IIQQ", argsz, flags, iova, size)


class Raw:
    """A connected socket; `receive` takes the server's next message whole."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: str | Path, *, negotiate: bool = True) -> AsyncIterator[Raw]:
        """Connects, and negotiates as QEMU does unless told not to."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            raw = cls(sock)
            await raw._loop.sock_connect(sock, str(path))
            if negotiate:
                reply = await raw.request(VERSION, version())
                assert reply.flags == REPLY, reply
            yield raw

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Sends bytes, with descriptors beside the first."""
        if fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            sent = self.sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            data = data[sent:]
        await asyncio.wait_for(self._loop.sock_sendall(self.sock, data), 5)

    async def receive(self, timeout: float = 5.0) -> Received:
        """The server's next message.

        Raises:
            EOFError: the server closed the connection.
        """
        async with asyncio.timeout(timeout):
            header, fds = await self._exactly(HEADER.size)
            id, command, size, flags, errno = HEADER.unpack(header)
            assert HEADER.size <= size <= 1 << 24, f"the server sent a message of {size} bytes"
            body, more = await self._exactly(size - HEADER.size)
            assert not more, "descriptors must lead a message"
            return Received(id, command, flags, errno, body, fds)

    async def request(
        self, command: int, body: bytes = b"", fds: Sequence[int] = (), *, id: int = 0x4321, flags: int = 0
    ) -> Received:
        """Sends one message and takes the reply, which must have its id and command."""
        await self.send(message(command, body, id=id, flags=flags), fds)
        reply = await self.receive()
        assert (reply.id, reply.command, reply.flags & 1) == (id, command, REPLY)
        return reply

    async def refused(self, command: int, body: bytes = b"", fds: Sequence[int] = ()) -> int:
        """Sends a request that must be answered with an error, header only; returns the errno."""
        reply = await self.request(command, body, fds)
        assert (reply.flags, reply.body, reply.fds) == (REPLY | ERROR, b"", []), reply
        assert reply.errno > 0
        return reply.errno

    async def read(self, region: int, offset: int, count: int) -> bytes:
        """Reads a region; the reply must repeat the access."""
        reply = await self.request(REGION_READ, access(region, offset, count))
        assert (reply.flags, reply.body[:16]) == (REPLY, access(region, offset, count)), reply
        assert len(reply.body) == 16 + count
        return reply.body[16:]

    async def write(self, region: int, offset: int, data: bytes) -> None:
        """Writes a region; the reply must be 32 bytes that repeat the access."""
        reply = await self.request(REGION_WRITE, access(region, offset, len(data), data))
        assert (reply.flags, reply.body) == (REPLY, access(region, offset, len(data))), reply

    async def alive(self) -> None:
        """Asserts that the server still answers on this connection, with nothing else in front of the answer."""
        reply = await self.request(DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0), id=0x7777)
        assert (reply.flags, reply.body[:4]) == (REPLY, struct.pack("<I", 16)), reply

    async def ended(self) -> None:
        """Asserts that the server closes the connection, and says nothing before."""
        try:
            received = await self.receive()
        except (EOFError, ConnectionResetError):
            return
        raise AssertionError(f"the server must close the connection, not send {received}")

    async def _exactly(self, count: int) -> tuple[bytes, list[int]]:
        data, fds = b"", list[int]()
        while len(data) < count:
            try:
                part, ancillary, _, _ = self.sock.recvmsg(count - len(data), socket.CMSG_SPACE(64))
            except BlockingIOError:
                await self._readable()
                continue
            for _, _, payload in ancillary:
                fds += array.array("i", payload)
            if not part:
                raise EOFError("the server closed the connection")
            data += part
        return data, fds

    async def _readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self.sock, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            self._loop.remove_reader(self.sock)


def capabilities(reply: Received) -> dict[str, object]:
    """The capabilities in a VERSION reply, whose JSON must end in NUL."""
    assert reply.body[:4] == bytes(4), "the version must be 0.0"
    assert reply.body.endswith(b"\0")
    answer: dict[str, object] = json.loads(reply.body[4:-1])["capabilities"]
    return answer


def open_descriptors() -> list[str]:
    """What this process has open, by what it points at."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the one that listed the folder
            continue
    return sorted(found)
