"""Answers control messages: all that is neither a region access, nor about what the device is, nor a reply.

QEMU docs/interop/vfio-user.rst; where QEMU's client wants more than that, it says so.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from . import wire
from .endpoint import Endpoint
from .errors import WireError
from .hotpath._native import lib
from .log import logger
from .wire import Command

_LIMITS = {
    "max_msg_fds": wire.MAX_FDS,
    "max_data_xfer_size": wire.MAX_TRANSFER,
    "max_dma_maps": wire.MAX_DMA_MAPS,
    "pgsizes": wire.PAGE,
}


def version_json(*, write_multiple: bool) -> bytes:
    """What the server offers; QEMU has room for `wire.MAX_VERSION_JSON` bytes.

    REGION_WRITE_MULTI is offered to a client that proposed it: a reply's capabilities are a subset of the proposed.
    """
    offered = {**_LIMITS, "write_multiple": True} if write_multiple else _LIMITS
    return json.dumps({"capabilities": offered}, separators=(",", ":")).encode() + b"\0"


class Reply(NamedTuple):
    """What a message is answered with: a body, or an errno."""

    body: bytes = b""
    error: int = 0


class Control:
    """The control messages of one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.negotiated = False
        self.refused = False
        """The client asked for a version that there is not: disconnect it, once it is answered."""
        self.max_transfer = wire.MAX_TRANSFER
        """Most data bytes in a message to the client."""
        self._endpoint = endpoint

    def answer(self, command: int, body: bytes, fds: tuple[int, ...]) -> Reply:
        """Does what the message asks for; descriptors are kept or closed."""
        left = list(fds)
        handler = _HANDLERS.get(command)
        try:
            if -1 in fds:
                raise OSError(errno.EMFILE, f"descriptors must be at most {wire.MAX_FDS}, and fit the process's limit")
            if not self.negotiated and command != Command.VERSION:
                return Reply(error=errno.EINVAL)
            if handler is None:
                return Reply(error=errno.ENOTSUP)
            return handler(self, body, left)
        except WireError as error:
            logger.warning("%s: %s", wire.command_name(command), error)
            return Reply(error=errno.EINVAL)
        except OSError as error:
            logger.warning("%s was refused: %s", wire.command_name(command), error)
            return Reply(error=error.errno or errno.EIO)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # a device's reset that is cancelled, too
            logger.exception("%s: %s failed", self._endpoint.name, wire.command_name(command))
            return Reply(error=errno.EIO)
        finally:
            for fd in left:
                lib.pvu_drop(fd)

    def _version(self, body: bytes, fds: list[int]) -> Reply:
        wire.VERSION.unpack_from(body)
        if self.negotiated:
            raise WireError("VERSION must be the first message only")
        self.refused = True
        answer, self.max_transfer = _negotiate(body)
        self.refused = False
        self.negotiated = True
        return Reply(answer)

    def _set_irqs(self, body: bytes, fds: list[int]) -> Reply:
        request = wire.SET_IRQS.unpack_from(body)
        _check_argsz(request.argsz, wire.SET_IRQS.size)
        data = body[wire.SET_IRQS.size : request.argsz]
        self._endpoint.interrupts.set_irqs(request.flags, request.kind, request.start, request.vectors, data, fds)
        return Reply()

    def _dma_map(self, body: bytes, fds: list[int]) -> Reply:
        request = wire.DMA_MAP.unpack_from(body)
        _check_argsz(request.argsz, wire.DMA_MAP.size)
        if len(fds) > 1:
            raise WireError(f"DMA_MAP must have at most one file descriptor, not {len(fds)}")
        fd = fds[0] if fds else None
        self._endpoint.memory.map(request.address, request.size, request.flags, fd, request.offset)
        return Reply()

    def _dma_unmap(self, body: bytes, fds: list[int]) -> Reply:
        request = wire.DMA_UNMAP.unpack_from(body)
        _check_argsz(request.argsz, wire.DMA_UNMAP.size)
        if request.flags == wire.UNMAP_ALL:
            if request.address or request.size:
                raise WireError(f"UNMAP ALL must be of 0 bytes at 0, not {request.size:#x} at {request.address:#x}")
            self._endpoint.memory.unmap_all()
        elif request.flags:
            raise WireError(f"flags of DMA_UNMAP must be 0 or {wire.UNMAP_ALL}, not {request.flags:#x}")
        else:
            try:
                self._endpoint.memory.unmap(request.address, request.size)
            except FileNotFoundError as error:
                # No offence: behind an IOMMU, QEMU unmaps what it could not map either, a page of the ITS.
                logger.info("%s was refused: %s", wire.command_name(Command.DMA_UNMAP), error)
                return Reply(error=errno.ENOENT)
        return Reply(body[: wire.DMA_UNMAP.size])

    def _reset(self, body: bytes, fds: list[int]) -> Reply:
        self._endpoint.reset()
        return Reply()


_HANDLERS: dict[int, Callable[[Control, bytes, list[int]], Reply]] = {
    Command.VERSION: Control._version,
    Command.DMA_MAP: Control._dma_map,
    Command.DMA_UNMAP: Control._dma_unmap,
    Command.DEVICE_SET_IRQS: Control._set_irqs,
    Command.DEVICE_RESET: Control._reset,
}


def _check_argsz(argsz: int, least: int) -> None:
    if argsz < least:
        raise WireError(f"argsz must be at least {least}, not {argsz}")


@lru_cache(maxsize=1)
def _negotiate(body: bytes) -> tuple[bytes, int]:
    """The answer to a client's VERSION, and its max_data_xfer_size. The next client most often says the same."""
    version = wire.VERSION.unpack_from(body)
    capabilities = _capabilities(body[wire.VERSION.size :])
    if version.major != wire.VERSION_MAJOR:
        raise WireError(f"version must be {wire.VERSION_MAJOR}.x, not {version.major}.{version.minor}")
    transfer = _max_transfer(capabilities)
    text = version_json(write_multiple=capabilities.get("write_multiple") is True)
    return wire.VERSION.pack(wire.VERSION_MAJOR, wire.VERSION_MINOR) + text, transfer


def _capabilities(text: bytes) -> dict[str, Any]:
    """The client's capabilities, out of its VERSION."""
    text, _, _ = text.partition(b"\0")
    try:
        parsed = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        raise WireError("VERSION must carry JSON") from None
    found = parsed.get("capabilities", {}) if isinstance(parsed, dict) else None
    if not isinstance(found, dict):
        raise WireError("VERSION must carry a JSON object with an object `capabilities`")
    return found


def _max_transfer(capabilities: dict[str, Any]) -> int:
    transfer = capabilities.get("max_data_xfer_size", wire.MAX_TRANSFER)
    if type(transfer) is not int or transfer < wire.PAGE:
        raise WireError(f"max_data_xfer_size must be an integer of at least {wire.PAGE}, not {transfer!r:.40}")
    return transfer
