"""How `async` handlers are queued, cancelled and kept from drowning, without a bridge."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyvfio_user.devices import DefinitionError, Doorbell, Register, Registers
from pyvfio_user.devices.handlers import BACKLOG, Handlers, collect_hooks


class Control(Registers):
    """Something to handle."""

    go = Register(0x00)
    bell = Doorbell(0x08)


class Worker:
    """Has handlers as a device does, and waits in them until told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.handlers = Handlers(self, collect_hooks(type(self)))

    @Control.go.on_write
    async def work(self, value: int) -> None:
        self.log.append(f"begin {value}")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.log.append(f"unwound {value}")
            raise
        self.log.append(f"end {value}")

    @Control.bell.rung
    async def stop(self, index: int, value: int) -> None:
        self.log.append(f"stop {value}")
        self.handlers.reset()
        await asyncio.sleep(0)
        self.log.append(f"stopped {value}")


class Specialist(Worker):
    """Overrides a handler by its name, without another decoration."""

    async def work(self, value: int) -> None:
        self.log.append(f"special {value}")


async def settle() -> None:
    """Let all tasks go as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_call_after_a_reset_waits_until_the_cancelled_one_has_unwound() -> None:
    worker = Worker()
    go = worker.handlers.write(Control.go, 0)
    assert go is not None
    go(1)
    go(2)
    await settle()
    worker.handlers.reset()
    go(3)
    worker.gate.set()
    await settle()
    assert worker.log == ["begin 1", "unwound 1", "begin 3", "end 3"]


@pytest.mark.asyncio
async def test_a_task_that_never_began_is_cancelled_too() -> None:
    worker = Worker()
    go = worker.handlers.write(Control.go, 0)
    assert go is not None
    go(1)
    worker.handlers.reset()
    worker.handlers.reset()
    go(2)
    worker.gate.set()
    await settle()
    assert worker.log == ["begin 2", "end 2"]


@pytest.mark.asyncio
async def test_a_handler_may_reset_its_own_device() -> None:
    worker = Worker()
    stop = worker.handlers.ring(Control.bell, 0, 8)
    assert stop is not None
    stop(1)
    stop(2)
    await settle()
    assert worker.log == ["stop 1", "stopped 1"]


@pytest.mark.asyncio
async def test_a_backlog_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    go = worker.handlers.write(Control.go, 0x10)
    assert go is not None
    for value in range(BACKLOG + 3):
        go(value)
    worker.gate.set()
    await settle()
    assert len(worker.log) == 2 * BACKLOG
    assert worker.log[-1] == f"end {BACKLOG - 1}"
    assert [record.getMessage() for record in caplog.records] == [
        "Worker: handler work of Control.go at 0x10 is 65536 calls behind: dropping further ones"
    ]


@pytest.mark.asyncio
async def test_a_subclass_overrides_a_handler() -> None:
    worker = Specialist()
    go = worker.handlers.write(Control.go, 0)
    assert go is not None
    go(1)
    await settle()
    assert worker.log == ["special 1"]


def test_what_has_no_handler_is_served_without_python() -> None:
    worker = Worker()
    assert worker.handlers.read(Control.go) is None
    assert Handlers(worker, ()).ring(Control.bell, 0, 8) is None


def test_a_handler_takes_what_it_is_called_with() -> None:
    """Told when its class is made, not by the first access."""

    def nothing(self: object) -> int:
        return 0

    def value(self: object, value: int) -> None: ...

    def both(self: object, doorbell: int, value: int) -> None: ...

    def any_number(*values: object) -> int:
        return 0

    cases: list[tuple[Any, Any, str, str]] = [
        (Control.go.on_read, nothing, "read handler of Control.go", "self"),
        (Control.go.on_write, value, "write handler of Control.go", "self, value"),
        (Control.bell.rung, both, "ring handler of Control.bell", "self, doorbell, value"),
    ]
    for decorate, right, what, arguments in cases:
        for handler in (nothing, value, both, any_number):
            if handler in (right, any_number):
                assert decorate(handler) is handler
                continue
            with pytest.raises(DefinitionError) as caught:
                decorate(handler)
            assert str(caught.value).startswith(f"{what} must take ({arguments}), not (self: ")
            assert str(caught.value).endswith(f" as {handler.__name__} does")
