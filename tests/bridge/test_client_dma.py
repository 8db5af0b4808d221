"""The client's interrupts and its memory, against a scripted server."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pyvfio_user.bridge.client import Client, VfioUserError

from .fake_server import FakeServer, fake_server
from .raw import (
    DMA_MAP,
    DMA_READ,
    DMA_UNMAP,
    DMA_WRITE,
    ERROR,
    GET_REGION_INFO,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    RESET,
    SET_IRQS,
    VERSION,
    access,
    dma_map,
    dma_unmap,
    message,
    open_descriptors,
    set_irqs,
    version,
)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with fake_server(tmp_path / "fake.sock") as server:
        yield server


@pytest.fixture
def path(tmp_path: Path, server: FakeServer) -> Path:
    return tmp_path / "fake.sock"


def region_info(
    needed: int, flags: int, size: int, *, capability: bytes = b"", cap_offset: int = 0, offset: int = 0
) -> bytes:
    return struct.pack("<IIIIQQ", needed, flags, 2, cap_offset, size, offset) + capability


def sparse(*areas: tuple[int, int]) -> bytes:
    packed = [struct.pack("<QQ", offset, length) for offset, length in areas]
    return struct.pack("<HHIII", 1, 1, 0, len(areas), 0) + b"".join(packed)


# Interrupts and memory


@pytest.mark.asyncio
async def test_interrupts_are_eventfds_at_the_server(server: FakeServer, path: Path) -> None:
    async with Client.connect(path) as client:
        await client.intx.enable(1)
        (fd,) = server.of(SET_IRQS)[-1].fds
        waiter = asyncio.create_task(client.intx[0].wait())
        os.eventfd_write(fd, 3)
        assert await waiter == 3
        assert client.intx[0].take() == 0
        with pytest.raises(TimeoutError, match=r"^vector 0 was not signalled within 0\.01 s$"):
            await client.intx[0].wait(0.01)
        await client.intx.unmask()
        await client.intx.mask()
        await client.intx.trigger()
        await client.intx.disable()
        with pytest.raises(RuntimeError, match=r"^vector 0 must be enabled before it is used$"):
            client.intx[0]
        with pytest.raises(IndexError, match=r"^vector must be 0 to 3, not 4$"):
            client.intx[4]
    assert [(r.body, len(r.fds)) for r in server.of(SET_IRQS)] == [
        (set_irqs(0x21, 0, 0, 0), 0),
        (set_irqs(0x24, 0, 0, 1), 1),
        (set_irqs(0x11, 0, 0, 1), 0),
        (set_irqs(0x09, 0, 0, 1), 0),
        (set_irqs(0x21, 0, 0, 1), 0),
        (set_irqs(0x21, 0, 0, 0), 0),
    ]


@pytest.mark.asyncio
async def test_eventfds_come_in_chunks_of_what_the_server_takes(server: FakeServer, path: Path) -> None:
    server.answers[VERSION] = lambda _: version(b'{"capabilities":{"max_msg_fds":3}}\0')
    async with Client.connect(path) as client:
        await client.msi.enable()
    assert [(r.body, len(r.fds)) for r in server.of(SET_IRQS)] == [
        (set_irqs(0x21, 1, 0, 0), 0),
        (set_irqs(0x24, 1, 0, 3), 3),
        (set_irqs(0x24, 1, 3, 1), 1),
    ]


@pytest.mark.asyncio
async def test_msix_is_enabled_as_qemu_does(server: FakeServer, path: Path) -> None:
    config = bytearray(4096)
    config[0x34] = 0x40
    config[0x40:0x44] = bytes([0x05, 0x50, 0x00, 0x00])
    config[0x50:0x54] = bytes([0x11, 0x00, 0x03, 0x00])

    def read(request: object) -> bytes:
        offset, _, count = struct.unpack("<QII", request.body)  # type: ignore[attr-defined]
        return request.body + config[offset : offset + count]  # type: ignore[attr-defined, no-any-return]

    server.answers[REGION_READ] = read
    server.answers[REGION_WRITE] = lambda request: request.body[:16]
    async with Client.connect(path) as client:
        assert await client.config.capabilities() == {0x05: 0x40, 0x11: 0x50}
        before = len(server.requests)
        await client.config.enable_msix(2)
        await client.config.set_bus_master(True)
    made = [(r.command, r.body, len(r.fds)) for r in server.requests[before:] if r.command != REGION_READ]
    assert made == [
        (REGION_WRITE, access(7, 0x52, 2, b"\x03\x80"), 0),
        (SET_IRQS, set_irqs(0x21, 0, 0, 0), 0),
        (SET_IRQS, set_irqs(0x24, 2, 0, 1), 0),
        (SET_IRQS, set_irqs(0x24, 2, 0, 1), 1),
        (SET_IRQS, set_irqs(0x24, 2, 1, 1), 1),
        (REGION_WRITE, access(7, 0x04, 2, b"\x04\x00"), 0),
    ]


@pytest.mark.asyncio
async def test_shared_memory_is_mapped_at_the_server(server: FakeServer, path: Path) -> None:
    server.answers[DMA_UNMAP] = lambda request: request.body
    async with Client.connect(path) as client:
        ram = await client.add_memory(0x4000_0000, 0x2000)
        (request,) = server.of(DMA_MAP)
        assert request.body == dma_map(0x4000_0000, 0x2000)
        with mmap.mmap(request.fds[0], 0x2000) as theirs:
            theirs[0x1000:0x1004] = b"here"
        assert bytes(ram.memory[0x1000:0x1004]) == b"here"
        await client.remove_memory(ram)
        await client.add_memory(0x1000, 0x1000, writable=False)
        await client.remove_all_memory()
        assert client.memories == []
    assert server.of(DMA_MAP)[1].body == dma_map(0x1000, 0x1000, flags=1)
    assert [r.body for r in server.of(DMA_UNMAP)] == [dma_unmap(0x4000_0000, 0x2000), dma_unmap(0, 0, flags=2)]


@pytest.mark.asyncio
async def test_memory_that_the_server_refuses_is_not_kept(server: FakeServer, path: Path) -> None:
    server.answers[DMA_MAP] = lambda _: errno.EEXIST
    async with Client.connect(path) as client:
        with pytest.raises(VfioUserError, match="DMA_MAP was refused: File exists"):
            await client.add_memory(0, 4096)
        assert client.memories == []


@pytest.mark.asyncio
async def test_messages_reach_memory_without_a_descriptor(server: FakeServer, path: Path) -> None:
    asks = [
        (DMA_WRITE, struct.pack("<QQ", 0x1ffc, 4) + b"tail", (REPLY, 0, struct.pack("<QQ", 0x1ffc, 4))),
        (DMA_READ, struct.pack("<QQ", 0x1ffa, 6), (REPLY, 0, struct.pack("<QQ", 0x1ffa, 6) + b"\0\0tail")),
        (DMA_READ, struct.pack("<QQ", 0x1ffa, 7), (REPLY | ERROR, errno.EFAULT, b"")),
        (DMA_READ, struct.pack("<QQ", 0x3000, 1), (REPLY, 0, struct.pack("<QQ", 0x3000, 1) + b"\0")),
        (DMA_WRITE, struct.pack("<QQ", 0x3000, 1) + b"x", (REPLY | ERROR, errno.EINVAL, b"")),
        (DMA_WRITE, struct.pack("<QQ", 0x1000, 2) + b"x", (REPLY | ERROR, errno.EINVAL, b"")),
        (DMA_WRITE, b"short", (REPLY | ERROR, errno.EINVAL, b"")),
        (RESET, b"", (REPLY | ERROR, errno.EINVAL, b"")),
    ]  # fmt: skip
    async with Client.connect(path) as client:
        await client.add_memory(0x1000, 0x1000, shared=False)
        await client.add_memory(0x3000, 0x1000, shared=False, writable=False)
        assert [len(r.fds) for r in server.of(DMA_MAP)] == [0, 0]
        before = len(server.requests)
        for number, (command, body, _) in enumerate(asks):
            await server.say(message(command, body, id=number))
        while len(server.requests) < before + len(asks):
            await asyncio.sleep(0)
        assert bytes(client.memories[0].memory[-4:]) == b"tail"
    answers = server.requests[before:]
    assert [(a.id, a.command) for a in answers] == [(number, ask[0]) for number, ask in enumerate(asks)]
    assert [(a.flags, a.errno, a.body) for a in answers] == [ask[2] for ask in asks]


@pytest.mark.asyncio
async def test_nothing_stays_open(server: FakeServer, path: Path) -> None:
    fd = os.memfd_create("bar")
    os.truncate(fd, 4096)
    server.answers[GET_REGION_INFO] = lambda _: (region_info(32, 7, 4096), [fd])
    before = open_descriptors()
    async with Client.connect(path) as client:
        await client.add_memory(0, 4096)
        await client.msix.enable()
        client.mapped(0)[0] = 1
    for request in server.requests:
        for received in request.fds:
            os.close(received)
        request.fds.clear()
    server.hang_up()
    assert server.link is not None
    server.link.sock.close()
    assert [name for name in open_descriptors() if "guest-ram" in name or "eventfd" in name] == [
        name for name in before if "guest-ram" in name or "eventfd" in name
    ]
    assert sum("memfd:bar" in name for name in open_descriptors()) == 1
    os.close(fd)
