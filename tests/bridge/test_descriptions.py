"""What a device says of itself, as it is prepared, and as the hot path answers with it: in order, and alone."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from typing import NoReturn

import pytest

from pyvfio_user.bridge.descriptions import Description, describe
from pyvfio_user.bridge.interrupts import Interrupts
from pyvfio_user.bridge.regions import Region
from pyvfio_user.bridge.session import Session
from pyvfio_user.bridge.wire import Command

from .bench import BAR2_AREAS, BAR2_SIZE, DOORBELL, Bench
from .raw import (
    DEVICE_GET_INFO,
    ERROR,
    GET_IRQ_INFO,
    GET_REGION_INFO,
    NO_REPLY,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    Raw,
    access,
    message,
)

NEEDED = 32 + 16 + 16 * len(BAR2_AREAS)
INFO = struct.pack("<IIII", 16, 0, 0, 0)
IRQ_INFO = struct.pack("<IIII", 16, 0, 2, 0)


def region_info(index: int, argsz: int) -> bytes:
    return struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0)


def test_everything_that_can_be_asked_is_described_once() -> None:
    found = [(each.command, each.about) for each in describe({}, Interrupts())]
    regions = [(Command.DEVICE_GET_REGION_INFO, n) for n in range(9)]
    irqs = [(Command.DEVICE_GET_IRQ_INFO, n) for n in range(5)]
    assert found == [(Command.DEVICE_GET_INFO, 0), *regions, *irqs]


def test_a_rom_is_read_only_and_a_mapped_region_has_its_areas_in_full_only() -> None:
    bar, rom = Region(0x4000, mapped=[(0x1000, 0x2000)]), Region(0x800)
    found = {each.about: each for each in describe({0: bar, 6: rom}, Interrupts()) if each.command == 5}
    areas = struct.pack("<HHIIIQQ", 1, 1, 0, 1, 0, 0x1000, 0x2000)
    brief = struct.pack("<IIIIQQ", 64, 7, 0, 0, 0x4000, 0)
    full = struct.pack("<IIIIQQ", 64, 15, 0, 32, 0x4000, 0) + areas
    assert found[0] == Description(Command.DEVICE_GET_REGION_INFO, 0, brief, full, bar.fd)
    info = struct.pack("<IIIIQQ", 32, 1, 6, 0, 0x800, 0)
    assert found[6] == Description(Command.DEVICE_GET_REGION_INFO, 6, info, info, None)


@pytest.mark.asyncio
async def test_python_has_no_part_in_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise AssertionError("Python must not be told")

    async with Raw.connect(bench.path) as raw:
        monkeypatch.setattr(Session, "on_message", fail)
        for command, body in [
            (DEVICE_GET_INFO, INFO),
            (GET_REGION_INFO, region_info(0, 32)),
            (GET_REGION_INFO, region_info(2, 32)),
            (GET_IRQ_INFO, IRQ_INFO),
        ]:
            assert (await raw.request(command, body)).flags == REPLY
            assert await raw.refused(command, body[:-1]) == errno.EINVAL


@pytest.mark.asyncio
async def test_before_the_version_nothing_is_described(bench: Bench) -> None:
    async with Raw.connect(bench.path, negotiate=False) as raw:
        assert await raw.refused(DEVICE_GET_INFO, INFO) == errno.EINVAL
        assert await raw.refused(GET_REGION_INFO, region_info(2, NEEDED)) == errno.EINVAL
        assert await raw.refused(GET_IRQ_INFO, IRQ_INFO) == errno.EINVAL


@pytest.mark.asyncio
async def test_what_is_pipelined_is_answered_in_order_each_with_its_own_descriptor(bench: Bench) -> None:
    asked = [
        (GET_REGION_INFO, region_info(2, NEEDED)),
        (REGION_READ, access(7, 0, 4)),
        (GET_REGION_INFO, region_info(2, NEEDED)),
        (GET_REGION_INFO, region_info(2, NEEDED - 1)),
        (DEVICE_GET_INFO, INFO),
        (GET_IRQ_INFO, IRQ_INFO[:-1]),
    ] * 100
    async with Raw.connect(bench.path) as raw:
        before = bench.descriptors()
        await raw.send(b"".join(message(command, body, id=n) for n, (command, body) in enumerate(asked)))
        inodes = set()
        for n, (command, body) in enumerate(asked):
            reply = await raw.receive()
            assert (reply.id, reply.command) == (n, command)
            assert reply.flags == (REPLY | ERROR if n % 6 == 5 else REPLY)
            assert len(reply.fds) == (command == GET_REGION_INFO and body == region_info(2, NEEDED))
            for fd in reply.fds:
                inodes.add((os.fstat(fd).st_ino, os.fstat(fd).st_size))
                os.close(fd)
        assert inodes == {(os.fstat(bench.device.endpoint.regions[2].fd or -1).st_ino, BAR2_SIZE)}
        assert bench.leaked(before) == []


@pytest.mark.asyncio
async def test_a_client_that_wants_no_reply_gets_none_and_no_descriptor(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        for command, body in [
            (GET_REGION_INFO, region_info(2, NEEDED)),
            (GET_REGION_INFO, region_info(9, 32)),
            (DEVICE_GET_INFO, INFO),
            (GET_IRQ_INFO, IRQ_INFO),
        ]:
            await raw.send(message(command, body, flags=NO_REPLY))
        reply = await raw.request(GET_REGION_INFO, region_info(0, 32))
        assert (reply.flags, reply.fds) == (REPLY, [])


@pytest.mark.asyncio
async def test_descriptors_that_come_with_a_question_are_closed(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        before = bench.descriptors()
        fd = os.eventfd(0)
        for command, body in [(DEVICE_GET_INFO, INFO), (GET_REGION_INFO, region_info(0, 32)), (GET_IRQ_INFO, IRQ_INFO)]:
            assert (await raw.request(command, body, [fd] * 16)).flags == REPLY
        os.close(fd)
        assert bench.leaked(before) == []


@pytest.mark.asyncio
async def test_doorbells_rung_before_are_heard_all_the_same(bench: Bench) -> None:
    async with Raw.connect(bench.path) as raw:
        ring = message(REGION_WRITE, access(0, DOORBELL, 4, b"\7\0\0\0"), flags=NO_REPLY)
        await raw.send(ring + message(DEVICE_GET_INFO, INFO, id=5) + ring)
        assert (await raw.receive()).id == 5
        await bench.until(lambda: bench.device.rings == [7, 7])


@pytest.mark.asyncio
async def test_a_client_that_leaves_before_its_descriptor_is_sent_leaves_nothing(bench: Bench) -> None:
    before = bench.descriptors()
    for _ in range(20):
        async with Raw.connect(bench.path) as raw:
            await raw.send(message(GET_REGION_INFO, region_info(2, NEEDED)) * 500)
        await asyncio.wait_for(bench.server.wait_disconnected(), 5)
    assert bench.leaked(before) == []
    async with Raw.connect(bench.path) as raw:
        reply = await raw.request(GET_REGION_INFO, region_info(2, NEEDED))
        assert (reply.flags, len(reply.fds)) == (REPLY, 1)
        os.close(reply.fds[0])
