"""Handlers: which method of a device answers which register, and how `async` ones run.

Every handler is called in the event loop's thread. A plain one runs before the access is answered. An `async` one
becomes a task, one at a time for each register and doorbell, in the order of the accesses: so what it awaits, DMA by
message above all, never holds up the answer to a synchronous access.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..bridge.errors import DefinitionError
from ..bridge.log import limited
from ..bridge.observer import Observer
from ..bridge.watchdog import watched
from .polling import DoorbellPoller

if TYPE_CHECKING:
    from ..bridge.regions import Region
    from .element import Element

logger = limited("pyvfio_user.devices")

BACKLOG = 65536
"""Calls that may wait for one register's handler; those beyond are dropped, and the first of them is logged."""

Event = Literal["read", "write", "ring"]

ReadHandlerT = TypeVar("ReadHandlerT", bound=Callable[[Any], int])
WriteHandlerT = TypeVar("WriteHandlerT", bound=Callable[[Any, int], Awaitable[None] | None])
RingHandlerT = TypeVar("RingHandlerT", bound=Callable[[Any, int, int], Awaitable[None] | None])
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])

_MARK = "__pyvfio_user_hooks__"
_ARGUMENTS: dict[Event, tuple[str, ...]] = {
    "read": ("self",),
    "write": ("self", "value"),
    "ring": ("self", "doorbell", "value"),
}


@dataclass(frozen=True)
class Hook:
    """The method `method` of a device class handles `event` of `element`."""

    element: Element
    event: Event
    method: str


def attach_handler(handler: HandlerT, element: Element, event: Event) -> HandlerT:
    """Mark a function in a device class's body as the handler of an element's event."""
    if event == "read" and inspect.iscoroutinefunction(handler):
        raise DefinitionError(
            f"read handler of {element} must be a plain function, not the async {handler.__name__}: "
            "the access is answered with what it returns"
        )
    signature, arguments = inspect.signature(handler), _ARGUMENTS[event]
    try:
        signature.bind(*arguments)
    except TypeError:
        name, wanted = handler.__name__, ", ".join(arguments)
        raise DefinitionError(
            f"{event} handler of {element} must take ({wanted}), not {signature} as {name} does"
        ) from None
    setattr(handler, _MARK, (*getattr(handler, _MARK, ()), (element, event)))
    return handler


def collect_hooks(device_class: type) -> tuple[Hook, ...]:
    """All hooks of a device class and its bases; `DefinitionError` when two methods handle the same event."""
    hooks: dict[tuple[Element, Event], Hook] = {}
    for base in reversed(device_class.__mro__):
        for name, member in vars(base).items():
            for element, event in getattr(member, _MARK, ()):
                other = hooks.setdefault((element, event), hook := Hook(element, event, name))
                if other.method != name:
                    raise DefinitionError(
                        f"{event} handler of {element} must be one method, not {other.method} and {name}"
                    )
                hooks[element, event] = hook
    return tuple(hooks.values())


