"""The client's end of a vfio-user socket: framed messages, pipelined requests, file descriptors.

Replies are matched to requests by message id alone (vfio-user specification, *Header*); requests of the server
(DMA_READ, DMA_WRITE) are handed to a callback and answered in between. Nothing here blocks the event loop.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import wire

_MAX_FDS = 16
_MAX_MESSAGE = 64 * 1024 * 1024
_ANCILLARY = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)


class VfioUserError(OSError):
    """The server answered a request with an error; `errno` is the one it sent.

    `command` is the request's command.
    """

    def __init__(self, errno: int, command: int) -> None:
        super().__init__(errno, f"{wire.command_name(command)} was refused: {os.strerror(errno)}")
        self.command = command


class ProtocolError(ConnectionError):
    """The server sent what the protocol does not allow; the connection is closed."""


@dataclass(frozen=True)
class Message:
    """One received message: its header's fields, its body, and the file descriptors that came with it."""

    id: int
    command: int
    flags: int
    errno: int
    body: bytes
    fds: tuple[int, ...]


class Link:
    """A connected vfio-user socket, from the client's side.

    Args:
        sock: a connected, non-blocking stream socket; the link owns it.
        serve: called with each request that the server sends; it answers through `send`.
    """

    def __init__(self, sock: socket.socket, serve: Callable[[Message], None]) -> None:
        self._sock = sock
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, tuple[int, asyncio.Future[Message]]] = {}
        self._next_id = 0
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._drained = asyncio.Event()
        self._drained.set()
        self.lost: asyncio.Future[ConnectionError] = self._loop.create_future()
        self._loop.add_reader(sock, self._receive)

    async def request(
        self,
        command: int,
        body: bytes = b"",
        fds: Sequence[int] = (),
        *,
        reply_fds: int = 0,
        timeout: float | None = 5.0,
    ) -> Message:
        """Sends a request and waits for its reply, up to `timeout` seconds (QEMU's own patience is 5 s).

        The reply may carry at most `reply_fds` file descriptors; the caller owns those it gets.

        Raises:
            VfioUserError: the server answered with an error.
            TimeoutError: no reply came in time; a later one is dropped.
            ConnectionError: the connection is lost, or the reply was malformed.
        """
        future: asyncio.Future[Message] = self._loop.create_future()
        message_id = self._allocate_id()
        self._pending[message_id] = (command, future)
        self.send(wire.HEADER.pack(message_id, command, wire.HEADER.size + len(body), 0, 0) + body, fds)
        try:
            async with asyncio.timeout(timeout):
                reply = await future
        except TimeoutError:
            raise TimeoutError(f"{wire.command_name(command)} was not answered within {timeout} s") from None
        if len(reply.fds) > reply_fds or (reply.fds and reply.flags & wire.ERROR):
            for fd in reply.fds:
                os.close(fd)
            self.close(
                ProtocolError(
                    f"{wire.command_name(command)} must be answered with at most {reply_fds} fds, not {len(reply.fds)}"
                )
            )
            self._check()
        if reply.flags & wire.ERROR:
            raise VfioUserError(reply.errno, command)
        return reply

    async def post(self, command: int, body: bytes) -> None:
        """Sends a request with NO_REPLY; waits only while a thousand messages are already queued here."""
        message_id = self._allocate_id()
        self.send(wire.HEADER.pack(message_id, command, wire.HEADER.size + len(body), wire.NO_REPLY, 0) + body)
        if len(self._outgoing) > 1000:
            await self._drained.wait()
            self._check()

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Sends one whole message, file descriptors beside its first byte; queues what the socket does not take."""
        self._check()
        self._outgoing.append((memoryview(message), tuple(fds)))
        if len(self._outgoing) == 1:
            self._transmit()

    def close(self, reason: ConnectionError | None = None) -> None:
        """Closes the socket; whatever waits for a reply fails with `reason`."""
        if self.lost.done():
            return
        reason = reason or ConnectionAbortedError("the client was closed")
        self.lost.set_result(reason)
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._outgoing.clear()
        self._drained.set()
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(type(reason)(*reason.args))
        self._pending.clear()

    def _check(self) -> None:
        if self.lost.done():
            reason = self.lost.result()
            raise type(reason)(*reason.args)

    def _allocate_id(self) -> int:
        self._check()
        if len(self._pending) > 0xFFFF:
            raise RuntimeError("requests in flight must be at most 65536, not one more")
        while self._next_id in self._pending:
            self._next_id = (self._next_id + 1) & 0xFFFF
        message_id = self._next_id
        self._next_id = (message_id + 1) & 0xFFFF
        return message_id

    def _transmit(self) -> None:
        while self._outgoing:
            message, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([message], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._drained.clear()
                self._loop.add_writer(self._sock, self._transmit)
                return
            except OSError as error:
                # The server's last words may still be in the socket: a reply read now is not lost.
                self._receive()
                self.close(ConnectionResetError(f"the server closed the connection ({error.strerror})"))
                return
            if sent == len(message):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (message[sent:], ())
        self._loop.remove_writer(self._sock)
        self._drained.set()

    def _receive(self) -> None:
        """Takes what the socket holds, header first: so descriptors belong to the message whose header they lead."""
        while not self.lost.done():
            size = wire.HEADER.size
            if len(self._buffer) >= size:
                size = int.from_bytes(self._buffer[4:8], "little")
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    size - len(self._buffer), _ANCILLARY, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError as error:
                self.close(ConnectionResetError(f"the server closed the connection ({error.strerror})"))
                return
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._fds += array.array("i", payload[: len(payload) // 4 * 4])
            if not data:
                self.close(ConnectionResetError("the server closed the connection"))
            elif flags & socket.MSG_CTRUNC:
                self.close(ProtocolError(f"a message must carry at most {_MAX_FDS} file descriptors, not more"))
            else:
                self._buffer += data
                self._frame()

    def _frame(self) -> None:
        if len(self._buffer) < wire.HEADER.size:
            return
        message_id, command, size, flags, errno = wire.HEADER.unpack_from(self._buffer)
        if not wire.HEADER.size <= size <= _MAX_MESSAGE:
            self.close(ProtocolError(f"a message must be of 16 bytes to 64 MiB, not {size} bytes"))
        elif len(self._buffer) == size:
            body, fds = bytes(self._buffer[wire.HEADER.size :]), tuple(self._fds)
            self._buffer.clear()
            self._fds.clear()
            self._dispatch(Message(message_id, command, flags, errno, body, fds))

    def _dispatch(self, message: Message) -> None:
        kind = message.flags & wire.TYPE_MASK
        if kind == wire.REPLY:
            self._complete(message)
            return
        for fd in message.fds:
            os.close(fd)
        if kind == wire.COMMAND:
            self._serve(message)
        else:
            self.close(ProtocolError(f"a message must be a command (0) or a reply (1), not type {kind}"))

    def _complete(self, reply: Message) -> None:
        """Hands a reply to the request that waits for it; drops it if that gave up."""
        command, future = self._pending.get(reply.id, (None, None))
        if command == reply.command and future is not None and not future.done():
            del self._pending[reply.id]
            future.set_result(reply)
            return
        for fd in reply.fds:
            os.close(fd)
        if command is None:
            self.close(ProtocolError(f"a reply must answer a request, not id {reply.id:#x} that nobody waits for"))
        elif command != reply.command:
            expected = wire.command_name(command)
            self.close(ProtocolError(f"a reply to {expected} must not be of command {reply.command}"))
        else:
            del self._pending[reply.id]
