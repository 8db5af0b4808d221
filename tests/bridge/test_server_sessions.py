"""Client and server together: sessions that begin, work and end, in one event loop over a real socket."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat
from pathlib import Path

import pytest

from pyvfio_user.bridge.client import Client, VfioUserError
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.server import serve

from .bench import (
    BAR0_SIZE,
    BAR2_AREAS,
    BAR2_SIZE,
    COUNTER,
    DOORBELL,
    FAULTY,
    MEMORY,
    MSI_VECTORS,
    MSIX_SIZE,
    MSIX_VECTORS,
    SCRATCH,
    Bench,
    BenchDevice,
    serve_bench,
)

RAM = 0x4000_0000


@pytest.mark.asyncio
async def test_what_the_client_finds(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        assert client.flags == 3
        assert [bar.size for bar in client.bars] == [BAR0_SIZE, 0, BAR2_SIZE, 0, MSIX_SIZE, 0]
        assert [(area.offset, len(area.memory)) for area in client.bars[2].areas] == BAR2_AREAS
        assert (len(client.intx), len(client.msi), len(client.msix)) == (1, MSI_VECTORS, MSIX_VECTORS)
        assert sorted(await client.config.capabilities()) == [0x01, 0x05, 0x10, 0x11]
        assert await client.config.extended_capabilities() == {}


@pytest.mark.asyncio
async def test_a_mapped_area_is_the_devices_memory(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        client.mapped(2)[0:64] = bytes(range(64))
        assert bytes(bench.device.bar2.memory[0:64]) == bytes(range(64))
        assert await client.bars[2].read_bytes(0, 64) == bytes(range(64))
        bench.device.second.memory[8:12] = b"back"
        assert bytes(client.mapped(2, 1)[8:12]) == b"back"


@pytest.mark.asyncio
async def test_accesses_of_every_kind(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        bar = client.bars[0]
        for size in (1, 2, 4, 8):
            await bar.write(MEMORY + 8, (1 << 8 * size) - 2, size)
            assert await bar.read(MEMORY + 8, size) == (1 << 8 * size) - 2
        await bar.post(SCRATCH, 0x1234_5678, 4)
        assert await bar.read(SCRATCH, 4) == 0x1234_5678
        await client.write_multi([(0, MEMORY + n, bytes([n])) for n in range(250)])
        assert await bar.read_bytes(MEMORY, 250) == bytes(range(250))
        values = await asyncio.gather(*(bar.read(COUNTER, 4) for _ in range(1000)))
        assert values == list(range(1, 1001))
        with pytest.raises(VfioUserError) as caught:
            await bar.read(FAULTY, 4)
        assert caught.value.errno == errno.EIO


@pytest.mark.asyncio
async def test_ten_thousand_posted_doorbells(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        for value in range(10_000):
            await client.bars[0].post(DOORBELL, value, 4)
        await client.bars[0].read(SCRATCH, 4)
    assert bench.device.rings == list(range(10_000))


@pytest.mark.asyncio
async def test_interrupts_of_each_kind_in_turn(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        await client.config.set_bus_master(True)
        await client.intx.enable()
        bench.interrupts.intx_assert()
        assert await client.intx[0].wait() == 1
        assert await client.config.status() & 8, "Interrupt Status"
        await client.intx.unmask()
        assert await client.intx[0].wait() == 1, "still asserted"
        bench.interrupts.intx_deassert()
        assert not await client.config.status() & 8
        await client.intx.unmask()
        assert client.intx[0].take() == 0
        await client.config.enable_msi()
        for vector in range(MSI_VECTORS):
            bench.interrupts.fire(vector)
            assert await client.msi[vector].wait() == 1
        await client.config.disable_msi()
        await client.config.enable_msix()
        for vector in range(MSIX_VECTORS):
            bench.interrupts.fire(vector)
            assert await client.msix[vector].wait() == 1
        assert bench.mode() == "msix"


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.asyncio
async def test_dma_both_ways(bench: Bench, shared: bool) -> None:
    async with Client.connect(bench.path) as client:
        await client.config.set_bus_master(True)
        ram = await client.add_memory(RAM, 1 << 20, shared=shared)
        data = os.urandom(300_000)
        await bench.memory.write(RAM + 7, data)
        assert bytes(ram.memory[7:300_007]) == data
        ram.memory[0x80000:0x80004] = b"text"
        assert await bench.memory.read(RAM + 0x80000, 4) == b"text"
        await client.remove_memory(ram)
        with pytest.raises(OSError, match=r"must lie within memory the guest mapped"):
            await bench.memory.read(RAM, 4)


@pytest.mark.asyncio
async def test_reset_keeps_the_session(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        await client.config.set_bus_master(True)
        ram = await client.add_memory(RAM, 4096)
        await client.bars[0].write(SCRATCH, 5, 4)
        await client.reset()
        assert await client.bars[0].read(SCRATCH, 4) == 0
        assert bench.device.resets == 1
        await client.config.set_bus_master(True)
        await bench.memory.write(RAM, b"kept")
        assert bytes(ram.memory[:4]) == b"kept"


@pytest.mark.asyncio
async def test_a_second_client_is_an_error_at_once(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        async with asyncio.timeout(1):
            with pytest.raises(
                ConnectionRefusedError, match=r"^the server must be free, not busy with another client$"
            ):
                async with Client.connect(bench.path):
                    pass
        assert await client.bars[0].read(SCRATCH, 4) == 0


@pytest.mark.asyncio
async def test_a_new_client_finds_a_reset_device_and_its_old_memory(bench: Bench) -> None:
    async with Client.connect(bench.path) as client:
        await client.config.set_bus_master(True)
        await client.intx.enable()
        await client.bars[0].write(SCRATCH, 5, 4)
        client.mapped(2)[0] = 0x55
    async with Client.connect(bench.path) as client:
        assert await client.bars[0].read(SCRATCH, 4) == 0
        assert await client.config.read(4, 2) == 0
        assert client.mapped(2)[0] == 0x55
        assert bench.mode() == "none"
        assert bench.memory.maps == 0


@pytest.mark.asyncio
async def test_a_server_that_ends_is_an_error_at_the_client(tmp_path: Path) -> None:
    async with serve_bench(tmp_path / "s") as bench:
        client = await (context := Client.connect(bench.path)).__aenter__()
        await client.intx.enable()
        waiter = asyncio.create_task(client.intx[0].wait(60))
        await asyncio.sleep(0)
    with pytest.raises(ConnectionError, match=r"^the server closed the connection"):
        await client.bars[0].read(SCRATCH, 4)
    with pytest.raises(ConnectionError):
        await waiter
    await context.__aexit__(None, None, None)
    assert not (tmp_path / "s").exists()


@pytest.mark.asyncio
async def test_the_socket_is_the_owners_only(bench: Bench) -> None:
    mode = bench.path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.asyncio
async def test_a_stale_socket_is_replaced_and_one_in_use_is_not(tmp_path: Path, bench: Bench) -> None:
    with pytest.raises(OSError, match="must be free, not served by another process") as caught:
        async with serve(BenchDevice(), bench.path):
            pass
    assert caught.value.errno == errno.EADDRINUSE
    await bench.check_alive()
    other = tmp_path / "file"
    other.write_text("precious")
    with pytest.raises(FileExistsError):
        async with serve(BenchDevice(), other):
            pass
    assert other.read_text() == "precious"


@pytest.mark.asyncio
async def test_two_devices_in_one_loop_do_not_mix(tmp_path: Path) -> None:
    async def work(bench: Bench, base: int) -> None:
        async with Client.connect(bench.path) as client:
            for n in range(200):
                await client.bars[0].write(SCRATCH, base + n, 4)
                await client.bars[0].post(DOORBELL, base + n, 4)
                assert await client.bars[0].read(SCRATCH, 4) == base + n
            assert bench.device.rings == [base + n for n in range(200)]

    async with serve_bench(tmp_path / "a") as one, serve_bench(tmp_path / "b") as two:
        await asyncio.gather(work(one, 0), work(two, 1000))


@pytest.mark.asyncio
async def test_a_device_is_served_on_one_socket_at_a_time(tmp_path: Path) -> None:
    device = BenchDevice()
    for _ in range(2):
        async with serve(device, tmp_path / "one"):
            expected = f"^BenchDevice must be served on one socket at a time, not on {tmp_path}/two too$"
            with pytest.raises(DefinitionError, match=expected):
                async with serve(device, tmp_path / "two"):
                    pass
            assert not (tmp_path / "two").exists()
            async with Client.connect(tmp_path / "one") as client:
                assert await client.bars[0].read(SCRATCH, 4) == 0


@pytest.mark.asyncio
async def test_fifty_sessions_leave_nothing_open(tmp_path: Path) -> None:
    async def session(bench: Bench) -> None:
        async with Client.connect(bench.path) as client:
            await client.config.set_bus_master(True)
            await client.add_memory(RAM, 4096)
            await client.add_memory(2 * RAM, 4096, shared=False)
            await client.config.enable_msix()
            await bench.memory.write(RAM, b"data")
            client.mapped(2)[0] = 1
        await bench.server.wait_disconnected()

    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    async with serve_bench(tmp_path / "s") as bench:
        await session(bench)
        serving = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            await session(bench)
        assert len(os.listdir("/proc/self/fd")) == serving
    del bench
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 3, "the loop's own poller may stay"
