"""Serves a device on a UNIX socket, to one client after another."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .endpoint import HasEndpoint
from .errors import DefinitionError
from .hotpath._native import ffi, lib
from .log import logger
from .loop import Poller
from .refusal import Refusal
from .session import Session
from .watchdog import BUDGET

SILENCE = 5.0
"""Seconds after which a client that said no VERSION makes room for another: so long QEMU itself waits for an answer."""

_PAUSE = 0.5  # seconds until the next attempt after a client could not be accepted
_LONGEST_PATH = 107  # sun_path has 108 bytes, with the one that ends it
_MAX_REFUSALS = 16  # clients being refused at a time; more are disconnected without a word


class Server:
    """A device that is being served; `serve` makes it.

    One client at a time: the VERSION of a second is answered with EBUSY, that of another user's client with EACCES. A
    client that has not said its VERSION for `SILENCE` seconds makes room for the next.
    """

    def __init__(self, device: HasEndpoint, path: Path, listener: socket.socket, *, any_user: bool) -> None:
        self.device = device
        self.path = path
        self.session: Session | None = None
        self._endpoint = device.endpoint
        if self._endpoint.served:
            raise DefinitionError(f"{self._endpoint.name} must be served on one socket at a time, not on {path} too")
        self._endpoint.prepare()
        self._any_user = any_user
        self._pause: asyncio.TimerHandle | None = None
        self._listener = listener
        self._refusals: set[Refusal] = set()
        self._loop = asyncio.get_running_loop()
        self._poller = Poller.of(self._loop)
        self._attached = asyncio.Event()
        self._detached = asyncio.Event()
        self._detached.set()
        self._poller.watch(listener.fileno(), self._accept)
        self._endpoint.served = True

    async def wait_connected(self) -> None:
        """Waits until a client is there (its VERSION may still be to come)."""
        await self._attached.wait()

    async def wait_disconnected(self) -> None:
        """Waits until no client is there."""
        await self._detached.wait()

    def disconnect(self) -> None:
        """Closes the connection to the client, if one is there."""
        if self.session is not None:
            self.session.close()

    def close(self) -> None:
        """Stops serving: no new client, and the one that is there is disconnected. A second call does nothing."""
        if self._listener.fileno() < 0:
            return
        if self._pause is None:
            self._poller.unwatch(self._listener.fileno())
        else:
            self._pause.cancel()
        self._listener.close()
        for refusal in list(self._refusals):
            refusal.close()
        self.disconnect()
        self._endpoint.served = False

    def _accept(self) -> None:
        if self.session is not None and self.session.peer_left():
            return  # its last messages are still to be served: the new client waits in the backlog meanwhile
        try:
            self._serve(*accept(self._listener))
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptor left, or no memory: the client goes on waiting
            logger.error("accepting a client on %s: %s; trying again in %g s", self.path, error.strerror, _PAUSE)
            self._poller.unwatch(self._listener.fileno())
            self._pause = self._loop.call_later(_PAUSE, self._resume)

    def _serve(self, connection: int, uid: int) -> None:
        ours = os.geteuid()
        if not self._any_user and uid != ours:
            logger.warning("refusing a client on %s: its user must be %d, not %d", self.path, ours, uid)
            self._refuse(connection, errno.EACCES)
            return
        if self.session is not None and self.session.silence > SILENCE:
            logger.warning(
                "disconnecting a client on %s that said no VERSION for %g s: another came", self.path, SILENCE
            )
            self.session.close()
        if self.session is not None:
            logger.warning("refusing a second client on %s", self.path)
            self._refuse(connection, errno.EBUSY)
            return
        self._endpoint.interrupts.same_user = uid == ours
        self.session = Session(self._endpoint, connection, self._poller, self._left)
        self._detached.clear()
        self._attached.set()

    def _resume(self) -> None:
        self._pause = None
        self._poller.watch(self._listener.fileno(), self._accept)

    def _refuse(self, connection: int, error: int) -> None:
        if len(self._refusals) < _MAX_REFUSALS:
            self._refusals.add(Refusal(socket.socket(fileno=connection), error, self._refusals.discard))
        else:
            lib.pvu_hang_up(connection)

    def _left(self) -> None:
        self.session = None
        self._attached.clear()
        self._detached.set()


def accept(listener: socket.socket) -> tuple[int, int]:
    """Accepts a client: its descriptor, and the user who connected, as the kernel has it (SO_PEERCRED, unix(7)).

    Raises:
        OSError: as accept(2); EAGAIN when nobody wants to connect.
    """
    uid = ffi.new("uint32_t *")
    fd = lib.pvu_accept(listener.fileno(), uid)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    return fd, uid[0]


@asynccontextmanager
async def serve(
    device: HasEndpoint,
    path: str | os.PathLike[str],
    *,
    any_user: bool = False,
    handler_budget: float = BUDGET,
) -> AsyncIterator[Server]:
    """Serves `device` on a UNIX socket at `path` for as long as the context lasts.

    A stale socket at `path`, which nobody listens on, is replaced. Only clients of the server's own user are served,
    whatever becomes of the socket's mode, 0600; with `any_user` the mode is 0666, and so are those of all others.

    A handler that blocks for longer than `handler_budget` seconds is named in the log while it does (see `Watchdog`).

    Raises:
        DefinitionError: the budget is not more than 0; or the device is being served already.
        FileExistsError: something else than a socket is at `path`, a symbolic link included.
        OSError: EADDRINUSE when somebody listens there; ENAMETOOLONG for a path of more than 107 bytes, all that an
            address holds (unix(7)); or why the socket cannot be made.
    """
    path = Path(path)
    if (length := len(os.fsencode(path))) > _LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, f"path must be at most {_LONGEST_PATH} bytes, not {length}", os.fspath(path))
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), 0o600)  # Linux: the socket file is created with the socket's own mode
        listener.bind(os.fspath(path))
        made = path.stat()
        try:
            if any_user:
                _open_to_all(path)
            listener.listen()
            server = Server(device, path, listener, any_user=any_user)
            try:
                poller = Poller.of(asyncio.get_running_loop())
                with poller.watchdog.watching(handler_budget, poller.describe):
                    yield server
            finally:
                server.close()
        finally:
            _remove_own(path, made)
    finally:
        listener.close()


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "path must be free or a socket, not another file", os.fspath(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, "socket must be free, not served by another process", os.fspath(path))


def _open_to_all(path: Path) -> None:
    """Gives the socket mode 0666, whatever the umask is; should a link have taken its place, not the link's target."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o666)
    finally:
        os.close(fd)


def _remove_own(path: Path, made: os.stat_result) -> None:
    """Removes the socket file, unless it is another's by now."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
        path.unlink()
