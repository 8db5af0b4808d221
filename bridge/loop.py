"""The hot path's place in an event loop.

On a loop of its own (`run`, `HotPathEventLoop`) the hot path is the selector: while Python has nothing to do, the
thread is in C, in `select`, and serves register accesses of all sessions; handlers run right there. On any other loop
one epoll descriptor, watched by `add_reader`, stands for all sessions.
"""

from __future__ import annotations

import asyncio
import math
import os
import selectors
import struct
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import Context
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary

from .hotpath._native import ffi, lib
from .watchdog import Event, Watchdog

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_NONE: int = lib.PVU_NONE
_READY: int = lib.PVU_READY
_READ: int = lib.PVU_READ
_WRITE: int = lib.PVU_WRITE
_MESSAGE: int = lib.PVU_MESSAGE
_DOORBELLS: int = lib.PVU_DOORBELLS
_TRANSFERRED: int = lib.PVU_TRANSFERRED
_RUNG: int = lib.PVU_RUNG

_EVENT = struct.Struct("=IIIIQQQQ")  # token, region, hook, events, offset, size, value, data
_EVENT_FDS = struct.Struct("=I16i")

SPIN_US = 50
"""Microseconds for which a loop of ours looks for the next message before it sleeps, if the last time was worth it."""

_STEPS = 256  # events handled before the rest of the event loop gets its turn,
_TURN = 0.0005  # and seconds, but for the last of them
_IN, _OUT = 0x1, 0x4  # EPOLLIN, EPOLLOUT; what else comes means both


class Served(Protocol):
    """A session, as the poller tells it what happened."""

    def on_read(self, region: int, hook: int, offset: int, size: int) -> None: ...
    def on_write(self, region: int, hook: int, offset: int, size: int, value: int, data: int) -> None: ...
    def on_message(self, message: bytes, fds: tuple[int, ...]) -> None: ...
    def on_doorbells(self, rings: bytes) -> None: ...
    def on_transferred(self, transfer: int, error: int, address: int, size: int) -> None: ...
    def on_closed(self, error: int) -> None: ...
    def describe_read(self, region: int, hook: int, offset: int, size: int) -> str: ...
    def describe_write(self, region: int, hook: int, offset: int, size: int, value: int) -> str: ...
    def describe_message(self) -> str: ...
    def describe_ring(self) -> str: ...


class Rung(Protocol):
    """Mapped doorbells, as the poller tells of their rings."""

    def on_rung(self, rings: bytes) -> None: ...


