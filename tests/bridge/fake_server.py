"""A scripted server: it answers as a good one does, except where a test says otherwise. It tests the client alone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from .raw import DEVICE_GET_INFO, GET_IRQ_INFO, GET_REGION_INFO, HEADER, REGION_READ, REPLY, VERSION, Raw, Received

Answer = bytes | tuple[bytes, list[int]] | int | None
"""What a request gets: a body, a body with descriptors, an errno, or nothing at all."""


def _nothing(_: Received) -> Answer:
    return b""


class FakeServer:
    """One connection. `answers` maps a command to a function of the request; `requests` keeps what came."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answers: dict[int, Callable[[Received], Answer]] = {
            VERSION: lambda request: request.body,
            DEVICE_GET_INFO: lambda request: struct.pack("<IIII", 16, 3, 9, 5),
            GET_REGION_INFO: lambda request: request.body[:16] + struct.pack("<QQ", 4096, 0),
            GET_IRQ_INFO: lambda request: struct.pack("<IIII", 16, 1, *struct.unpack_from("<I", request.body, 8), 4),
            REGION_READ: lambda request: request.body + bytes(struct.unpack_from("<I", request.body, 12)[0]),
        }
        self.link: Raw | None = None

    def of(self, command: int) -> list[Received]:
        """The requests of one command."""
        return [request for request in self.requests if request.command == command]

    async def say(self, data: bytes, fds: list[int] | None = None) -> None:
        """Sends bytes to the client."""
        assert self.link is not None
        await self.link.send(data, fds or [])

    def hang_up(self) -> None:
        """Closes the connection."""
        assert self.link is not None
        self.link.sock.shutdown(socket.SHUT_RDWR)

    async def run(self, sock: socket.socket) -> None:
        """Serves until the client leaves."""
        self.link = Raw(sock)
        while True:
            try:
                request = await self.link.receive(timeout=60)
            except (EOFError, ConnectionResetError):
                return
            self.requests.append(request)
            answer = self.answers.get(request.command, _nothing)(request)
            if answer is None or request.flags & (REPLY | 0x10):
                continue
            if isinstance(answer, int):
                await self.say(HEADER.pack(request.id, request.command, HEADER.size, REPLY | 0x20, answer))
                continue
            body, fds = answer if isinstance(answer, tuple) else (answer, [])
            size = HEADER.size + len(body)
            await self.say(HEADER.pack(request.id, request.command, size, REPLY, 0) + body, fds)


@asynccontextmanager
async def fake_server(path: Path) -> AsyncIterator[FakeServer]:
    """Listens at `path` for one client."""
    server = FakeServer()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        listener.listen()

        async def run() -> None:
            sock, _ = await loop.sock_accept(listener)
            with sock:
                await server.run(sock)

        task = asyncio.create_task(run())
        try:
            yield server
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for request in server.requests:
                for fd in request.fds:
                    os.close(fd)
