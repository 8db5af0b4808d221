"""Handlers that block, raise or are cancelled: what the client is answered, and what the log names."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.server import serve
from pyvfio_user.devices import Bar, Device, Doorbell, KiB, PciId, Register, Registers

from .raw import (
    ERROR,
    NO_REPLY,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    RESET,
    WRITE_MULTI,
    Raw,
    access,
    message,
    write_multi,
)

BUDGET = 0.02
READ, WRITE, RING, TASK, AGAIN = 0x00, 0x04, 0x08, 0x10, 0x14
NAMED = "its handler blocks the device for more than 0.02 s; a client may give up on it, QEMU does after 5 s"


class Control(Registers):
    read = Register(READ)
    write = Register(WRITE)
    bell = Doorbell(RING, count=2)
    task = Register(TASK)
    again = Register(AGAIN)


class Bells(Registers):
    bell = Doorbell(0x1000, count=2, mapped=True, poll=0.0001)


class Slow(Device):
    """Does in each handler what the test wants done."""

    identity = PciId(vendor=0x1234, device=0xBEC1, class_code=0xFF0000)
    bar0 = Bar(Control, size=4 * KiB)
    bar2 = Bar(Bells, size=16 * KiB)

    def __init__(self) -> None:
        super().__init__()
        self.work: Callable[[], None] = lambda: None
        self.unwind: Callable[[], None] = lambda: None
        self.done: list[int] = []

    def on_reset(self) -> None:
        self.work()

    @Control.read.on_read
    def read(self) -> int:
        self.work()
        return 7

    @Control.write.on_write
    def write(self, value: int) -> None:
        self.work()

    @Control.bell.rung
    def ring(self, index: int, value: int) -> None:
        self.work()

    @Control.task.on_write
    async def task(self, value: int) -> None:
        self.work()
        self.done.append(value)

    @Control.again.on_write
    async def wait(self, value: int) -> None:
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(60)
        finally:
            self.unwind()

    @Bells.bell.rung
    def hear(self, index: int, value: int) -> None:
        self.work()


class Log(logging.Handler):
    """Keeps messages, and lets a handler wait for the first: so it blocks no longer than it must to be named."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.named = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.named.set()

    def wait(self) -> None:
        assert self.named.wait(5), "the watchdog must speak while the handler blocks"


@asynccontextmanager
async def slow_device(tmp_path: Path) -> AsyncIterator[tuple[Slow, Raw, Log]]:
    log = Log()
    logger = logging.getLogger("pyvfio_user")
    device = Slow()
    logger.addHandler(log)
    try:
        async with serve(device, tmp_path / "s", handler_budget=BUDGET) as server, Raw.connect(server.path) as raw:
            yield device, raw, log
            device.work = lambda: None
    finally:
        logger.removeHandler(log)