class Poller:
    """Serves the sessions of one event loop; `Poller.of(loop)` is the loop's."""

    def __init__(self, spin_us: int = SPIN_US) -> None:
        if not 0 <= spin_us <= 1_000_000:
            raise ValueError(f"spin_us must be 0 to 1000000 microseconds, not {spin_us}")
        native = lib.pvu_poller_new()
        if not native:
            engine = os.environ.get("PYVFIO_USER_ENGINE", "")
            if engine not in ("", "epoll", "io_uring"):
                raise ValueError(f"PYVFIO_USER_ENGINE must be epoll or io_uring, not {engine}")
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self.native = ffi.gc(native, lib.pvu_poller_free)
        name = ffi.string(lib.pvu_poller_engine(native))
        self.engine = name.decode() if isinstance(name, bytes) else name
        """What it waits with: "io_uring" or "epoll"."""
        lib.pvu_poller_spin(native, spin_us)
        self.ready: list[tuple[int, int]] = []
        """Descriptors that are no session's, and ready: (fd, epoll events)."""
        self._event = ffi.buffer(lib.pvu_poller_event(native))
        self._sessions: dict[int, Served] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._next_token = 0
        self._bells: dict[int, Rung] = {}
        self._next_bells = 0
        self.watchdog = Watchdog()

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Poller:
        """The poller of `loop`, made if it has none."""
        if isinstance(loop, HotPathEventLoop):
            return loop.selector.poller
        poller = _pollers.get(loop)
        if poller is None:
            poller = _pollers[loop] = _GuestPoller()
        return poller

    def open(self, session: Served, device: Any, fd: int) -> Any:
        """Serves `session` on socket `fd`, which is taken over; the session for the hot path."""
        while self._next_token in self._sessions:
            self._next_token = (self._next_token + 1) & 0xFFFFFFFF
        token = self._next_token
        self._next_token = (token + 1) & 0xFFFFFFFF
        native = lib.pvu_session_new(self.native, device, fd, token)
        if not native:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._sessions[token] = session
        self._changed(len(self._sessions))
        return native

    def close(self, session: Served, native: Any) -> None:
        """Ends a session, and closes its socket."""
        self._sessions = {token: each for token, each in self._sessions.items() if each is not session}
        lib.pvu_session_free(native)
        self._changed(len(self._sessions))

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Calls `callback`, which must not raise, whenever `fd` is readable, until `unwatch`."""
        status = lib.pvu_poller_watch(self.native, fd, _IN, False)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stops what `watch` began."""
        del self._watched[fd]
        lib.pvu_poller_watch(self.native, fd, 0, True)

    def watch_bells(self, bells: Rung, native: Any, interval: float) -> None:
        """Tells `bells` of the rings of mapped doorbells, which it looks at every `interval` seconds or more often."""
        self._bells[self._next_bells] = bells
        lib.pvu_bells_watch(native, self.native, self._next_bells, min(math.ceil(interval * 1e9), 1 << 62))
        self._next_bells = (self._next_bells + 1) & 0xFFFFFFFF
        self._look_within(interval)

    def unwatch_bells(self, bells: Rung, native: Any) -> None:
        """Stops what `watch_bells` began."""
        lib.pvu_bells_unwatch(native)
        self._bells = {token: each for token, each in self._bells.items() if each is not bells}

    def submit(self) -> None:
        """Sends what would be sent at the next step, for something else comes first."""
        lib.pvu_poller_submit(self.native)

    def kick(self) -> None:
        """Something is to be done that no descriptor tells of: an error in sending."""

    def step(self, timeout: int) -> bool:
        """Serves for up to `timeout` nanoseconds (-1: no limit), until Python had something to do; was there any?

        With -2, only what was found ready before is served.

        Raises:
            OSError: EEXIST when another thread used it before, ECHILD when another process did.
        """
        kind = lib.pvu_poller_next(self.native, timeout)
        if kind <= _NONE:
            if kind < _NONE:
                raise OSError(-kind, os.strerror(-kind))
            return False
        event = _EVENT.unpack_from(self._event)
        token, region, hook, events, offset, size, value, data = event
        if kind == _READY:
            callback = self._watched.get(token)
            if callback is None:
                self.ready.append((token, events))
            else:
                callback()
            return True
        if kind == _RUNG:
            self._bells[token].on_rung(memory_at(data, size * 16))
            return True
        session = self._sessions[token]
        watchdog = self.watchdog
        watchdog.kind = kind
        watchdog.call = event
        if watchdog.dozing:
            watchdog.wake()
        if kind == _WRITE:
            session.on_write(region, hook, offset, size, value, data)
        elif kind == _READ:
            session.on_read(region, hook, offset, size)
        elif kind == _DOORBELLS:
            session.on_doorbells(memory_at(data, size * 16))
        elif kind == _MESSAGE:
            count, *fds = _EVENT_FDS.unpack_from(self._event, _EVENT.size)
            session.on_message(memory_at(data, size), tuple(fds[:count]))
        elif kind == _TRANSFERRED:
            session.on_transferred(value, hook, offset, size)
        else:
            session.on_closed(value)
        watchdog.call = None
        if watchdog.named is not None:
            watchdog.ended()
        return True

    def describe(self, kind: int, event: Event) -> str:
        """What is being handled, said from the watchdog's thread."""
        token, region, hook, _, offset, size, value, _ = event
        session = self._sessions.get(token)
        if session is None:
            return "a client that left"
        if kind == _READ:
            return session.describe_read(region, hook, offset, size)
        if kind == _WRITE:
            return session.describe_write(region, hook, offset, size, value)
        return session.describe_ring() if kind == _DOORBELLS else session.describe_message()

    def _changed(self, sessions: int) -> None:
        """Called when there are more or fewer sessions."""

    def _look_within(self, interval: float) -> None:
        """Called when there are mapped doorbells to look at every `interval` seconds."""


def memory_at(address: int, size: int) -> bytes:
    """A copy of the hot path's memory at `address`."""
    return bytes(ffi.buffer(ffi.cast("char *", address), size))


class _GuestPoller(Poller):
    """A poller on a loop that is not its own."""

    def __init__(self) -> None:
        super().__init__(spin_us=0)
        self._fd: int = lib.pvu_poller_fd(self.native)
        if self._fd < 0:
            raise OSError(-self._fd, os.strerror(-self._fd))
        self._serves = False
        self._kicked = False
        self._interval = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().add_reader(fd, callback)

    def unwatch(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)

    def kick(self) -> None:
        if not self._kicked:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._serve_kicked)

    def _changed(self, sessions: int) -> None:
        self.submit()
        if self._serves == bool(sessions):
            return
        self._serves = bool(sessions)
        loop = asyncio.get_running_loop()
        if self._serves:
            loop.add_reader(self._fd, self._serve_ready)
        else:
            loop.remove_reader(self._fd)

    def _look_within(self, interval: float) -> None:
        self._interval = min(self._interval, interval)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        """Goes on for as long as there are doorbells, at the pace of those that want it fastest."""
        self._timer = None
        if self._bells:
            self._look_within(self._interval)
            self._serve()
        else:
            self._interval = math.inf

    def _serve_ready(self) -> None:
        if not self._kicked:  # else its turn has come already
            self._serve()

    def _serve_kicked(self) -> None:
        self._kicked = False
        self._serve()

    def _serve(self) -> None:
        end = time.monotonic() + _TURN
        for _ in range(_STEPS):
            if not self.step(0):
                return
            if time.monotonic() > end:
                break
        self.submit()
        self.kick()


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, _GuestPoller] = WeakKeyDictionary()


