"""REGION_READ, REGION_WRITE, REGION_WRITE_MULTI and DEVICE_RESET."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct

import pytest

from .bench import (
    BAR0_SIZE,
    BAR2_SIZE,
    CLEARED_BY_READ,
    CONFIG_HEAD,
    COUNTER,
    DOORBELL,
    FAULTY,
    MEMORY,
    MEMORY_SIZE,
    NOWHERE,
    SCRATCH,
    WRITE_ONES,
    WRITTEN,
    Bench,
)
from .raw import (
    HEADER,
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


@pytest.mark.parametrize("size", [1, 2, 4, 8, 3, 16, 64, 4096])
@pytest.mark.asyncio
async def test_memory_keeps_what_is_written(bench: Bench, size: int) -> None:
    data = bytes(i * 7 + 1 & 0xFF for i in range(size))
    async with Raw.connect(bench.path) as raw:
        await raw.write(0, MEMORY, data)
        assert await raw.read(0, MEMORY, size) == data


@pytest.mark.asyncio
async def test_the_register_rules_are_kept(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.write(0, SCRATCH, b"\x78\x56\x34\x12")
        await raw.write(0, SCRATCH + 1, b"\xaa")
        assert await raw.read(0, SCRATCH, 4) == b"\x78\xaa\x34\x12"
        assert await raw.read(0, SCRATCH + 2, 2) == b"\x34\x12"
        assert await raw.read(0, WRITE_ONES, 4) == b"\xff\xff\0\0"
        await raw.write(0, WRITE_ONES, b"\x0f\0\0\0")
        assert await raw.read(0, WRITE_ONES, 4) == b"\xf0\xff\0\0"
        assert await raw.read(0, CLEARED_BY_READ, 4) == b"\x11\x22\x33\x44"
        assert await raw.read(0, CLEARED_BY_READ, 4) == bytes(4)


@pytest.mark.asyncio
async def test_bytes_that_nothing_claims_read_zero_and_ignore_writes(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.write(0, NOWHERE, b"\xff" * 8)
        assert await raw.read(0, NOWHERE, 8) == bytes(8)


@pytest.mark.asyncio
async def test_a_read_handler_answers(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await raw.read(0, COUNTER, 4) == b"\x01\0\0\0"
        assert await raw.read(0, COUNTER, 4) == b"\x02\0\0\0"


@pytest.mark.asyncio
async def test_a_write_handler_has_run_when_the_write_is_answered(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.write(0, WRITTEN, b"\x01\x02\x03\x04")
        assert bench.device.written == [0x04030201]
        await raw.write(0, WRITTEN + 2, b"\x05\x06")
        assert bench.device.written == [0x04030201, 0x06050201]


@pytest.mark.asyncio
async def test_doorbells_ring_in_order(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        for value in range(100):
            await raw.write(0, DOORBELL, value.to_bytes(4, "little"))
        await bench.until(lambda: len(bench.device.rings) == 100)
    assert bench.device.rings == list(range(100))


@pytest.mark.asyncio
async def test_the_whole_config_space_comes_in_one_message(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        config = await raw.read(7, 0, 4096)
    assert config[: len(CONFIG_HEAD)] == CONFIG_HEAD


@pytest.mark.asyncio
async def test_transfers_of_a_whole_region(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        data = bytes(range(256)) * (MEMORY_SIZE // 256)
        await raw.write(0, MEMORY, data)
        assert await raw.read(0, MEMORY, MEMORY_SIZE) == data
        assert len(await raw.read(2, 0, BAR2_SIZE)) == BAR2_SIZE


@pytest.mark.asyncio
async def test_a_write_with_no_reply_gets_none(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(REGION_WRITE, access(0, SCRATCH, 4, b"post"), id=5, flags=NO_REPLY))
        assert await raw.read(0, SCRATCH, 4) == b"post"
        await raw.alive()


@pytest.mark.parametrize("body", [
    access(0, FAULTY, 4, bytes(4)), access(9, 0, 4, bytes(4)), access(0, BAR0_SIZE, 4, bytes(4)), b"",
    access(0, SCRATCH, 8, bytes(4)), access(0, SCRATCH, 4, bytes(5)),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_failed_write_with_no_reply_gets_none_either(bench: Bench, body: bytes) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(REGION_WRITE, body, id=5, flags=NO_REPLY))
        await raw.alive()


@pytest.mark.asyncio
async def test_write_multi_writes_in_order_and_is_not_answered(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        body = write_multi(
            (0, SCRATCH, b"\1\2\3\4"), (0, WRITTEN, b"\5\6\7\x08"), (0, DOORBELL, b"\x2a\0\0\0"),
            (0, MEMORY, b"12345678"), (0, MEMORY + 4, b"z"), (0, SCRATCH + 3, b"\xff"),
        )  # fmt: skip
        await raw.send(message(WRITE_MULTI, body, id=5, flags=NO_REPLY))
        assert await raw.read(0, SCRATCH, 4) == b"\1\2\3\xff"
        assert await raw.read(0, MEMORY, 8) == b"1234z678"
        assert bench.device.written == [0x08070605]
        await bench.until(lambda: bench.device.rings == [42])
        await raw.alive()


@pytest.mark.asyncio
async def test_write_multi_of_200(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        writes = [(0, MEMORY + 8 * i, i.to_bytes(8, "little")) for i in range(200)]
        await raw.send(message(WRITE_MULTI, write_multi(*writes), flags=NO_REPLY))
        expected = b"".join(i.to_bytes(8, "little") for i in range(200))
        assert await raw.read(0, MEMORY, 1600) == expected


@pytest.mark.parametrize("body", [
    b"", bytes(7), b"\1" + bytes(7), b"\2" + bytes(7) + write_multi((0, SCRATCH, b"bad!"))[8:],
    b"\xff" * 8 + bytes(24), write_multi((0, SCRATCH, b"1234")) + b"x",
    struct.pack("<QQII8s", 1, SCRATCH, 0, 9, b"too much"), bytes(8) + bytes(24),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_malformed_write_multi_is_not_answered_and_the_server_lives(bench: Bench, body: bytes) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(WRITE_MULTI, body, flags=NO_REPLY))
        await raw.alive()
        assert await raw.read(0, SCRATCH, 4) == bytes(4)


@pytest.mark.asyncio
async def test_write_multi_skips_what_it_cannot_write(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        body = write_multi(
            (9, 0, b"lost"), (0, BAR0_SIZE - 2, b"over"), (0, FAULTY, b"\1\1\1\1"), (0, SCRATCH, b"kept")
        )
        await raw.send(message(WRITE_MULTI, body, flags=NO_REPLY))
        assert await raw.read(0, SCRATCH, 4) == b"kept"


@pytest.mark.parametrize(("region", "offset", "count"), [
    (0, BAR0_SIZE, 1), (0, BAR0_SIZE - 1, 2), (0, BAR0_SIZE + 4096, 4), (0, (1 << 64) - 1, 1), (0, (1 << 64) - 4, 4),
    (0, (1 << 64) - 4, 8), (0, 1 << 63, 4), (0, 0, 0xFFFF_FFFF), (1, 0, 4), (6, 0, 4), (8, 0, 4), (9, 0, 4),
    (0x8000_0000, 0, 4), (0xFFFF_FFFF, 0, 4), (7, 4095, 2), (0, 0, (1 << 20) + 1),
])  # fmt: skip
@pytest.mark.asyncio
async def test_an_access_outside_is_refused(bench: Bench, region: int, offset: int, count: int) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await raw.refused(REGION_READ, access(region, offset, count)) == errno.EINVAL
        if count <= 8:
            assert await raw.refused(REGION_WRITE, access(region, offset, count, bytes(count))) == errno.EINVAL
        await raw.alive()


@pytest.mark.parametrize(("command", "body"), [
    (REGION_READ, b""), (REGION_READ, bytes(15)), (REGION_WRITE, b""), (REGION_WRITE, bytes(15)),
    (REGION_READ, access(0, SCRATCH, 4, b"data")), (REGION_WRITE, access(0, SCRATCH, 4, b"123")),
    (REGION_WRITE, access(0, SCRATCH, 4, b"12345")), (REGION_WRITE, access(0, SCRATCH, 0xFFFF_FFFF, b"1")),
])  # fmt: skip
@pytest.mark.asyncio
async def test_an_access_whose_length_lies_is_refused(bench: Bench, command: int, body: bytes) -> None:
    async with Raw.connect(bench.path) as raw:
        assert await raw.refused(command, body) == errno.EINVAL
        assert await raw.read(0, SCRATCH, 4) == bytes(4)


@pytest.mark.asyncio
async def test_a_handler_that_raises_is_eio_and_says_where(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with Raw.connect(bench.path) as raw:
        with caplog.at_level(logging.ERROR, logger="pyvfio_user.bridge"):
            assert await raw.refused(REGION_READ, access(0, FAULTY, 4)) == errno.EIO
            (record,) = caplog.records
            assert record.name.startswith("pyvfio_user.bridge")
            assert record.exc_info is not None
            assert isinstance(record.exc_info[1], ZeroDivisionError)
            assert "region 0" in record.getMessage()
            assert f"{FAULTY:#x}" in record.getMessage()
            caplog.clear()
            assert await raw.refused(REGION_WRITE, access(0, FAULTY, 4, b"\xef\xbe\xad\xde")) == errno.EIO
            (record,) = caplog.records
            assert "0xdeadbeef" in record.getMessage()
            assert f"{FAULTY:#x}" in record.getMessage()
            assert "4 bytes" in record.getMessage()
        await raw.alive()


@pytest.mark.asyncio
async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        sent = b""
        for i in range(1000):
            if i % 3 == 0:
                sent += message(REGION_WRITE, access(0, SCRATCH, 4, i.to_bytes(4, "little")), id=i)
            elif i % 3 == 1:
                sent += message(REGION_WRITE, access(0, MEMORY, 2, i.to_bytes(2, "little")), id=i, flags=NO_REPLY)
            else:
                sent += message(REGION_READ, access(0, SCRATCH, 4), id=i)
        sending = asyncio.create_task(raw.send(sent))
        for i in range(1000):
            if i % 3 == 1:
                continue
            reply = await raw.receive()
            assert (reply.id, reply.flags) == (i, REPLY)
            if i % 3 == 2:
                assert int.from_bytes(reply.body[16:], "little") == i - 2
        await sending
        assert await raw.read(0, MEMORY, 2) == (997).to_bytes(2, "little")


@pytest.mark.asyncio
async def test_ids_are_the_clients_own_and_may_repeat(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(REGION_READ, access(0, COUNTER, 4), id=0xFFFF) * 3)
        replies = [await raw.receive() for _ in range(3)]
    assert [(r.id, r.body[16]) for r in replies] == [(0xFFFF, 1), (0xFFFF, 2), (0xFFFF, 3)]


@pytest.mark.asyncio
async def test_reset_resets_and_answers_with_a_header(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.write(0, SCRATCH, b"1234")
        reply = await raw.request(RESET)
        assert (reply.flags, reply.body) == (REPLY, b"")
        assert bench.device.resets == 1
        assert await raw.read(0, SCRATCH, 4) == bytes(4)
        reply = await raw.request(RESET)
        assert bench.device.resets == 2


@pytest.mark.asyncio
async def test_every_reply_arrives_whole_in_one_receive(bench: Bench) -> None:
    """QEMU gives up if a header does not come at once; a reply in two sends would show here as two receives."""
    loop = asyncio.get_running_loop()
    sizes: list[int] = []

    def talk(sock: socket.socket) -> None:
        for _ in range(200):
            sock.send(message(REGION_READ, access(0, SCRATCH, 4)))
            sizes.append(len(sock.recv(4096)))
            sock.send(message(REGION_READ, access(0, FAULTY, 4)))
            sizes.append(len(sock.recv(4096)))
            sock.send(message(RESET))
            sizes.append(len(sock.recv(4096)))

    async with Raw.connect(bench.path) as raw:
        raw.sock.setblocking(True)
        raw.sock.settimeout(5)
        await loop.run_in_executor(None, talk, raw.sock)
        assert sizes == [HEADER.size + 20, HEADER.size, HEADER.size] * 200
