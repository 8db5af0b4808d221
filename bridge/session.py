"""One client's connection: what the hot path leaves to Python. Control messages, handlers, and our own requests."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import time
from collections.abc import Callable
from typing import Any

from . import wire
from .control import Control, Reply
from .dma import Buffer, Ending, Segment
from .endpoint import Endpoint
from .hotpath._native import lib
from .log import logger
from .loop import Poller, memory_at

_RING = struct.Struct("=IIQ")  # hook, region, value


class Session:
    """A client at work on `endpoint`, over socket `fd`, which is taken over; `left` is called when it is gone."""

    def __init__(self, endpoint: Endpoint, fd: int, poller: Poller, left: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._poller = poller
        self._left = left
        self._control = Control(endpoint)
        self._hooks = endpoint.hooks
        self._transfers: dict[int, asyncio.Future[Ending]] = {}
        self._next_transfer = 0
        self._ring = 0, 0, 0
        self._command = 0
        self._native: Any = poller.open(self, endpoint.native, fd)
        self._began = time.monotonic()

    def peer_left(self) -> bool:
        """Has the client hung up, be there still messages of it or not?"""
        return self._native is None or bool(lib.pvu_session_peer_left(self._native))

    @property
    def silence(self) -> float:
        """Seconds for which the client has owed its VERSION; 0 when it said it."""
        return 0.0 if self._control.negotiated else time.monotonic() - self._began

    def close(self) -> None:
        """Disconnects the client; its maps and interrupts are dropped."""
        if self._native is None:
            return
        native, self._native = self._native, None
        self._poller.close(self, native)
        self._tell(self._endpoint.on_leave, "what its client's leaving ends")
        self._endpoint.memory.disconnect()
        self._endpoint.interrupts.drop()
        for future in self._transfers.values():
            if not future.done():
                future.set_exception(ConnectionResetError(errno.ECONNRESET, "the client left"))
        self._left()
        self._tell(self._endpoint.on_disconnect, "the reset after its client left")

    def _tell(self, what: Callable[[], None] | None, called: str) -> None:
        if what is None:
            return
        try:
            what()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            logger.exception("%s: %s failed", self._endpoint.name, called)

    async def transfer(self, segments: list[Segment], buffer: Buffer, access: int, chunk: int) -> Ending:
        """Copies between `segments` of the client's memory and `buffer`, by messages with up to `chunk` bytes.

        Raises:
            ConnectionResetError: the client left.
        """
        if self._native is None:
            raise ConnectionResetError(errno.ECONNRESET, "the client left")
        key, self._next_transfer = self._next_transfer, self._next_transfer + 1
        native = lib.pvu_transfer_new(self._native, key, segments, len(segments), buffer, access, chunk)
        if not native:
            raise MemoryError("no memory for a transfer")
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._transfers[key] = future
        self._poller.kick()
        try:
            return await future
        finally:
            del self._transfers[key]
            lib.pvu_transfer_free(native)

    def on_read(self, region: int, hook: int, offset: int, size: int) -> None:
        """A read of a register with a handler: ask it, and let the hot path answer."""
        entry = self._hooks[region][hook]
        assert entry.on_read is not None
        status = 0
        try:
            value = entry.on_read(offset, size)
            if value is not None:
                if value >> 8 * entry.length:
                    raise ValueError(f"value must be an integer of {8 * entry.length} bits, not {value:#x}")
                if entry.length <= 8 and self._native is not None:
                    lib.pvu_session_finish_read(self._native, value)
                    return
                memory = self._endpoint.regions[region].memory
                memory[entry.offset : entry.offset + entry.length] = value.to_bytes(entry.length, "little")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # a handler that is cancelled, too, must not end the event loop
            status = errno.EIO
            logger.exception("%s failed", self.describe_read(region, hook, offset, size))
        self._finish(status)

    def on_write(self, region: int, hook: int, offset: int, size: int, value: int, data: int) -> None:
        """A write to a register with a handler, already applied by its rules: tell it."""
        entry = self._hooks[region][hook]
        assert entry.on_write is not None
        status = 0
        if size > 8:
            value = int.from_bytes(memory_at(data, size), "little")
        try:
            entry.on_write(offset, size, value)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            status = errno.EIO
            logger.exception("%s failed", self.describe_write(region, hook, offset, size, value))
        self._finish(status)

    def on_doorbells(self, rings: bytes) -> None:
        """Doorbells were rung: tell each, in order."""
        for ring in _RING.iter_unpack(rings):
            self._ring = ring
            hook, region, value = ring
            entry = self._hooks[region][hook]
            assert entry.ring is not None
            try:
                entry.ring(value)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                logger.exception("%s failed", self.describe_ring())

    def on_message(self, message: bytes, fds: tuple[int, ...]) -> None:
        """A control message, or a reply that answers no request of ours."""
        header = wire.HEADER.unpack_from(message)
        body = message[wire.HEADER.size :]
        if header.flags & wire.TYPE_MASK == wire.REPLY:
            for fd in fds:
                lib.pvu_drop(fd)
            logger.debug("dropping a reply that nobody waits for: id %d", header.message_id)
        else:
            self._command = header.command
            reply = self._control.answer(header.command, body, fds)
            if header.command == wire.Command.VERSION and not reply.error and self._native is not None:
                lib.pvu_session_negotiated(self._native)
                self._endpoint.memory.connect(self.transfer, self._control.max_transfer)
            if not header.flags & wire.NO_REPLY:
                self._reply(header, reply)
            if self._control.refused:
                self.close()
        self._finish(0)

    def on_transferred(self, transfer: int, error: int, address: int, size: int) -> None:
        """A transfer is over."""
        future = self._transfers.get(transfer)
        if future is not None and not future.done():
            future.set_result((error, address, size))

    def on_closed(self, error: int) -> None:
        """The connection is over."""
        if error == errno.EPROTO:
            logger.warning("disconnecting a client that sent a malformed message")
        elif error:
            logger.warning("lost a client: %s", os.strerror(error))
        self.close()

    def describe_read(self, region: int, hook: int, offset: int, size: int) -> str:
        """Says which read an `on_read` is about."""
        return f"{self._endpoint.name}: read of {size} bytes in {self._place(region, hook, offset)}"

    def describe_write(self, region: int, hook: int, offset: int, size: int, value: int) -> str:
        """Says which write an `on_write` is about."""
        place = self._place(region, hook, offset)
        return f"{self._endpoint.name}: write of {size} bytes in {place}, value {value:#x},"

    def describe_ring(self) -> str:
        """Says which ring the last `on_doorbells` came to."""
        hook, region, value = self._ring
        return f"{self._endpoint.name}: ring of the doorbell in {self._place(region, hook, 0)}, value {value:#x},"

    def describe_message(self) -> str:
        """Says which control message came last."""
        return f"{self._endpoint.name}: {wire.command_name(self._command)}"

    def _place(self, region: int, hook: int, offset: int) -> str:
        entry = self._hooks[region][hook]
        name = f" ({entry.name})" if entry.name else ""
        return f"region {region} at {entry.offset + offset:#x}{name}"

    def _reply(self, header: wire.Header, reply: Reply) -> None:
        flags = wire.REPLY | (wire.ERROR if reply.error else 0)
        size = wire.HEADER.size + len(reply.body)
        answer = wire.HEADER.pack(header.message_id, header.command, size, flags, reply.error) + reply.body
        try:
            self._send(answer)
        except OSError as error:
            logger.warning("disconnecting a client that cannot be answered: %s", error.strerror)
            self.close()

    def _send(self, message: bytes) -> None:
        if self._native is None:
            return
        status = lib.pvu_session_send(self._native, message, len(message))
        if status < 0:
            self._poller.kick()
            raise OSError(-status, os.strerror(-status))

    def _finish(self, status: int) -> None:
        if self._native is not None:
            lib.pvu_session_finish(self._native, status)