class _Map(Mapping[Any, selectors.SelectorKey]):
    def __init__(self, keys: dict[int, selectors.SelectorKey]) -> None:
        self._keys = keys

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_fileno(fileobj)]

    def __iter__(self) -> Iterator[Any]:
        return (key.fileobj for key in self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)


class HotPathSelector(selectors.BaseSelector):
    """A selector that serves vfio-user sessions while it waits."""

    def __init__(self, spin_us: int = SPIN_US) -> None:
        self.poller = Poller(spin_us)
        self.inline = False
        """Handle events one after another inside `select`, until `woken`; set by a loop that tells when that is."""
        self.woken = False
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._map = _Map(self._keys)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As `selectors.BaseSelector.register`."""
        fd = _fileno(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        return self._set(fileobj, fd, events, data, known=False)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As `selectors.BaseSelector.modify`."""
        key = self.get_key(fileobj)
        return self._set(fileobj, key.fd, events, data, known=True)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As `selectors.BaseSelector.unregister`."""
        key = self.get_key(fileobj)
        del self._keys[key.fd]
        lib.pvu_poller_watch(self.poller.native, key.fd, 0, True)  # fails when it is closed already, which is as good
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As `selectors.BaseSelector.select`; sessions are served meanwhile."""
        poller = self.poller
        wait = -1 if timeout is None else max(math.ceil(timeout * 1e9), 0)
        deadline = None if timeout is None or wait == 0 else time.monotonic() + timeout
        self.woken = False
        end = 0.0
        for _ in range(_STEPS):
            if not poller.step(wait) or self.woken or not self.inline:
                break
            now = time.monotonic()
            if not end:
                end = now + _TURN
            elif now > end:
                break
            if poller.ready:
                wait = -2  # the rest of what was found ready, and no second look
            elif deadline is not None:
                wait = max(math.ceil((deadline - now) * 1e9), 0)
        poller.submit()
        found = []
        for fd, events in poller.ready:
            key = self._keys.get(fd)
            if key is not None:
                ready = (selectors.EVENT_READ if events & ~_OUT else 0) | (
                    selectors.EVENT_WRITE if events & ~_IN else 0
                )
                found.append((key, ready & key.events))
        poller.ready.clear()
        return found

    def close(self) -> None:
        """As `selectors.BaseSelector.close`."""
        for fd in list(self._keys):
            self.unregister(fd)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """As `selectors.BaseSelector.get_map`."""
        return self._map

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """As `selectors.BaseSelector.get_key`."""
        try:
            return self._keys[_fileno(fileobj)]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    def _set(self, fileobj: Any, fd: int, events: int, data: Any, *, known: bool) -> selectors.SelectorKey:
        if not events or events & ~(selectors.EVENT_READ | selectors.EVENT_WRITE):
            raise ValueError(f"events must be EVENT_READ, EVENT_WRITE or both, not {events!r}")
        wanted = (_IN if events & selectors.EVENT_READ else 0) | (_OUT if events & selectors.EVENT_WRITE else 0)
        status = lib.pvu_poller_watch(self.poller.native, fd, wanted, known)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        self._keys[fd] = key = selectors.SelectorKey(fileobj, fd, events, data)
        return key


def _fileno(fileobj: Any) -> int:
    fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
    if fd < 0:
        raise ValueError(f"file descriptor must be at least 0, not {fd}")
    return fd


class HotPathEventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that serves vfio-user sessions while it waits.

    Before it sleeps it looks for the next message for up to `spin_us` microseconds, which spares both sides the time
    that a wake-up takes (tens of microseconds on a virtual machine). It does so only while messages come that soon:
    each attempt in vain doubles the number of sleeps until the next one, up to 4096, and each message halves it. 0 is
    never. Mapped doorbells are looked at meanwhile.
    """

    def __init__(self, spin_us: int = SPIN_US) -> None:
        self.selector = HotPathSelector(spin_us)
        super().__init__(self.selector)
        self.selector.inline = True

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As `asyncio.loop.call_soon`; ends `select`, if that is where it is called from."""
        self.selector.woken = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As `asyncio.loop.call_at`; ends `select`, if that is where it is called from."""
        self.selector.woken = True
        return super().call_at(when, callback, *args, context=context)


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None, spin_us: int = SPIN_US) -> T:
    """As `asyncio.run`, on a `HotPathEventLoop`."""
    with asyncio.Runner(debug=debug, loop_factory=lambda: HotPathEventLoop(spin_us)) as runner:
        return runner.run(main)
