"""A device in real QEMU, without a guest: found through ECAM, its BARs sized and placed, accessed in every way."""

from __future__ import annotations

import logging

import pytest

from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest
from pyvfio_user.guest.pci import PlacedBar

from ..bridge.bench import COUNTER, DOORBELL, FAULTY, MEMORY, SCRATCH, WRITE_ONES, BenchDevice
from .attached import COMMAND, RAM, RAM_END, Attached


async def attach(serve_device: ServeDevice, qemu_qtest: StartQtest) -> tuple[BenchDevice, Attached]:
    device = BenchDevice()
    attached = await Attached.place(await qemu_qtest(await serve_device(device)))
    device.endpoint.recorder.drain()
    return device, attached


@pytest.mark.asyncio
async def test_config_space_through_ecam(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    _, attached = await attach(serve_device, qemu_qtest)
    function = attached.function
    assert await function.identity() == (0x1234, 0xBEC0)
    assert await function.read_config(0x08, 4) == 0xFF000000
    assert await function.read_config(0x0E, 1) == 0
    assert sorted(await function.capabilities()) == [0x01, 0x05, 0x10, 0x11]
    assert await function.read_config(0x3D, 1) == 1, "INTA"
    await function.write_config(0x3C, 1, 0x5A)
    assert await function.read_config(0x3C, 1) == 0x5A
    await function.write_config(0x00, 4, 0)
    assert await function.identity() == (0x1234, 0xBEC0)


@pytest.mark.asyncio
async def test_bars_are_sized_and_placed(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    _, attached = await attach(serve_device, qemu_qtest)
    assert attached.bars == {
        0: PlacedBar(0, 0x1000_0000, 0x10000, False, False, False),
        2: PlacedBar(2, 0x80_0000_0000, 0x10000, True, True, False),
        4: PlacedBar(4, 0x1001_0000, 0x1000, False, False, False),
    }
    await attached.write(0, SCRATCH, 0x1234_5678)
    await attached.function.write_config(0x10, 4, 0x2000_0000)
    assert await attached.machine.read(0x2000_0000 + SCRATCH, 4) == 0x1234_5678
    assert await attached.function.read_config(0x10, 4) == 0x2000_0000
    await attached.function.write_config(COMMAND, 2, 0)
    assert await attached.machine.read(0x2000_0000 + SCRATCH, 4) != 0x1234_5678, "memory space is off"


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.asyncio
async def test_trapped_accesses_arrive_as_they_were_made(
    serve_device: ServeDevice, qemu_qtest: StartQtest, size: int
) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    value = int.from_bytes(bytes(range(0x11, 0x11 + size)), "little")
    await attached.write(0, MEMORY + 8, value, size)
    assert await attached.read(0, MEMORY + 8, size) == value
    data = bytes(range(0x11, 0x11 + size))
    assert device.endpoint.recorder.drain() == [
        Transaction(0, True, 0, MEMORY + 8, size, data),
        Transaction(1, False, 0, MEMORY + 8, size, data),
    ]


@pytest.mark.asyncio
async def test_registers_behave(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    await attached.write(0, SCRATCH, 0xDEAD_BEEF)
    await attached.write(0, SCRATCH + 2, 0x1234, 2)
    assert await attached.read(0, SCRATCH) == 0x1234_BEEF
    await attached.write(0, WRITE_ONES, 0xFF)
    assert await attached.read(0, WRITE_ONES) == 0xFF00
    assert [await attached.read(0, COUNTER) for _ in range(3)] == [1, 2, 3]
    for value in range(10):
        await attached.write(0, DOORBELL, value)
    await attached.read(0, SCRATCH)
    assert device.rings == list(range(10))


@pytest.mark.asyncio
async def test_a_mapped_area_is_memory_and_the_rest_of_its_bar_is_trapped(
    serve_device: ServeDevice, qemu_qtest: StartQtest
) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    base = attached.bars[2].address
    await attached.machine.write_bytes(base, bytes(range(256)))
    assert bytes(device.bar2.memory[:256]) == bytes(range(256))
    device.second.memory[0x1FF8:0x2000] = b"the tail"
    assert await attached.machine.read_bytes(base + 0x3FF8, 8) == b"the tail"
    assert device.endpoint.recorder.drain() == [], "no message was sent"
    await attached.write(2, 0x1000, 0x55)
    assert await attached.read(2, 0x1000) == 0, "nothing claims it"


@pytest.mark.asyncio
async def test_a_handler_that_raises_reads_all_ones_and_qemu_lives(
    serve_device: ServeDevice, qemu_qtest: StartQtest, caplog: pytest.LogCaptureFixture
) -> None:
    _, attached = await attach(serve_device, qemu_qtest)
    with caplog.at_level(logging.ERROR, logger="pyvfio_user.bridge"):
        assert await attached.read(0, FAULTY) == 0xFFFF_FFFF
        await attached.write(0, FAULTY, 0xDEAD_BEEF)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert await attached.read(0, WRITE_ONES) == 0xFFFF


@pytest.mark.asyncio
async def test_guest_ram_is_the_devices_both_ways(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    await attached.machine.write_bytes(RAM + 0x1234, b"from the guest")
    assert device.memory.read_mapped(RAM + 0x1234, 14) == b"from the guest"
    device.memory.write_mapped(RAM_END - 4, b"last")
    assert await attached.machine.read_bytes(RAM_END - 4, 4) == b"last"
    with pytest.raises(OSError, match=r"must lie within memory the guest mapped, not outside it$"):
        device.memory.read_mapped(RAM_END - 4, 5)
    await attached.function.write_config(COMMAND, 2, 2)
    with pytest.raises(OSError, match=r"must wait until the guest enables bus mastering$"):
        device.memory.read_mapped(RAM, 4)


@pytest.mark.asyncio
async def test_a_mapped_bar_is_reached_by_message(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    """QEMU offers a device's mapped areas for DMA without a descriptor: only DMA_READ and DMA_WRITE reach them."""
    device, attached = await attach(serve_device, qemu_qtest)
    base = attached.bars[2].address + 0x2000
    device.second.memory[:4] = b"peer"
    assert await device.memory.read(base, 4) == b"peer"
    data = bytes(range(256)) * 32
    await device.memory.write(base, data)
    assert bytes(device.second.memory[: len(data)]) == data
    assert await device.memory.read(base, len(data)) == data
