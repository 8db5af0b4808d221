"""The device made for measuring: its registers are a contract, so every one of them is held to it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pyvfio_user.bridge import server
from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.loop import run
from pyvfio_user.devices.bench import GOING, MAGIC, MAX_LENGTH, Bench
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest
from tests.qemu.attached import RAM as GUEST_RAM
from tests.qemu.attached import Attached

from .serving import RAM, attached

SCRATCH, READS, WRITES, CONSTANT, LOW, HIGH, LENGTH = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18
COMMAND, STATUS, INTERRUPT, POLL, HANDLED = 0x20, 0x24, 0x30, 0x40, 0x50
TEXT = b"what the guest has in its memory"


async def transfer(client: Client, command: int, address: int, length: int) -> int:
    """Has the device do a DMA; its status, when it is over."""
    bar = client.bars[0]
    await bar.write(LOW, address & 0xFFFF_FFFF, 4)
    await bar.write(HIGH, address >> 32, 4)
    await bar.write(LENGTH, length, 4)
    await bar.write(COMMAND, command, 4)
    async with asyncio.timeout(10):
        while (status := await bar.read(STATUS, 4)) == GOING:
            pass
    return status


@pytest.mark.asyncio
async def test_identity_and_bars() -> None:
    async with attached(Bench()) as client:
        assert await client.config.read(0, 4) == 0xBE9C_1234
        assert [bar.size for bar in client.bars] == [0x1000, 0, 16 << 20, 0, 0x1000, 0]
        assert [(area.offset, len(area.memory)) for area in client.bars[2].areas] == [(0, 16 << 20)]
        assert not client.bars[0].areas
        capability = (await client.config.capabilities())[0x11]
        assert await client.config.read(capability + 2, 2) == 7, "table size minus one"
        assert await client.config.read(capability + 4, 4) == 4, "table at 0 of BAR 4"
        assert await client.config.read(capability + 8, 4) == 0x800 | 4


@pytest.mark.asyncio
@pytest.mark.parametrize("register", [SCRATCH, HANDLED])
async def test_scratch_keeps_what_is_written(register: int) -> None:
    async with attached(Bench()) as client:
        await client.bars[0].write(register, 0x12345678, 4)
        assert await client.bars[0].read(register, 4) == 0x12345678
        await client.bars[0].write(register + 1, 0xFF, 1)
        assert await client.bars[0].read(register, 4) == 0x1234FF78
        await client.reset()
        assert await client.bars[0].read(register, 4) == 0


@pytest.mark.asyncio
async def test_the_constant_and_the_counters_count() -> None:
    async with attached(Bench()) as client:
        bar = client.bars[0]
        assert await bar.read(READS, 4) == 0
        assert await bar.read(READS, 4) == 1
        assert await bar.read(CONSTANT, 4) == MAGIC == 0x76667562
        assert await bar.read(WRITES, 4) == 0
        await bar.write(CONSTANT, 0, 4)
        await bar.post(SCRATCH, 1, 4)
        await client.write_multi([(0, SCRATCH, b"\1"), (0, HANDLED, b"\2\0\0\0"), (2, 0, b"\3")])
        assert await bar.read(WRITES, 4) == 4, "the one to BAR 2 is none of BAR 0"
        assert await bar.read(READS, 4) == 5
        assert await bar.read(CONSTANT, 4) == MAGIC
        await bar.write(READS, 77, 4)
        assert await bar.read(READS, 4) == 7, "read-only"
        with pytest.raises(OSError, match="Invalid argument"):
            await bar.read(0x1000, 4)
        assert await bar.read(READS, 4) == 8, "one that fails does not count"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("shared", "read", "write"), [(True, 3, 4), (False, 1, 2), (False, 5, 6), (True, 1, 2), (True, 5, 6)]
)
async def test_dma_gives_back_what_it_read(shared: bool, read: int, write: int) -> None:
    async with attached(Bench(), shared=shared) as client:
        ram = client.memories[0].memory
        ram[0x100 : 0x100 + len(TEXT)] = TEXT
        assert await transfer(client, read, RAM + 0x100, len(TEXT)) == 0
        assert await transfer(client, write | 2 << 8, RAM + 0x8000, len(TEXT) + 2) == 0
        assert bytes(ram[0x8000 : 0x8000 + len(TEXT) + 3]) == TEXT + b"\0\0\0"


@pytest.mark.asyncio
@pytest.mark.parametrize(("read", "write"), [(3, 4), (1, 2)])
async def test_many_times_is_many_and_leaves_the_loop_its_turn(read: int, write: int) -> None:
    async with attached(Bench(), shared=read == 3) as client:
        ram = client.memories[0].memory
        ram[:65536] = bytes(range(256)) * 256
        assert await transfer(client, read | 100 << 8, RAM, 65536) == 0
        assert await transfer(client, write | 100 << 8, RAM + 65536, 65536) == 0
        assert ram[65536 : 2 * 65536] == ram[:65536]


@pytest.mark.asyncio
@pytest.mark.parametrize("command", [3, 4, 1, 2, 3 | 1_000_000 << 8])
async def test_dma_outside_memory_has_a_status(command: int) -> None:
    async with attached(Bench()) as client:
        assert await transfer(client, command, 0x1000, 64) == errno.EFAULT
        assert await transfer(client, command, RAM, MAX_LENGTH + 1) == errno.EINVAL
        assert await transfer(client, command & 0xFF, RAM, 0) == 0


@pytest.mark.asyncio
async def test_mapped_dma_of_memory_without_a_file_descriptor() -> None:
    async with attached(Bench(), shared=False) as client:
        assert await transfer(client, 3, RAM, 64) == errno.ENXIO
        assert await transfer(client, 9, RAM, 64) == errno.EINVAL
        assert await transfer(client, 0, RAM, 64) == 0


@pytest.mark.asyncio
async def test_a_write_fires_its_vector() -> None:
    async with attached(Bench()) as client:
        await client.bars[0].write(INTERRUPT, 0, 4)
        await client.config.enable_msix()
        for vector in (7, 0):
            await client.bars[0].write(INTERRUPT, vector, 4)
            assert client.msix[vector].take() == 1
        await client.bars[0].write(INTERRUPT, 8, 4)
        assert [client.msix[vector].take() for vector in range(8)] == [0] * 8


@pytest.mark.asyncio
async def test_the_window_is_the_same_by_message() -> None:
    async with attached(Bench()) as client:
        client.mapped(2)[0x123456:0x12345A] = b"\1\2\3\4"
        assert await client.bars[2].read(0x123456, 4) == 0x04030201
        await client.bars[2].write_bytes((16 << 20) - 4, b"last")
        assert bytes(client.mapped(2)[-4:]) == b"last"


@pytest.mark.parametrize("run_loop", [asyncio.run, run])
def test_polling_copies_what_appears_until_it_is_stopped(
    run_loop: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scenario() -> None:
        async with attached(Bench()) as client, asyncio.timeout(10):
            window = client.mapped(2)
            for value in (b"ring", b"more"):
                await client.bars[0].write(POLL, 1, 4)
                window[:4] = value
                while window[0x80:0x84] != value:
                    await client.bars[0].read(SCRATCH, 4)
                await client.bars[0].write(POLL, 0, 4)
                window[:4] = b"late"
                await client.bars[0].read(SCRATCH, 4)
                assert bytes(window[0x80:0x84]) == value
            await client.bars[0].write(POLL, 1, 4)
            await client.reset()
            window[:4] = b"gone"
            await client.bars[0].read(SCRATCH, 4)
            assert bytes(window[0x80:0x84]) == b"more"

    run_loop(scenario())


@pytest.mark.asyncio
async def test_in_real_qemu(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    guest = await Attached.place(await qemu_qtest(await serve_device(Bench())))
    await guest.enable_msix({3: (GUEST_RAM, 0x5151)}, bar=4)
    assert await guest.read(0, CONSTANT) == MAGIC
    await guest.write(0, SCRATCH, 0xCAFE)
    await guest.write(0, HANDLED, 0xBABE)
    assert [await guest.read(0, SCRATCH), await guest.read(0, HANDLED)] == [0xCAFE, 0xBABE]
    assert [await guest.read(0, READS), await guest.read(0, WRITES)] == [3, 2]
    await guest.write(0, INTERRUPT, 3)
    await guest.until(GUEST_RAM, 0x5151)

    await guest.machine.write_bytes(GUEST_RAM + 0x1000, TEXT)
    await guest.write(0, LOW, GUEST_RAM + 0x1000)
    await guest.write(0, LENGTH, len(TEXT))
    await guest.write(0, COMMAND, 3)
    await guest.write(0, LOW, GUEST_RAM + 0x2000)
    await guest.write(0, COMMAND, 4)
    assert await guest.read(0, STATUS) == 0
    assert await guest.machine.read_bytes(GUEST_RAM + 0x2000, len(TEXT)) == TEXT

    await guest.write(0, POLL, 1)
    await guest.write(2, 0, 0x600D)
    async with asyncio.timeout(5):
        while await guest.read(2, 0x80) != 0x600D:
            pass
    await guest.write(0, POLL, 0)


@pytest.mark.asyncio
async def test_interrupts_are_raised_in_c_only_where_a_signal_is_all_there_is_to_it() -> None:
    device = Bench()
    fired: list[int] = []
    fire = device.interrupts.fire

    def counted(vector: int = 0) -> bool:
        fired.append(vector)
        return fire(vector)

    device.interrupts.fire = counted  # type: ignore[method-assign]
    async with attached(device) as client:
        bar = client.bars[0]
        await bar.write(INTERRUPT, 1, 4)
        assert fired == [], "not enabled: msix[1] does not fire"
        await client.config.enable_msix()
        await bar.write(INTERRUPT, 1, 4)
        assert (client.msix[1].take(), fired) == (1, []), "C"
        await client.config.set_bus_master(False)
        await bar.write(INTERRUPT, 1, 4)
        assert (client.msix[1].take(), fired) == (0, [1]), "Python, which knows why not"
        await client.config.set_bus_master(True)
        await bar.post(INTERRUPT, 1, 4)
        await bar.write(INTERRUPT, 2, 4)
        assert (client.msix[1].take(), client.msix[2].take(), fired) == (1, 1, [1])
    async with asyncio.timeout(5):
        while list(device.interrupts.msix_eventfds) != [-1] * 8:
            await asyncio.sleep(0)


@pytest.mark.parametrize("before", [1, 2**64 - 2])
@pytest.mark.asyncio
async def test_another_users_interrupts_are_not_written_by_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Its eventfd, which it fills and makes block, would have the write of C sleep."""
    accept = server.accept
    monkeypatch.setattr(server, "accept", lambda listener: (accept(listener)[0], os.geteuid() + 1))
    device = Bench()
    async with server.serve(device, tmp_path / "s", any_user=True), Client.connect(tmp_path / "s") as client:
        await client.config.set_bus_master(True)
        await client.config.enable_msix()
        os.eventfd_write(client.msix[3].fd, before)
        os.set_blocking(client.msix[3].fd, True)
        assert [*device.interrupts.msix_eventfds] == [-1] * 8
        await client.bars[0].write(INTERRUPT, 3, 4)
        assert await client.bars[0].read(INTERRUPT, 4) == 3
        assert os.eventfd_read(client.msix[3].fd) == before + 1