class Handlers:
    """The handlers of one device object, by element, and the tasks of its `async` ones."""

    def __init__(
        self, device: object, hooks: Iterable[Hook], observer: Callable[[], Observer | None] = lambda: None
    ) -> None:
        """`observer` says who looks on now."""
        self._device = device
        self._observer = observer
        self._methods: dict[tuple[Element, Event], Callable[..., Any]] = {
            (hook.element, hook.event): getattr(device, hook.method) for hook in hooks
        }
        self._queues: list[_Queue] = []
        self._pollers: list[DoorbellPoller] = []

    def read(self, element: Element) -> Callable[[], int] | None:
        """What gives the value that a read finds, or None when the stored one does."""
        return self._methods.get((element, "read"))

    def write(self, element: Element, offset: int) -> Callable[[int], None] | None:
        """What to call with a written value, or None; `offset` in the region is for the log."""
        method = self._methods.get((element, "write"))
        return method and self._synchronous(method, f"{element} at {offset:#x}")

    def ring(self, element: Element, index: int, offset: int) -> Callable[[int], None] | None:
        """What to call with a value written to doorbell `index`, or None."""
        method = self._methods.get((element, "ring"))
        return method and self._synchronous(method, f"{element}[{index}] at {offset:#x}", index)

    def add_poller(
        self,
        element: Element,
        interval: float,
        region: Region,
        offsets: Sequence[int],
        rings: Sequence[Callable[[int], None]],
    ) -> None:
        """Look at mapped doorbells at `offsets` of `region` every `interval` seconds while `poll` says so."""
        device = type(self._device).__name__
        names = [f"{device}: handler of {element}[{index}] at {offset:#x}" for index, offset in enumerate(offsets)]
        self._pollers.append(DoorbellPoller(names, interval, region, offsets, element.width, rings))

    def poll(self, enabled: bool) -> None:
        """Start or stop to look at mapped doorbells."""
        for poller in self._pollers:
            poller.run(enabled)

    def reset(self) -> None:
        """Cancel the tasks that run and forget the calls that wait; the task this is called from goes on."""
        for queue in self._queues:
            queue.cancel()
        for poller in self._pollers:
            poller.reset()

    def _synchronous(self, method: Callable[..., Any], where: str, *arguments: int) -> Callable[[int], None]:
        call = partial(method, *arguments)
        if not inspect.iscoroutinefunction(method):
            return call
        name = f"{type(self._device).__name__}: handler {method.__name__} of {where}"
        queue = _Queue(call, name, self._observer)
        self._queues.append(queue)
        return queue.add


class _Queue:
    """Runs an `async` handler's calls one after another, as a task that ends when none is left."""

    def __init__(
        self,
        call: Callable[[int], Coroutine[Any, None, None]],
        name: str,
        observer: Callable[[], Observer | None],
    ) -> None:
        self._call = call
        self._observer = observer
        self._name = name
        self._values: deque[int] = deque()
        self._task: asyncio.Task[None] | None = None
        self._cancelled: set[asyncio.Task[None]] = set()
        self._dropped = 0

    def add(self, value: int) -> None:
        if len(self._values) >= BACKLOG:
            if not self._dropped:
                logger.error("%s is %d calls behind: dropping further ones", self._name, BACKLOG)
            self._dropped += 1
            return
        self._values.append(value)
        if (observer := self._observer()) is not None:
            observer.put_off(self._name)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    def cancel(self) -> None:
        self._values.clear()
        self._dropped = 0
        if (observer := self._observer()) is not None:
            observer.forgotten(self._name)
        task = self._task
        if task is None or task.done() or (task.get_loop().is_running() and task is asyncio.current_task()):
            return
        self._cancelled.add(task)
        task.add_done_callback(self._cancelled.discard)
        task.cancel()
        self._task = None

    async def _run(self) -> None:
        if self._cancelled:  # a handler may take its time to unwind: the next call comes after it
            await asyncio.wait(self._cancelled)
        while self._values and self._task is asyncio.current_task():
            value = self._values.popleft()
            try:
                with self._looked_on(value):
                    await _watched(f"{self._name}, value {value:#x},", self._call(value))
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise  # by a reset, or by the end of the event loop
                logger.error("%s was cancelled for value %#x", self._name, value, exc_info=error)
            except Exception:
                logger.exception("%s raised for value %#x", self._name, value)

    def _looked_on(self, value: int) -> contextlib.AbstractContextManager[None]:
        observer = self._observer()
        return contextlib.nullcontext() if observer is None else observer.task(self._name, value)


@types.coroutine
def _watched(what: str, coroutine: Coroutine[Any, None, None]) -> Generator[Any, None, None]:
    """Runs a coroutine, each step of it under the eyes of the watchdog."""
    step: Callable[[], Any] = partial(coroutine.send, None)
    while True:
        try:
            waiting_for = watched(what, step)
        except StopIteration:
            return
        try:
            yield waiting_for
            step = partial(coroutine.send, None)
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # a cancellation, which is the coroutine's to deal with
            step = partial(coroutine.throw, error)
