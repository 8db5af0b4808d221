"""Descriptors of any kind and number: what the server cannot have is an error, and to close one holds nobody up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from .bench import SCRATCH, Bench
from .raw import (
    DMA_MAP,
    DMA_READ,
    ERROR,
    REGION_READ,
    REPLY,
    SET_IRQS,
    VERSION,
    Raw,
    access,
    dma_map,
    message,
    set_irqs,
    version,
)

LINGER = 8  # seconds


@contextlib.contextmanager
def lingering_socket() -> Iterator[socket.socket]:
    """A socket with more to send than its peer takes: whoever closes it last sleeps, in the kernel, for `LINGER`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with other, sock:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(1 << 16))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
        yield sock


@contextlib.asynccontextmanager
async def nobody_is_held_up() -> AsyncIterator[None]:
    """The event loop goes on meanwhile, and what there was to close is closed soon: no thread is left."""
    began, threads = time.monotonic(), os.listdir("/proc/self/task")
    yield
    assert time.monotonic() - began < LINGER / 2
    async with asyncio.timeout(LINGER / 2):
        while len(os.listdir("/proc/self/task")) > len(threads):
            await asyncio.sleep(0)


READ = message(REGION_READ, access(0, SCRATCH, 4))


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        (READ, 0),
        (READ, 16),  # beyond those that a message may have
        (message(DMA_MAP, dma_map(0, 4096)), 0),
        (message(SET_IRQS, set_irqs(0x24, 2, 0, 1)), 0),
        (message(DMA_READ, bytes(16), flags=REPLY), 0),  # to nothing
        (message(DMA_MAP, dma_map(0, 4096), size=64), 0),  # its rest never comes
    ],
)
@pytest.mark.asyncio
async def test_a_socket_that_lingers_when_it_is_closed(bench: Bench, sent: bytes, more: int) -> None:
    async with nobody_is_held_up():
        async with Raw.connect(bench.path) as raw:
            with lingering_socket() as sock:
                await raw.send(sent, [*[0] * more, sock.fileno()])
                sock.close()
                for _ in range(5):
                    await asyncio.sleep(0)
        await bench.check_alive()


@pytest.mark.asyncio
async def test_a_socket_that_lingers_beside_what_is_never_received(bench: Bench) -> None:
    async with nobody_is_held_up():
        async with Raw.connect(bench.path) as raw:
            with lingering_socket() as sock:
                assert raw.sock.send(message(REGION_READ, bytes(100_000), size=0)) > 100_000  # ends the connection
                socket.send_fds(raw.sock, [READ], [sock.fileno()])
                sock.close()
                await raw.ended()
        await bench.check_alive()


@pytest.mark.parametrize("clients", [1, 17])
@pytest.mark.asyncio
async def test_a_socket_that_lingers_from_a_client_that_is_refused(bench: Bench, clients: int) -> None:
    async with nobody_is_held_up(), contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(Raw.connect(bench.path))
        others = [await stack.enter_async_context(Raw.connect(bench.path, negotiate=False)) for _ in range(clients)]
        with lingering_socket() as sock:
            await others[-1].send(message(VERSION, version()), [sock.fileno()])
            sock.close()
            if clients == 1:
                assert (await others[-1].receive()).errno == errno.EBUSY
            else:
                await others[-1].ended()
        await first.alive()


def epoll() -> int:
    with select.epoll() as found:
        return os.dup(found.fileno())


@pytest.mark.parametrize(
    "open_one",
    [
        epoll,
        lambda: os.open("/", os.O_RDONLY),
        lambda: os.open("/", os.O_PATH),
        lambda: os.open("/dev/zero", os.O_RDWR),
        lambda: os.open("/proc/self/mem", os.O_RDWR),
        lambda: os.pidfd_open(os.getpid()),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
        lambda: os.openpty()[0],
    ],
)
@pytest.mark.asyncio
async def test_odd_descriptors_are_refused_and_closed(bench: Bench, open_one: Callable[[], int]) -> None:
    fd = open_one()
    before = len(os.listdir("/proc/self/fd"))
    async with nobody_is_held_up():
        async with Raw.connect(bench.path) as raw:
            assert await raw.refused(DMA_MAP, dma_map(0, 4096), [fd]) == errno.EOPNOTSUPP
            assert await raw.refused(SET_IRQS, set_irqs(0x24, 2, 0, 1), [fd]) == errno.EINVAL
            await raw.send(READ, [fd])
            assert (await raw.receive()).flags == REPLY
        await bench.check_alive()
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


@pytest.mark.parametrize("count", [17, 253])
@pytest.mark.asyncio
async def test_a_message_with_too_many_descriptors_is_refused(bench: Bench, count: int) -> None:
    fd = os.eventfd(0)
    before = bench.descriptors()
    async with Raw.connect(bench.path) as raw:
        for command, body in ((SET_IRQS, set_irqs(0x24, 2, 0, 16)), (DMA_MAP, dma_map(0, 4096))):
            assert await raw.refused(command, body, [fd] * count) == errno.EMFILE
        assert (bench.mode(), bench.memory.maps) == ("none", 0)
        assert bench.leaked(before) == []
        await raw.alive()
    os.close(fd)


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """The process has as many descriptors as it may."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limit[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for fd in taken:
            os.close(fd)


@pytest.mark.asyncio
async def test_descriptors_that_the_process_has_no_room_for_are_an_error(bench: Bench) -> None:
    """They are lost, and without them the messages would mean something else."""
    fd, ram = os.eventfd(0, os.EFD_NONBLOCK), os.memfd_create("ram")
    os.truncate(ram, 4096)
    async with bench.connect() as raw:
        assert (await raw.request(SET_IRQS, set_irqs(0x24, 2, 0, 1), [fd])).flags == REPLY
        with no_descriptor_left():
            for command, body, given in (
                (SET_IRQS, set_irqs(0x24, 2, 0, 1), fd),
                (DMA_MAP, dma_map(0, 4096), ram),
            ):
                reply = await raw.request(command, body, [given])
                assert (reply.flags, reply.errno) == (REPLY | ERROR, errno.EMFILE)
        assert bench.memory.maps == 0, "not one by message only"
        assert bench.interrupts.fire(0)
        assert os.eventfd_read(fd) == 1, "the vector has the descriptor that it had"
        assert (await raw.request(DMA_MAP, dma_map(0, 4096), [ram])).flags == REPLY
    os.close(fd)
    os.close(ram)
