"""The instrument: its registers, its log and its mailbox."""

from __future__ import annotations

import asyncio
import errno
import struct

import pytest

from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.devices.mailbox import MailboxError
from pyvfio_user.devices.probe import Probe
from pyvfio_user.devices.probe_map import MSIX_PBA, MSIX_TABLE, RANGES, MailboxCommand, MailboxStatus, Reg

from .serving import RAM, attached

BUFFER = RAM + 0x1000
CAPACITY = 0x1000


@pytest.mark.asyncio
async def test_registers() -> None:
    async with attached(Probe()) as client:
        bar = client.bars[0]
        assert (await client.config.image())[:12].hex() == "341250be0600110000008005"
        assert await bar.read(Reg.ID, 4) == 0x50524F42
        assert await bar.read(Reg.VERSION, 4) == 1
        await bar.write(Reg.SCRATCH, 0xDEADBEEF, 4)
        assert await bar.read(Reg.SCRATCH, 4) == 0xDEADBEEF
        assert [region.size for region in client.regions] == [0x1_0000, 0, 0x10_0000, 0, 0, 0, 0, 0x1000]
        assert [(area.offset, len(area.memory)) for area in client.regions[2].areas] == [(0, 0x2_0000)]


def test_ranges_tile_their_bars() -> None:
    for bar, end in ((0, 0xC000), (2, 0x7_0000)):
        at = 0
        for each in RANGES.values():
            if each.bar == bar:
                assert each.offset == at
                assert each.offset <= each.arena_offset
                assert each.arena_offset + each.arena_size == each.offset + each.size
                at += each.size
        assert at == end


@pytest.mark.asyncio
@pytest.mark.parametrize("name", RANGES)
async def test_an_arena_is_memory_that_records_unless_it_is_mapped(name: str) -> None:
    probe = Probe()
    where = RANGES[name]
    async with attached(probe) as client:
        bar = client.bars[where.bar]
        probe.endpoint.recorder.drain()
        first, last = where.arena_offset, where.arena_offset + where.arena_size - 8
        await bar.write(first, 0x1122_3344_5566_7788, 8)
        await bar.write(last + 1, 0xAABB, 2)
        assert await bar.read(last, 8) == 0xAABB00
        assert await bar.read(first, 4) == 0x5566_7788
        log = [each[1:] for each in probe.endpoint.recorder.drain()]
    wanted = [
        (True, where.bar, first, 8, bytes.fromhex("8877665544332211")),
        (True, where.bar, last + 1, 2, bytes.fromhex("bbaa")),
        (False, where.bar, last, 8, bytes.fromhex("00bbaa0000000000")),
        (False, where.bar, first, 4, bytes.fromhex("88776655")),
    ]
    assert log == (wanted if where.trapped else [])


@pytest.mark.asyncio
async def test_every_read_of_the_fifo_pops() -> None:
    probe = Probe()
    async with attached(probe) as client:
        bar = client.bars[0]
        assert [await bar.read(Reg.FIFO, 4) for _ in range(3)] == [0, 1, 2]
        assert await bar.read(Reg.FIFO, 1) == 3
        assert await bar.read(Reg.FIFO_LEVEL, 4) == 0xFFFF_FFFB
        assert [await bar.read(Reg.READS, 4) for _ in range(2)] == [4, 0]
        assert [(each.write, each.offset, each.data) for each in probe.endpoint.recorder.drain()] == [
            (False, Reg.FIFO, bytes([0, 0, 0, 0])),
            (False, Reg.FIFO, bytes([1, 0, 0, 0])),
            (False, Reg.FIFO, bytes([2, 0, 0, 0])),
            (False, Reg.FIFO, bytes([3])),
        ]


@pytest.mark.asyncio
async def test_doorbells_and_marks_are_recorded() -> None:
    probe = Probe()
    async with attached(probe) as client:
        bar = client.bars[0]
        await bar.write(Reg.MARK, 7, 4)
        await bar.write(Reg.DOORBELL + 0x200, 0x42, 4)
        assert await bar.read(Reg.STATUS, 4) == 1 << 2
        await bar.write(Reg.STATUS, 1 << 2, 4)
        assert await bar.read(Reg.STATUS, 4) == 0
        assert probe.bar0.doorbell == (0, 0, 0x42, 0)
        assert [(each.offset, each.data) for each in probe.endpoint.recorder.drain()] == [
            (Reg.MARK, b"\x07\0\0\0"),
            (Reg.DOORBELL + 0x200, b"\x42\0\0\0"),
        ]


@pytest.mark.asyncio
async def test_pages_become_write_combining_safe() -> None:
    probe = Probe()
    async with attached(probe) as client:
        await client.bars[0].write(Reg.WC_SAFE, 0xFFFF_0005, 4)
        await client.bars[0].write(Reg.WC_SAFE, 0x4, 4)
        assert probe.wc_safe_pages == {2}
        assert list(probe.wc_safe_changes) == [0x5, 0x4]
        await client.reset()
        assert (probe.wc_safe_pages, list(probe.wc_safe_changes)) == (frozenset(), [])