@pytest.mark.parametrize(("request_", "what"), [
    (message(REGION_READ, access(0, READ, 4), id=1), "Slow: read of 4 bytes in region 0 at 0x0 (Control.read)"),
    (message(REGION_READ, access(0, READ + 1, 2), id=1), "Slow: read of 2 bytes in region 0 at 0x1 (Control.read)"),
    (message(REGION_WRITE, access(0, WRITE, 4, b"\x78\x56\x34\x12"), id=1),
     "Slow: write of 4 bytes in region 0 at 0x4 (Control.write), value 0x12345678,"),
    (message(REGION_WRITE, access(0, RING + 4, 4, b"\x09\0\0\0"), id=1),
     "Slow: ring of the doorbell in region 0 at 0xc (Control.bell[1]), value 0x9,"),
    (message(RESET, id=1), "Slow: DEVICE_RESET"),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_handler_that_blocks_is_named_while_it_does_and_the_access_is_answered(
    tmp_path: Path, request_: bytes, what: str
) -> None:
    async with slow_device(tmp_path) as (device, raw, log):
        device.work = log.wait
        await raw.send(request_)
        reply = await raw.receive()
        assert (reply.id, reply.flags) == (1, REPLY)
        device.work = lambda: None
        await raw.alive()
        assert len(log.messages) == 2
        assert log.messages[0] == f"{what}: {NAMED}"
        assert log.messages[1].startswith(f"{what}: it ended after 0.")
        log.messages.clear()
        await raw.read(0, READ, 4)
        assert log.messages == [], "one that is quick is not named"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_an_async_handler_that_blocks_the_event_loop_is_named_too(tmp_path: Path) -> None:
    async with slow_device(tmp_path) as (device, raw, log):
        device.work = log.wait
        await raw.write(0, TASK, b"\x78\x56\x34\x12")  # is answered before the handler runs
        await until(lambda: len(log.messages) == 2)
        what = "Slow: handler task of Control.task at 0x10, value 0x12345678,"
        assert log.messages[0] == f"{what}: {NAMED}"
        assert log.messages[1].startswith(f"{what}: it ended after 0.")
        assert device.done == [0x12345678]


@pytest.mark.asyncio
async def test_an_async_handler_that_waits_is_not_named_but_what_it_does_when_cancelled_is(tmp_path: Path) -> None:
    async with slow_device(tmp_path) as (device, raw, log):
        await raw.write(0, AGAIN, b"\5\0\0\0")
        await asyncio.sleep(3 * BUDGET)  # which is what is tested
        await raw.alive()
        assert log.messages == []
        device.unwind = log.wait
        assert (await raw.request(RESET)).flags == REPLY
        await until(lambda: len(log.messages) == 2)
        assert log.messages[0] == f"Slow: handler wait of Control.again at 0x14, value 0x5,: {NAMED}"


@pytest.mark.asyncio
async def test_the_handler_of_a_mapped_doorbell_that_blocks_is_named_too(tmp_path: Path) -> None:
    async with slow_device(tmp_path) as (device, raw, log):
        device.work = log.wait
        await raw.write(7, 4, b"\2\0")  # memory space
        device.bar2.memory[0x2000] = 9
        await until(lambda: len(log.messages) == 2)
        assert log.messages[0] == f"Slow: handler of Bells.bell[1] at 0x2000, value 0x9,: {NAMED}"


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.asyncio
async def test_the_handler_of_a_mapped_doorbell_that_raises_stops_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        device.work = lambda: device.done.append(1)
        raise error("on purpose")

    async with slow_device(tmp_path) as (device, raw, log):
        device.work = fail
        await raw.write(7, 4, b"\2\0")
        device.bar2.memory[0x1000] = 8
        await until(lambda: len(log.messages) == 1)
        device.bar2.memory[0x1000] = 9
        await until(lambda: device.done == [1])
        assert log.messages == ["Slow: handler of Bells.bell[0] at 0x1000 raised for value 0x8"]


@pytest.mark.asyncio
async def test_each_one_that_blocks_is_named_once(tmp_path: Path) -> None:
    async with slow_device(tmp_path) as (device, raw, log):
        for _ in range(3):
            log.named.clear()
            device.work = log.wait
            await raw.read(0, READ, 4)
        device.work = lambda: None
        await raw.alive()
        assert [line.rpartition(": ")[2].split(" after")[0] for line in log.messages] == [
            NAMED.split(" after")[0],
            "it ended",
        ] * 3


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.asyncio
async def test_a_handler_that_raises_or_is_cancelled_is_an_error_of_that_access_only(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error("on purpose")

    async with slow_device(tmp_path) as (device, raw, log):
        device.work = fail
        reply = await raw.request(REGION_READ, access(0, READ, 4))
        assert (reply.flags, reply.errno, reply.body) == (REPLY | ERROR, errno.EIO, b"")
        reply = await raw.request(REGION_WRITE, access(0, WRITE, 4, b"\1\0\0\0"))
        assert (reply.flags, reply.errno, reply.body) == (REPLY | ERROR, errno.EIO, b"")
        await raw.write(0, RING, b"\2\0\0\0")  # is answered before the handler runs
        await raw.alive()
        assert log.messages == [
            "Slow: read of 4 bytes in region 0 at 0x0 (Control.read) failed",
            "Slow: write of 4 bytes in region 0 at 0x4 (Control.write), value 0x1, failed",
            "Slow: ring of the doorbell in region 0 at 0x8 (Control.bell[0]), value 0x2, failed",
        ]
        device.work = lambda: None
        assert await raw.read(0, READ, 4) == b"\7\0\0\0"


@pytest.mark.asyncio
async def test_handlers_of_posted_writes_that_raise_are_logged_and_not_answered(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    async with slow_device(tmp_path) as (device, raw, log):
        device.work = fail
        await raw.send(message(REGION_WRITE, access(0, WRITE, 4, b"\1\0\0\0"), flags=NO_REPLY))
        await raw.send(message(WRITE_MULTI, write_multi((0, WRITE, b"\2\0\0\0"), (0, WRITE, b"\3\0\0\0"))))
        assert (await raw.receive()).errno == errno.EIO
        await raw.alive()
        assert log.messages == [
            f"Slow: write of 4 bytes in region 0 at 0x4 (Control.write), value {value:#x}, failed"
            for value in (1, 2, 3)
        ]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
@pytest.mark.asyncio
async def test_a_reset_that_raises_is_an_error_and_the_next_client_is_served(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error("on purpose")

    log = Log()
    logger = logging.getLogger("pyvfio_user")
    logger.addHandler(log)
    try:
        device = Slow()
        async with serve(device, tmp_path / "s") as server:
            async with Raw.connect(server.path) as raw:
                device.work = fail
                reply = await raw.request(RESET)
                assert (reply.flags, reply.errno) == (REPLY | ERROR, errno.EIO)
            await asyncio.wait_for(server.wait_disconnected(), 5)
            device.work = lambda: None
            async with Raw.connect(server.path) as raw:
                assert await raw.read(0, READ, 4) == b"\7\0\0\0"
            await asyncio.wait_for(server.wait_disconnected(), 5)
        assert log.messages == ["Slow: DEVICE_RESET failed", "Slow: the reset after its client left failed"]
    finally:
        logger.removeHandler(log)


@pytest.mark.parametrize(("error", "said"), [(ValueError, "raised"), (asyncio.CancelledError, "was cancelled")])
@pytest.mark.asyncio
async def test_an_async_handler_that_raises_or_is_cancelled_does_not_stop_the_next(
    tmp_path: Path, error: type[BaseException], said: str
) -> None:
    def fail() -> None:
        device.work = lambda: None
        raise error("on purpose")

    async with slow_device(tmp_path) as (device, raw, log):
        device.work = fail
        writes = [message(REGION_WRITE, access(0, TASK, 4, bytes([n, 0, 0, 0])), id=n) for n in (1, 2, 3)]
        await raw.send(b"".join(writes))
        assert [((reply := await raw.receive()).id, reply.flags) for _ in writes] == [(n, REPLY) for n in (1, 2, 3)]
        async with asyncio.timeout(5):
            while len(device.done) < 2:
                await asyncio.sleep(0)
        assert device.done == [2, 3]
        assert log.messages == [f"Slow: handler task of Control.task at 0x10 {said} for value 0x1"]


@pytest.mark.asyncio
async def test_the_thread_ends_with_the_last_server(tmp_path: Path) -> None:
    def watchdogs() -> int:
        return sum(thread.name == "pyvfio-user watchdog" for thread in threading.enumerate())

    before = watchdogs()
    async with serve(Slow(), tmp_path / "a", handler_budget=1):
        async with serve(Slow(), tmp_path / "b", handler_budget=2):
            assert watchdogs() == before + 1
        assert watchdogs() == before + 1
    assert watchdogs() == before


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
@pytest.mark.asyncio
async def test_a_budget_must_be_one(tmp_path: Path, budget: float) -> None:
    with pytest.raises(DefinitionError, match=r"^handler_budget must be more than 0 seconds, not "):
        async with serve(Slow(), tmp_path / "s", handler_budget=budget):
            pass
    assert not (tmp_path / "s").exists()
