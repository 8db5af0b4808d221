"""The hot path in an event loop: as the loop's selector, and as a guest on another's."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pyvfio_user.bridge.endpoint import Endpoint
from pyvfio_user.bridge.loop import HotPathEventLoop, HotPathSelector, Poller, run
from pyvfio_user.bridge.regions import Region, Rules
from pyvfio_user.bridge.server import Server, serve

from .raw import NO_REPLY, REGION_READ, REGION_WRITE, Raw, access, message

RUNNERS: list[Callable[[Coroutine[Any, Any, None]], None]] = [run, asyncio.run]


class Thing:
    """A device: a scratch register, a register with handlers, and memory."""

    def __init__(self) -> None:
        none, ones = bytes(4), b"\xff" * 4
        self.written: asyncio.Future[int] | None = None
        bar, config = Region(4096), Region(4096)
        bar.add_registers(0, Rules(none, ones, none, none, none))
        bar.add_registers(4, Rules(none, ones, none, none, none), on_read=lambda *_: 42, on_write=self._write)
        config.add_memory(0, 4096)
        self.endpoint = Endpoint({0: bar, 7: config})

    def _write(self, offset: int, size: int, value: int) -> None:
        if self.written is not None:
            self.written.set_result(value)


def hammer(path: Path, stop: threading.Event, done: list[int]) -> None:
    """Reads a register without a pause, from a thread of its own, until told to stop."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(message(1, bytes(4)))
        sock.recv(4096)
        count = 0
        while not stop.is_set():
            sock.sendall(message(REGION_READ, access(0, 0, 4)))
            sock.recv(4096)
            count += 1
        done.append(count)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_device_is_served_on_either_loop(runner: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path) -> None:
    async def check() -> None:
        path = tmp_path / "thing"
        async with serve(Thing(), path) as server:
            for _ in range(3):
                async with Raw.connect(path) as raw:
                    await raw.write(0, 0, b"abcd")
                    assert await raw.read(0, 0, 8) == b"abcd\x2a\0\0\0"
                await server.wait_disconnected()

    runner(check())


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_handler_wakes_a_task(runner: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path) -> None:
    async def check() -> None:
        thing = Thing()
        async with serve(thing, tmp_path / "thing"), Raw.connect(tmp_path / "thing") as raw:
            thing.written = asyncio.get_running_loop().create_future()
            await raw.send(message(REGION_WRITE, access(0, 4, 4, b"\7\0\0\0"), flags=NO_REPLY))
            assert await asyncio.wait_for(thing.written, 5) == 7

    runner(check())


@pytest.mark.parametrize("runner", RUNNERS)
def test_timers_and_other_sockets_have_their_turn(
    runner: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path
) -> None:
    async def check() -> None:
        path, stop, done = tmp_path / "thing", threading.Event(), list[int]()
        async with serve(Thing(), path) as server:
            client = threading.Thread(target=hammer, args=(path, stop, done))
            client.start()
            await server.wait_connected()
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                end.setblocking(False)
            loop = asyncio.get_running_loop()
            for _ in range(20):
                await asyncio.sleep(0.001)
                await loop.sock_sendall(ours, b"ping")
                assert await asyncio.wait_for(loop.sock_recv(theirs, 4), 5) == b"ping"
            stop.set()
            await loop.run_in_executor(None, client.join)
            ours.close()
            theirs.close()
        assert done[0] > 20

    runner(check())


def test_one_loop_serves_many_devices(tmp_path: Path) -> None:
    async def client(number: int) -> None:
        async with Raw.connect(tmp_path / str(number)) as raw:
            for value in range(50):
                await raw.write(0, 0, bytes([value, number, 0, 0]))
                assert await raw.read(0, 0, 8) == bytes([value, number, 0, 0, 42, 0, 0, 0])

    async def check() -> None:
        stack = [serve(Thing(), tmp_path / str(number)) for number in range(16)]
        for server in stack:
            await server.__aenter__()
        await asyncio.gather(*(client(number) for number in range(16)))
        for server in stack:
            await server.__aexit__(None, None, None)

    run(check())


def test_an_idle_server_uses_no_processor(tmp_path: Path) -> None:
    async def check() -> None:
        async with serve(Thing(), tmp_path / "thing"), Raw.connect(tmp_path / "thing") as raw:
            await raw.read(0, 0, 4)
            before = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - before < 0.05

    run(check())


def test_a_signal_ends_a_loop_that_has_nothing_to_do() -> None:
    async def wait() -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(wait())


def test_a_signal_ends_a_loop_that_has_everything_to_do(tmp_path: Path) -> None:
    stop, done = threading.Event(), list[int]()
    client = threading.Thread(target=hammer, args=(tmp_path / "thing", stop, done))

    async def wait() -> None:
        async with serve(Thing(), tmp_path / "thing") as server:
            client.start()
            await server.wait_connected()
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                await asyncio.Event().wait()
            finally:
                stop.set()
                await asyncio.get_running_loop().run_in_executor(None, client.join)

    with pytest.raises(KeyboardInterrupt):
        run(wait())
    assert done


def test_each_loop_has_one_poller() -> None:
    async def pollers() -> tuple[Poller, Poller]:
        loop = asyncio.get_running_loop()
        return Poller.of(loop), Poller.of(loop)

    for first, second in (run(pollers()), asyncio.run(pollers())):
        assert first is second


def test_the_selector_is_one_like_any_other() -> None:
    ours, theirs = socket.socketpair()
    with HotPathSelector() as selector, ours, theirs:
        key = selector.register(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, "data")
        assert key == (ours, ours.fileno(), 3, "data")
        assert selector.select(0) == [(key, selectors.EVENT_WRITE)]
        theirs.send(b"x")
        assert selector.select() == [(key, 3)]
        key = selector.modify(ours, selectors.EVENT_READ)
        assert selector.select(5) == [(key, selectors.EVENT_READ)]
        assert (len(selector.get_map()), list(selector.get_map()), selector.get_map()[ours]) == (1, [ours], key)
        ours.recv(1)
        started = time.monotonic()
        assert selector.select(0.02) == []
        assert 0.02 <= time.monotonic() - started < 1
        theirs.close()
        assert selector.select() == [(key, selectors.EVENT_READ)]
        with pytest.raises(KeyError, match="is already registered"):
            selector.register(ours, selectors.EVENT_READ)
        assert selector.unregister(ours) == key
        with pytest.raises(KeyError, match="is not registered"):
            selector.get_key(ours)
        with pytest.raises(ValueError, match=r"^events must be EVENT_READ, EVENT_WRITE or both, not 0$"):
            selector.register(ours, 0)
        with pytest.raises(ValueError, match=r"^file descriptor must be at least 0, not -1$"):
            selector.register(-1, selectors.EVENT_READ)
    with open(__file__) as file, HotPathSelector() as selector, pytest.raises(PermissionError):
        selector.register(file, selectors.EVENT_READ)


def test_run_gives_the_result_on_a_loop_of_its_own() -> None:
    async def main() -> tuple[int, bool]:
        return 7, isinstance(asyncio.get_running_loop(), HotPathEventLoop)

    assert run(main()) == (7, True)


@pytest.mark.asyncio
async def test_a_second_client_is_refused_and_the_next_one_taken(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    async with serve(Thing(), path) as server:
        assert isinstance(server, Server)
        async with Raw.connect(path), Raw.connect(path, negotiate=False) as second:
            with pytest.raises(EOFError):
                await second.receive()
        async with Raw.connect(path) as third:
            assert await third.read(0, 0, 4) == bytes(4)