@pytest.mark.asyncio
async def test_interrupts() -> None:
    async with attached(Probe()) as client:
        bar = client.bars[0]
        await client.config.enable_msix()
        await bar.write(Reg.IRQ, 5, 4)
        assert await client.msix[5].wait() == 1
        await bar.write(Reg.IRQ, 8, 4)
        assert await bar.read(Reg.STATUS, 4) == 1 << 8
        assert [vector.take() for vector in client.msix] == [0] * 8
        await client.config.disable_msix()
        await client.config.enable_msi()
        await bar.write(Reg.IRQ, 7, 4)
        assert await client.msi[7].wait() == 1
        await client.config.disable_msi()
        await client.intx.enable()
        await bar.write(Reg.IRQ, 0, 4)
        assert await client.intx[0].wait() == 1
        assert await client.config.status() & 8
        await client.intx.unmask()
        assert await client.config.status() & 8 == 0


@pytest.mark.asyncio
async def test_the_table_lies_where_it_is_said() -> None:
    async with attached(Probe()) as client:
        at = (await client.config.capabilities())[0x11]
        assert (await client.config.image())[at + 2 : at + 12] == struct.pack("<HII", 7, MSIX_TABLE | 2, MSIX_PBA | 2)


async def command(client: Client, order: MailboxCommand | int, length: int | None = None) -> tuple[int, int]:
    bar = client.bars[0]
    await bar.write(Reg.MAILBOX_ADDRESS, BUFFER, 8)
    await bar.write(Reg.MAILBOX_CAPACITY, CAPACITY, 4)
    if length is not None:
        await bar.write(Reg.MAILBOX_LENGTH, length, 4)
    await bar.write(Reg.MAILBOX_COMMAND, order, 4)
    return await bar.read(Reg.MAILBOX_STATUS, 4), await bar.read(Reg.MAILBOX_ERROR, 4)


@pytest.mark.asyncio
async def test_a_message_and_its_answer() -> None:
    probe = Probe()
    async with attached(probe) as client:
        ram = client.memories[0].memory
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.EMPTY, 0)
        answer = probe.mailbox.post(b"order")
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.DONE, 0)
        assert await client.bars[0].read(Reg.MAILBOX_LENGTH, 4) == 5
        assert bytes(ram[0x1000:0x1005]) == b"order"
        await client.bars[2].write(0x2_0000, 0xAB, 1)
        client.mapped(2)[0x1FFFF:] = b"!"
        ram[0x1000:0x1007] = b"results"
        assert await command(client, MailboxCommand.SUBMIT, 7) == (MailboxStatus.DONE, 0)
        submission = await asyncio.wait_for(answer, 5)
        assert submission.data == b"results"
        assert [each[1:] for each in submission.transactions] == [(True, 2, 0x2_0000, 1, b"\xab")]
        assert all(isinstance(each, Transaction) for each in submission.transactions)
        assert submission.window == bytes(0x1FFFF) + b"!"
        assert bytes(probe.bar2.memory) == bytes(0x2_0000)


@pytest.mark.asyncio
async def test_answers_come_in_the_order_of_the_messages() -> None:
    probe = Probe()
    async with attached(probe) as client:
        answers = [probe.mailbox.post(bytes([n])) for n in range(3)]
        answers[1].cancel()
        for _ in range(2):
            assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.DONE, 0)
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.EMPTY, 0)
        for n in (10, 11):
            client.memories[0].memory[0x1000] = n
            assert await command(client, MailboxCommand.SUBMIT, 1) == (MailboxStatus.DONE, 0)
        assert [(await answers[n]).data for n in (0, 2)] == [b"\x0a", b"\x0b"]


@pytest.mark.asyncio
async def test_refusals() -> None:
    probe = Probe()
    async with attached(probe) as client:
        assert await command(client, MailboxCommand.SUBMIT, 0) == (MailboxStatus.REFUSED, errno.ENOMSG)
        assert await command(client, 3) == (MailboxStatus.REFUSED, errno.EINVAL)
        too_long = probe.mailbox.post(bytes(CAPACITY + 1))
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.REFUSED, errno.EMSGSIZE)
        with pytest.raises(MailboxError, match=r"^message must fit into the guest's 4096 bytes, not 4097$"):
            await too_long
        answer = probe.mailbox.post(b"again")
        await client.config.set_bus_master(False)
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.REFUSED, errno.EFAULT)
        await client.config.set_bus_master(True)
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.DONE, 0)
        assert await command(client, MailboxCommand.SUBMIT, CAPACITY + 1) == (MailboxStatus.REFUSED, errno.EMSGSIZE)
        await client.config.set_bus_master(False)
        assert await command(client, MailboxCommand.SUBMIT, 1) == (MailboxStatus.REFUSED, errno.EFAULT)
        await client.config.set_bus_master(True)
        assert await command(client, MailboxCommand.SUBMIT, 1) == (MailboxStatus.DONE, 0)
        assert (await answer).data == b"a"


@pytest.mark.asyncio
async def test_a_reset_fails_what_was_fetched_and_keeps_what_waits() -> None:
    probe = Probe()
    async with attached(probe) as client:
        fetched, waiting = probe.mailbox.post(b"one"), probe.mailbox.post(b"two")
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.DONE, 0)
        await client.reset()
        with pytest.raises(
            MailboxError, match=r"^the guest must answer what it fetched, not reset or lose the device$"
        ):
            await fetched
        await client.config.set_bus_master(True)
        assert await command(client, MailboxCommand.FETCH) == (MailboxStatus.DONE, 0)
        assert bytes(client.memories[0].memory[0x1000:0x1003]) == b"two"
        assert await command(client, MailboxCommand.SUBMIT, 3) == (MailboxStatus.DONE, 0)
        assert (await waiting).data == b"two"
