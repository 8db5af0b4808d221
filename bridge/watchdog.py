"""Names the handler that holds up an event loop, while it still does.

As long as a register's handler runs, no message is answered: QEMU's client gives up after 5 s, and its device is lost.
That goes for an `async` one, too, between two of its awaits. So a thread looks on: what runs for longer than its budget
is named in the log, and once more when it ends. The thread needs Python's lock for that: a handler that keeps it, in a
C function that does not release it (a regular expression, a sort), is named when it is over, not before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary

from .errors import DefinitionError
from .log import logger

BUDGET = 1.0
"""Seconds that a handler may take by default before it is named."""

Event = tuple[int, ...]
"""What the hot path says of an event."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Named(NamedTuple):
    """A call that no event is behind, and what the log calls it."""

    what: str


Call = Event | Named


class Watchdog:
    """Watches the calls of one event loop.

    Whoever makes a call sets `kind` and `call`, a new object each time, and looks at `dozing`: `wake` must then be
    called. Afterwards `call` is None again, and `ended` must be called when `named` is set. The thread sleeps while no
    call is made: an idle server is not woken by it.
    """

    def __init__(self) -> None:
        self.kind = 0
        self.call: Call | None = None
        self.dozing = False
        self.named: str | None = None
        self._budgets: list[float] = []
        self._began = 0.0
        self._work = threading.Event()
        self._over = threading.Event()

    @contextmanager
    def watching(self, budget: float, describe: Callable[[int, Event], str]) -> Iterator[None]:
        """Looks on, for the running event loop; of several budgets, in seconds, the least holds.

        `describe` says what a call of a kind is, in the watching thread.

        Raises:
            DefinitionError: the budget is not more than 0.
        """
        if not budget > 0:
            raise DefinitionError(f"handler_budget must be more than 0 seconds, not {budget}")
        self._budgets.append(budget)
        if len(self._budgets) == 1:
            _watching[asyncio.get_running_loop()] = self
            self._over.clear()
            self._thread = threading.Thread(
                target=self._run, args=(describe,), name="pyvfio-user watchdog", daemon=True
            )
            self._thread.start()
        try:
            yield
        finally:
            self._budgets.remove(budget)
            if not self._budgets:
                del _watching[asyncio.get_running_loop()]
                self._over.set()
                self.wake()
                self._thread.join()

    def run(self, what: str, function: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        """Calls `function`; the log calls it `what`."""
        before, self.call = self.call, Named(what)
        if self.dozing:
            self.wake()
        try:
            return function(*arguments)
        finally:
            self.call = before
            if self.named is not None:
                self.ended()

    def wake(self) -> None:
        """A call was made while the thread slept."""
        self.dozing = False
        self._work.set()

    def ended(self) -> None:
        """The call that was named is over."""
        logger.warning("%s: it ended after %.1f s", self.named, time.monotonic() - self._began)
        self.named = None

    def _run(self, describe: Callable[[int, Event], str]) -> None:
        while True:
            self._work.clear()
            if self._over.is_set():  # looked at after the clearing, which may undo the waking that goes with it
                return
            self.dozing = True
            if self.call is None:  # else it was made before it could see that this thread was about to sleep
                self._work.wait()
            self.dozing = False
            self._look_on(describe)

    def _look_on(self, describe: Callable[[int, Event], str]) -> None:
        """Looks at the call that is made, from time to time, until there is none."""
        seen: Call | None = None
        done = False
        while not self._over.wait(self._budget / 4):
            call, kind = self.call, self.kind
            if call is None:
                return
            if call is not seen:
                seen, done, began = call, False, time.monotonic()
            elif not done and time.monotonic() - began >= self._budget:
                done = True
                self._name(call, began, call.what if isinstance(call, Named) else describe(kind, call))

    @property
    def _budget(self) -> float:
        return min(self._budgets, default=BUDGET)

    def _name(self, call: Call, began: float, what: str) -> None:
        if self.call is call:
            self._began = began
            self.named = what
            logger.warning(
                "%s: its handler blocks the device for more than %g s; a client may give up on it, QEMU does after 5 s",
                what,
                self._budget,
            )


_watching: WeakKeyDictionary[asyncio.AbstractEventLoop, Watchdog] = WeakKeyDictionary()


def watched(what: str, function: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
    """Calls `function` under the eyes of the running event loop's watchdog, if it has one; see `Watchdog.run`."""
    watchdog = _watching.get(asyncio.get_running_loop())
    return function(*arguments) if watchdog is None else watchdog.run(what, function, *arguments)
