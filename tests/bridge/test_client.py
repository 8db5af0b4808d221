"""The client alone, against a scripted server: what it asks for, and what it makes of a server gone wrong."""

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

from pyvfio_user.bridge.client import Client, ProtocolError, VfioUserError

from .fake_server import FakeServer, fake_server
from .raw import (
    DEVICE_GET_INFO,
    GET_REGION_INFO,
    HEADER,
    NO_REPLY,
    QEMU_JSON,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    RESET,
    VERSION,
    WRITE_MULTI,
    access,
    message,
    version,
    write_multi,
)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with fake_server(tmp_path / "fake.sock") as server:
        yield server


@pytest.fixture
def path(tmp_path: Path, server: FakeServer) -> Path:
    return tmp_path / "fake.sock"


async def connect_fails(path: Path, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        async with Client.connect(path):
            pass
    assert str(caught.value) == message


def region_info(
    needed: int, flags: int, size: int, *, capability: bytes = b"", cap_offset: int = 0, offset: int = 0
) -> bytes:
    return struct.pack("<IIIIQQ", needed, flags, 2, cap_offset, size, offset) + capability


def sparse(*areas: tuple[int, int]) -> bytes:
    packed = [struct.pack("<QQ", offset, length) for offset, length in areas]
    return struct.pack("<HHIII", 1, 1, 0, len(areas), 0) + b"".join(packed)


# Negotiation and discovery


@pytest.mark.asyncio
async def test_version_is_qemus_to_the_byte(server: FakeServer, path: Path) -> None:
    async with Client.connect(path):
        pass
    assert server.requests[0].command == VERSION
    assert server.requests[0].body == version(QEMU_JSON)
    assert HEADER.size + len(server.requests[0].body) == 214


@pytest.mark.asyncio
async def test_own_capabilities_are_proposed(server: FakeServer, path: Path) -> None:
    async with Client.connect(path, capabilities={"max_msg_fds": 1}) as client:
        assert client.capabilities["max_msg_fds"] == 1
    assert server.requests[0].body == version(b'{"capabilities": {"max_msg_fds": 1}}\0')


@pytest.mark.asyncio
async def test_omitted_capabilities_take_qemus_defaults(server: FakeServer, path: Path) -> None:
    server.answers[VERSION] = lambda _: version(b"{}\0")
    async with Client.connect(path) as client:
        assert client.capabilities == {
            "max_msg_fds": 8,
            "max_data_xfer_size": 1048576,
            "pgsizes": 4096,
            "max_dma_maps": 65535,
        }


@pytest.mark.asyncio
async def test_version_0_1_is_rejected(server: FakeServer, path: Path) -> None:
    server.answers[VERSION] = lambda _: version(minor=1)
    await connect_fails(path, "the version must be 0.0, not 0.1")


@pytest.mark.asyncio
async def test_json_longer_than_the_request_is_rejected(server: FakeServer, path: Path) -> None:
    server.answers[VERSION] = lambda request: request.body + b" "
    await connect_fails(path, "the server's JSON must be of at most 194 bytes, not 195")


@pytest.mark.asyncio
async def test_json_of_another_kind_is_rejected(server: FakeServer, path: Path) -> None:
    server.answers[VERSION] = lambda _: version(b"[]\0")
    await connect_fails(path, "the server's VERSION must be JSON with capabilities, not b'[]\\x00'")


@pytest.mark.parametrize(("key", "value"), [
    ("max_msg_fds", 17), ("max_data_xfer_size", 4095), ("max_data_xfer_size", (64 << 20) + 1),
    ("max_dma_maps", 65536), ("pgsizes", 0), ("pgsizes", 512),
])  # fmt: skip
@pytest.mark.asyncio
async def test_limits_that_qemu_rejects_are_rejected(server: FakeServer, path: Path, key: str, value: int) -> None:
    server.answers[VERSION] = lambda _: version(b'{"capabilities":{"%s":%d}}\0' % (key.encode(), value))
    bounds = {
        "max_msg_fds": "0 to 16",
        "max_data_xfer_size": "4096 to 67108864",
        "max_dma_maps": "0 to 65535",
        "pgsizes": "a multiple of 4096",
    }
    await connect_fails(path, f"{key} must be {bounds[key]}, not {value}")


@pytest.mark.asyncio
async def test_device_info_is_bounded(server: FakeServer, path: Path) -> None:
    server.answers[DEVICE_GET_INFO] = lambda _: struct.pack("<IIII", 16, 3, 101, 5)
    await connect_fails(path, "a PCI device must have 8 to 100 regions and 3 to 50 irqs, not 101 and 5")


@pytest.mark.asyncio
async def test_regions_are_asked_again_with_the_room_they_need(server: FakeServer, path: Path) -> None:
    fd = os.memfd_create("bar")
    os.truncate(fd, 0x8000)
    os.pwrite(fd, b"second", 0x5000)

    def answer(request: object) -> tuple[bytes, list[int]] | bytes:
        _, _, body = request.id, request.command, request.body  # type: ignore[attr-defined]
        room, _, index = struct.unpack_from("<III", body)
        if index != 2:
            return region_info(32, 3, 0)
        if room == 32:
            return region_info(80, 7, 0x4000, offset=0x4000)
        capability = sparse((0, 0x1000), (0x1000, 0x2000))
        return region_info(80, 15, 0x4000, capability=capability, cap_offset=32, offset=0x4000), [fd]

    server.answers[GET_REGION_INFO] = answer
    async with Client.connect(path) as client:
        assert [r.size for r in client.bars] == [0, 0, 0x4000, 0, 0, 0]
        assert [(a.offset, len(a.memory)) for a in client.bars[2].areas] == [(0, 0x1000), (0x1000, 0x2000)]
        assert bytes(client.mapped(2, 1)[:6]) == b"second"
        with pytest.raises(LookupError, match=r"^BAR 2 must have a mapped area 2, and has 2$"):
            client.mapped(2, 2)
    os.close(fd)
    rooms = [struct.unpack_from("<I", r.body)[0] for r in server.of(GET_REGION_INFO)]
    assert rooms == [32, 32, 32, 80, 32, 32, 32, 32, 32]


@pytest.mark.asyncio
async def test_an_area_past_the_file_is_rejected(server: FakeServer, path: Path) -> None:
    fd = os.memfd_create("short")
    os.truncate(fd, mmap.PAGESIZE)
    server.answers[GET_REGION_INFO] = lambda _: (region_info(32, 7, 0x4000), [fd])
    await connect_fails(
        path,
        "an area of region 0 must lie within its file, not at 0x0, 16384 bytes (mmap length is greater than file size)",
    )
    os.close(fd)


@pytest.mark.asyncio
async def test_two_descriptors_for_a_region_are_rejected(server: FakeServer, path: Path) -> None:
    fd = os.memfd_create("bar")
    os.truncate(fd, mmap.PAGESIZE)
    server.answers[GET_REGION_INFO] = lambda _: (region_info(32, 7, mmap.PAGESIZE), [fd, fd])
    await connect_fails(path, "DEVICE_GET_REGION_INFO must be answered with at most 1 fds, not 2")
    os.close(fd)


# Accesses


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.asyncio
async def test_read_and_write_are_little_endian(server: FakeServer, path: Path, size: int) -> None:
    value = int.from_bytes(bytes(range(1, size + 1)), "little")
    server.answers[REGION_READ] = lambda request: request.body + bytes(range(1, size + 1))
    server.answers[REGION_WRITE] = lambda request: request.body[:16]
    async with Client.connect(path) as client:
        assert await client.bars[0].read(0x10, size) == value
        await client.bars[0].write(0x20, value, size)
    assert server.of(REGION_READ)[0].body == access(0, 0x10, size)
    assert server.of(REGION_WRITE)[0].body == access(0, 0x20, size, bytes(range(1, size + 1)))


@pytest.mark.asyncio
async def test_bulk_accesses_are_as_large_as_the_server_takes(server: FakeServer, path: Path) -> None:
    server.answers[VERSION] = lambda _: version(b'{"capabilities":{"max_data_xfer_size":4096}}\0')
    server.answers[REGION_WRITE] = lambda request: request.body[:16]
    async with Client.connect(path) as client:
        assert await client.bars[0].read_bytes(0x100, 5000) == bytes(5000)
        await client.bars[0].write_bytes(0, bytes(8192))
        assert await client.bars[0].read_bytes(0, 0) == b""
    assert [r.body for r in server.of(REGION_READ)] == [access(0, 0x100, 4096), access(0, 0x1100, 904)]
    assert [r.body[:16] for r in server.of(REGION_WRITE)] == [access(0, 0, 4096), access(0, 4096, 4096)]


@pytest.mark.asyncio
async def test_posted_writes_carry_no_reply(server: FakeServer, path: Path) -> None:
    async with Client.connect(path) as client:
        await client.bars[0].post(8, 0x0102, 2)
        await client.write_multi([(0, 0, b"a"), (2, 8, b"12345678")])
        await client.reset()
    (write,), (multi,), (reset,) = server.of(REGION_WRITE), server.of(WRITE_MULTI), server.of(RESET)
    assert (write.flags, write.body) == (NO_REPLY, access(0, 8, 2, b"\x02\x01"))
    assert (multi.flags, multi.body) == (NO_REPLY, write_multi((0, 0, b"a"), (2, 8, b"12345678")))
    assert (reset.flags, reset.body) == (0, b"")


@pytest.mark.asyncio
async def test_write_multi_splits_after_200(server: FakeServer, path: Path) -> None:
    async with Client.connect(path) as client:
        await client.write_multi([(0, 0, b"x")] * 201)
        await client.reset()
    assert [struct.unpack_from("<Q", r.body)[0] for r in server.of(WRITE_MULTI)] == [200, 1]


@pytest.mark.asyncio
async def test_replies_are_matched_by_id_in_any_order(server: FakeServer, path: Path) -> None:
    server.answers[REGION_READ] = lambda _: None
    async with Client.connect(path) as client:
        first = asyncio.create_task(client.bars[0].read(0, 1))
        second = asyncio.create_task(client.bars[0].read(1, 1))
        while len(server.of(REGION_READ)) < 2:
            await asyncio.sleep(0)
        for request in reversed(server.of(REGION_READ)):
            body = request.body + bytes([0x40 + request.body[0]])
            await server.say(message(REGION_READ, body, id=request.id, flags=REPLY))
        assert (await first, await second) == (0x40, 0x41)


# A server gone wrong


@pytest.mark.asyncio
async def test_an_error_reply_is_an_error_with_its_errno(server: FakeServer, path: Path) -> None:
    server.answers[REGION_READ] = lambda _: errno.EIO
    async with Client.connect(path) as client:
        with pytest.raises(VfioUserError) as caught:
            await client.bars[0].read(0, 4)
    assert (caught.value.errno, caught.value.command) == (errno.EIO, REGION_READ)
    assert caught.value.strerror == "REGION_READ was refused: Input/output error"


@pytest.mark.asyncio
async def test_a_server_that_dies_is_an_error_and_no_hang(server: FakeServer, path: Path) -> None:
    server.answers[REGION_READ] = lambda _: server.hang_up()
    async with Client.connect(path) as client:
        with pytest.raises(ConnectionResetError, match=r"^the server closed the connection"):
            await client.bars[0].read(0, 4)
        with pytest.raises(ConnectionResetError, match=r"^the server closed the connection"):
            await client.bars[0].read(0, 4)
        with pytest.raises(ConnectionResetError, match=r"^the server closed the connection"):
            await client.bars[0].post(0, 1, 4)


@pytest.mark.asyncio
async def test_a_server_that_dies_wakes_those_who_wait_for_an_interrupt(server: FakeServer, path: Path) -> None:
    async with Client.connect(path) as client:
        await client.intx.enable()
        waiter = asyncio.create_task(client.intx[0].wait(60))
        await asyncio.sleep(0)
        server.hang_up()
        with pytest.raises(ConnectionResetError):
            await waiter


@pytest.mark.asyncio
async def test_an_absent_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with Client.connect(tmp_path / "absent.sock"):
            pass


@pytest.mark.asyncio
async def test_a_late_reply_is_dropped(server: FakeServer, path: Path) -> None:
    server.answers[RESET] = lambda _: None
    async with Client.connect(path) as client:
        with pytest.raises(TimeoutError, match=r"^DEVICE_RESET was not answered within 0\.01 s$"):
            await client.link.request(RESET, timeout=0.01)
        (late,) = server.of(RESET)
        await server.say(message(RESET, id=late.id, flags=REPLY))
        assert await client.bars[0].read(0, 4) == 0


@pytest.mark.parametrize(("said", "reason"), [
    (message(RESET, id=0x999, flags=REPLY), "a reply must answer a request, not id 0x999 that nobody waits for"),
    (message(RESET, flags=2), "a message must be a command (0) or a reply (1), not type 2"),
    (message(RESET, size=15), "a message must be of 16 bytes to 64 MiB, not 15 bytes"),
    (message(RESET, size=1 << 31), "a message must be of 16 bytes to 64 MiB, not 2147483648 bytes"),
])  # fmt: skip
@pytest.mark.asyncio
async def test_nonsense_closes_the_connection(server: FakeServer, path: Path, said: bytes, reason: str) -> None:
    server.answers[REGION_READ] = lambda _: None
    async with Client.connect(path) as client:
        read = asyncio.create_task(client.bars[0].read(0, 4))
        while not server.of(REGION_READ):
            await asyncio.sleep(0)
        await server.say(said)
        with pytest.raises(ProtocolError) as caught:
            await read
    assert str(caught.value) == reason


@pytest.mark.asyncio
async def test_a_reply_of_another_command_closes_the_connection(server: FakeServer, path: Path) -> None:
    server.answers[REGION_READ] = lambda _: None
    async with Client.connect(path) as client:
        read = asyncio.create_task(client.bars[0].read(0, 4))
        while not server.of(REGION_READ):
            await asyncio.sleep(0)
        await server.say(message(RESET, id=server.of(REGION_READ)[0].id, flags=REPLY))
        with pytest.raises(ProtocolError, match=r"^a reply to REGION_READ must not be of command 13$"):
            await read


@pytest.mark.parametrize(("answer", "reason"), [
    (access(0, 4, 4, bytes(4)), "a reply to REGION_READ must repeat the offset, region and count of the request"),
    (access(0, 0, 4, bytes(3)), "a reply to REGION_READ must carry 4 bytes, not 3"),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_wrong_reply_to_a_read(server: FakeServer, path: Path, answer: bytes, reason: str) -> None:
    server.answers[REGION_READ] = lambda _: answer
    async with Client.connect(path) as client:
        with pytest.raises(ProtocolError) as caught:
            await client.bars[0].read(0, 4)
    assert str(caught.value) == reason
