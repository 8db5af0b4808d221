"""VERSION, and who may connect: what a server answers before anything else."""

from __future__ import annotations

import contextlib
import errno
import json
import struct

import pytest

from pyvfio_user.bridge import server as server_module

from .bench import Bench
from .raw import DEVICE_GET_INFO, ERROR, QEMU_JSON, REPLY, RESET, VERSION, Raw, capabilities, message, version

RUST_JSON = b'{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0'


@pytest.mark.asyncio
async def test_the_reply_to_qemu_fits_its_request(bench: Bench) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        reply = await raw.request(VERSION, version())
    assert reply.flags == REPLY
    assert reply.body[:4] == struct.pack("<HH", 0, 0)
    assert reply.body.endswith(b"}\0")
    assert reply.body.count(b"\0", 4) == 1
    assert len(reply.body) - 4 <= 194


@pytest.mark.asyncio
async def test_qemu_accepts_every_capability(bench: Bench) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        answer = capabilities(await raw.request(VERSION, version()))
    assert answer["write_multiple"] is True
    for name, low, high in [
        ("max_msg_fds", 1, 16),
        ("max_data_xfer_size", 4096, 64 << 20),
        ("max_dma_maps", 1, 65535),
    ]:
        value = answer[name]
        assert isinstance(value, int)
        assert low <= value <= high, name
    pgsizes = answer.get("pgsizes", 4096)
    assert isinstance(pgsizes, int)
    assert pgsizes
    assert pgsizes % 4096 == 0
    proposed = json.loads(QEMU_JSON[:-1])["capabilities"]
    assert set(answer) <= set(proposed), "the capabilities must be a subset of those proposed"


@pytest.mark.asyncio
async def test_a_client_of_version_0_1_gets_0_0_and_a_capabilities_object(bench: Bench) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        reply = await raw.request(VERSION, version(RUST_JSON, minor=1))
        assert reply.flags == REPLY
        assert isinstance(capabilities(reply), dict)
        assert len(reply.body) - 4 <= 194
        await raw.alive()


@pytest.mark.asyncio
async def test_a_client_that_does_not_know_write_multi_is_not_offered_it(bench: Bench) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        answer = capabilities(await raw.request(VERSION, version(RUST_JSON)))
    assert answer.get("write_multiple", False) is False


@pytest.mark.parametrize("text", [
    b"", b"\0", b"{}\0", b'{"capabilities":{}}\0', b'{"capabilities":{"unknown":[1,{"x":null}]},"more":1}\0',
    b'{"capabilities":{}}',  # the NUL is missing: what is there is whole all the same
])  # fmt: skip
@pytest.mark.asyncio
async def test_the_json_is_optional_and_unknown_keys_are_ignored(bench: Bench, text: bytes) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        assert isinstance(capabilities(await raw.request(VERSION, version(text))), dict)
        await raw.alive()


