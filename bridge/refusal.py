"""Turns away a client that is not to be served: another one is, or its user is not the server's."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from . import wire
from .hotpath._native import lib

_FD = struct.Struct("=i")
_ROOM = socket.CMSG_SPACE(253 * _FD.size)  # for all descriptors that the kernel lets through at once
_PATIENCE = 1.0  # seconds for the client to say VERSION and, once refused, to leave


class Refusal:
    """Answers the VERSION of the client on `connection`, which is taken over, with `error`; then calls `ended`.

    Merely closing the connection would do for most, but QEMU 11.1.3 may abort when it meets the end of the stream
    while it sends its VERSION. So the client is left to close it, within a second.
    """

    def __init__(self, connection: socket.socket, error: int, ended: Callable[[Refusal], None]) -> None:
        self._connection = connection
        self._error = error
        self._ended = ended
        self._header = b""
        connection.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._receive)
        self._timer = self._loop.call_later(_PATIENCE, self.close)

    def close(self) -> None:
        """Closes the connection."""
        self._timer.cancel()
        self._loop.remove_reader(self._connection)
        lib.pvu_hang_up(self._connection.detach())
        self._ended(self)

    def _receive(self) -> None:
        try:
            data, beside, _, _ = self._connection.recvmsg(4096, _ROOM)
            for _, _, rights in beside:
                for (fd,) in _FD.iter_unpack(rights):
                    lib.pvu_drop(fd)
            if data and len(self._header) < wire.HEADER.size:
                self._header += data
                if len(self._header) >= wire.HEADER.size:
                    self._answer(wire.HEADER.unpack_from(self._header))
        except BlockingIOError:
            return
        except OSError:  # it left without reading
            data = b""
        if not data:
            self.close()

    def _answer(self, request: wire.Header) -> None:
        reply = wire.REPLY | wire.ERROR
        self._connection.send(
            wire.HEADER.pack(request.message_id, request.command, wire.HEADER.size, reply, self._error),
            socket.MSG_NOSIGNAL,
        )
