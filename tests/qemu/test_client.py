"""What QEMU's client does beyond single accesses: batches, timeouts, the ROM, resets and power states."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

from pyvfio_user.devices import (
    Bar,
    Device,
    Doorbell,
    KiB,
    MiB,
    Msi,
    PciId,
    Register,
    Registers,
    Rom,
    WriteCombineWindow,
)
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest

from ..bridge.bench import BenchDevice
from .attached import RAM, Attached
from .nobody import nobody_serves

ROM_BAR = 0x30


class Control(Registers):
    value = Register(0x00)
    bell = Doorbell(0x08)
    slow = Register(0x0C)
    copy = Register(0x10)
    source = Register(0x18, width=8)
    copied = Register(0x20)


class Everything(Device):
    """Nothing of it is mapped, so QEMU posts its writes."""

    identity = PciId(vendor=0x1234, device=0xBEC5, class_code=0xFF0000)
    bar0 = Bar(Control, size=4 * KiB)
    rom = Rom(bytes(range(256)) * 10)
    msi = Msi(1)

    def __init__(self) -> None:
        super().__init__()
        self.rings: list[int] = []
        self.resets = 0
        self.fetched = b""

    def on_reset(self) -> None:
        self.resets += 1

    @Control.bell.rung
    def hear(self, doorbell: int, value: int) -> None:
        self.rings.append(value)

    @Control.slow.on_read
    def sleep(self) -> int:
        time.sleep(1.6)
        return 1

    @Control.copy.on_write
    async def fetch(self, length: int) -> None:
        """Out of memory that is reached by message only: QEMU answers after the write that this is part of."""
        self.fetched = await self.memory.read(self.bar0.source, length)
        self.bar0.copied = len(self.fetched)


class Peer(Device):
    """Memory that others reach by message."""

    identity = PciId(vendor=0x1234, device=0xBEC6, class_code=0xFF0000)
    bar0 = Bar(WriteCombineWindow(1 * MiB, mapped=True), size=1 * MiB, prefetchable=True)


@pytest.mark.asyncio
async def test_posted_writes_that_gather_into_batches(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    """Behind a server that is slow QEMU queues them, and then sends up to 200 in a REGION_WRITE_MULTI."""
    device = Everything()
    attached = await Attached.place(await qemu_qtest(await serve_device(device)))
    with nobody_serves():
        for value in range(3000):
            await attached.write(0, 8, value)
    assert await attached.read(0, 8) == 2999
    assert device.rings == list(range(3000))


@pytest.mark.asyncio
async def test_the_rom_is_read_through_its_bar(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    attached = await Attached.place(await qemu_qtest(await serve_device(Everything())))
    function, machine = attached.function, attached.machine
    await function.write_config(ROM_BAR, 4, 0xFFFF_FFFE)
    assert await function.read_config(ROM_BAR, 4) == 0x1_0000_0000 - 4 * KiB
    await function.write_config(ROM_BAR, 4, 0x2000_0001)
    assert await machine.read_bytes(0x2000_0000, 2560) == bytes(range(256)) * 10
    assert await machine.read(0x2000_0000 + 2560, 4) == 0xFFFF_FFFF
    await machine.write(0x2000_0000, 4, 0)
    assert await machine.read(0x2000_0000, 4) == 0x0302_0100


@pytest.mark.asyncio
async def test_a_function_level_reset_of_the_guests(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device = Everything()
    attached = await Attached.place(await qemu_qtest(await serve_device(device)))
    function, resets = attached.function, device.resets
    control = (await function.capabilities())[0x10] + 8
    await attached.write(0, 0, 7)
    await function.write_config(control, 2, await function.read_config(control, 2) | 1 << 15)
    assert await attached.read(0, 0) != 7
    assert (device.resets, await function.read_config(control, 2) >> 15) == (resets + 1, 0)


@pytest.mark.asyncio
async def test_a_device_without_power_is_quiet(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device = BenchDevice()
    attached = await Attached.place(await qemu_qtest(await serve_device(device)))
    power = (await attached.function.capabilities())[0x01] + 4
    await attached.enable_msi(RAM, 0xE0)
    await attached.function.write_config(power, 2, 3)
    assert not device.interrupts.fire()
    with pytest.raises(OSError, match=r"must wait until the guest enables bus mastering$"):
        device.memory.read_mapped(RAM, 4)
    await attached.function.write_config(power, 2, 0)
    assert device.interrupts.fire()
    await attached.until(RAM, 0xE0)


@pytest.mark.asyncio
async def test_a_handler_that_exceeds_qemus_patience_is_named_and_the_next_qemu_is_served(
    serve_device: ServeDevice, qemu_qtest: StartQtest, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve_device(Everything())
    machine = await qemu_qtest(served, properties={"x-msg-timeout": 1000})
    attached = await Attached.place(machine)
    with caplog.at_level(logging.WARNING, logger="pyvfio_user.bridge"):
        assert await attached.read(0, 0x0C) == 0xFFFF_FFFF
    place = "Everything: read of 4 bytes in region 0 at 0xc (Control.slow)"
    assert caplog.messages[0].startswith(f"{place}: its handler blocks the device for more than 1 s")
    assert await attached.read(0, 0) == 0xFFFF_FFFF, "QEMU has given up on the device"
    await asyncio.wait_for(served.server.wait_disconnected(), 5)
    attached = await Attached.place(await qemu_qtest(served))
    assert await attached.read(0, 0) == 0


@pytest.mark.asyncio
async def test_a_write_is_answered_before_the_dma_by_message_that_it_starts(
    serve_device: ServeDevice, qemu_qtest: StartQtest
) -> None:
    """QEMU answers DMA_READ only when it has its own answer, and loses what its socket has no room for: 512 KiB."""
    device, peer = Everything(), Peer()
    one, two = await serve_device(device), await serve_device(peer)
    machine = await qemu_qtest(one, two, properties={"x-no-posted-writes": True})
    first, second = [Attached(machine, each, await each.place_bars()) for each in await machine.pci.scan()]
    length = 8 * 65536 + 256
    peer.bar0.memory[:length] = data = os.urandom(length)
    await first.write(0, 0x18, second.bars[0].address, 8)
    await first.write(0, 0x10, length)
    async with asyncio.timeout(5):
        while await first.read(0, 0x20) != length:
            await asyncio.sleep(0)
    assert device.fetched == data