@pytest.mark.parametrize("body", [
    version(major=1),
    version(major=0xFFFF),
    b"",
    b"\0\0\0",
    version(b'{"capabilities"\0'),
    version(b"[]\0"),
    version(b'{"capabilities":7}\0'),
    version(b'{"capabilities":{"max_data_xfer_size":"much"}}\0'),
    version(b'{"capabilities":{"max_data_xfer_size":-1}}\0'),
    version(b'{"capabilities":{"max_data_xfer_size":1e400}}\0'),
    version(b'{"capabilities":{"max_data_xfer_size":0}}\0'),
    version(b"\xff\xfe\0"),
    version(b"[" * 100_000 + b"\0"),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_proposal_that_makes_no_sense_is_refused(bench: Bench, body: bytes) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        await raw.send(message(VERSION, body, id=9))
        try:
            reply = await raw.receive()
        except (EOFError, ConnectionResetError):
            pass
        else:
            assert (reply.id, reply.flags, reply.body) == (9, REPLY | ERROR, b"")
            assert reply.errno > 0
    await bench.check_alive()


@pytest.mark.parametrize("command", [DEVICE_GET_INFO, RESET])
@pytest.mark.asyncio
async def test_nothing_is_served_before_version(bench: Bench, command: int) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        await raw.send(message(command, struct.pack("<IIII", 16, 0, 0, 0), id=9))
        try:
            reply = await raw.receive()
        except (EOFError, ConnectionResetError):
            pass
        else:
            assert (reply.id, reply.flags, reply.body) == (9, REPLY | ERROR, b"")
    assert bench.device.resets == 0
    await bench.check_alive()


@pytest.mark.asyncio
async def test_a_second_version_is_refused(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(VERSION, version(), id=9))
        try:
            reply = await raw.receive()
        except (EOFError, ConnectionResetError):
            pass
        else:
            assert (reply.id, reply.flags, reply.body) == (9, REPLY | ERROR, b"")
    await bench.check_alive()


@pytest.mark.asyncio
async def test_a_second_client_is_refused_at_once_and_the_first_lives(bench: Bench) -> None:
    """QEMU 11.1.3 may abort when the connection is merely closed: it is told why, and left to close it."""
    async with Raw.connect(bench.path) as first:
        async with Raw.connect(bench.path, negotiate=False) as second:
            reply = await second.request(VERSION, version())
            assert (reply.flags, reply.errno, reply.body) == (REPLY | ERROR, errno.EBUSY, b"")
            await second.send(message(RESET))
            await first.alive()
        assert bench.device.resets == 0
        await first.alive()
    await bench.check_alive()


@pytest.mark.asyncio
async def test_a_second_client_that_says_nothing_is_disconnected(bench: Bench) -> None:
    async with Raw.connect(bench.path) as first, Raw.connect(bench.path, negotiate=False) as second:
        await second.send(message(VERSION, version())[:15])
        await first.alive()
        await second.ended()


@pytest.mark.asyncio
async def test_a_client_that_says_nothing_makes_room_for_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Raw.connect(bench.path, negotiate=False) as silent:
        await silent.send(message(VERSION, version())[:15])
        async with Raw.connect(bench.path, negotiate=False) as soon:
            assert await soon.refused(VERSION, version()) == errno.EBUSY
        monkeypatch.setattr(server_module, "SILENCE", 0.0)
        async with Raw.connect(bench.path) as served, Raw.connect(bench.path, negotiate=False) as second:
            await silent.ended()
            assert await second.refused(VERSION, version()) == errno.EBUSY, "the one that is served said it"
            await served.alive()
    assert f"disconnecting a client on {bench.path} that said no VERSION for 0 s: another came" in caplog.text


@pytest.mark.asyncio
async def test_of_many_second_clients_some_are_told_and_the_others_disconnected(bench: Bench) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(Raw.connect(bench.path))
        others = [await stack.enter_async_context(Raw.connect(bench.path, negotiate=False)) for _ in range(40)]
        await first.alive()
        for other in others[16:]:
            await other.ended()
        for other in others[:16]:
            assert await other.refused(VERSION, version()) == errno.EBUSY
        await first.alive()


@pytest.mark.asyncio
async def test_twenty_clients_in_turn(bench: Bench) -> None:
    for _ in range(20):
        await bench.check_alive()


@pytest.mark.asyncio
async def test_a_hundred_refused_clients_leave_nothing_behind(bench: Bench) -> None:
    async with Raw.connect(bench.path) as first:
        before = bench.descriptors()
        for _ in range(100):
            async with Raw.connect(bench.path, negotiate=False) as second:
                assert await second.refused(VERSION, version()) == errno.EBUSY
        await first.alive()
        assert bench.leaked(before) == []


@pytest.mark.asyncio
async def test_each_client_is_answered_what_it_proposed_whoever_came_before(bench: Bench) -> None:
    answers = []
    for text in (QEMU_JSON, QEMU_JSON, RUST_JSON, b"{]", QEMU_JSON, RUST_JSON):
        async with Raw.connect(bench.path, negotiate=False) as raw:
            reply = await raw.request(VERSION, version(text))
            answers.append(None if reply.errno else capabilities(reply).get("write_multiple"))
    assert answers == [True, True, None, None, True, None]
    async with Raw.connect(bench.path) as raw:
        await raw.alive()
