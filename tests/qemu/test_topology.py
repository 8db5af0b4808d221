"""Devices that come and go, that move, and that reach each other; and writes that wait for their answer."""

from __future__ import annotations

import asyncio

import pytest

from pyvfio_user.devices import Bar, Device, KiB, Msi, PciId, Register, Registers
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest

from ..bridge.bench import SCRATCH, BenchDevice
from .attached import RAM, RAM_END, Attached
from .hotplug import ROOT_PORT, MsiOnly, RootPort
from .nobody import nobody_serves


@pytest.mark.asyncio
async def test_hot_plug_and_unplug(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device = MsiOnly()
    served = await serve_device(device)
    port = await RootPort.of(await qemu_qtest(extra=ROOT_PORT))
    assert await port.slot.read_config(0, 4) == 0xFFFF_FFFF, "an empty slot"
    for turn in range(3):
        attached = await port.plug(served.path)
        assert await attached.function.identity() == (0x1234, 0xBEC2)
        assert await attached.read(0, 0) == 0, "reset since the last time"
        await attached.write(0, 0, turn + 1)
        assert [await attached.read(0, at) for at in (0, 4)] == [turn + 1, 0xC0FFEE]
        await attached.enable_msi(RAM, 0xE0 + turn)
        assert device.interrupts.fire()
        await attached.until(RAM, 0xE0 + turn)
        device.memory.write_mapped(RAM + 0x100, b"turn %d" % turn)
        assert await port.machine.read_bytes(RAM + 0x100, 6) == b"turn %d" % turn
        await port.unplug()
        await asyncio.wait_for(served.server.wait_disconnected(), 5)
        assert await port.slot.read_config(0, 4) == 0xFFFF_FFFF
        assert (device.memory.maps, device.interrupts.mode) == (0, "none")


@pytest.mark.asyncio
async def test_a_bar_with_mapped_areas_moves(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device = BenchDevice()
    attached = await Attached.place(await qemu_qtest(await serve_device(device)))
    old = attached.bars[2].address
    await attached.machine.write_bytes(old, b"before")
    for new in (old + 0x4000_0000, old + 0x10_0000, old):
        await attached.function.write_config(0x18, 4, new & 0xFFFF_FFFF)
        await attached.function.write_config(0x1C, 4, new >> 32)
        assert await attached.machine.read_bytes(new, 6) == b"before"
        assert await device.memory.read(new, 6) == b"before", "and so do its DMA maps"
        if new != old:
            assert await attached.machine.read(old, 4) != int.from_bytes(b"befo", "little")
            with pytest.raises(OSError, match=r"must lie within memory the guest mapped, not outside it$"):
                await device.memory.read(old, 6)
    device.endpoint.recorder.drain()
    await attached.machine.write_bytes(old + 0x2000, b"after")
    assert bytes(device.second.memory[:5]) == b"after"
    assert device.endpoint.recorder.drain() == [], "mapped again, not trapped"


@pytest.mark.asyncio
async def test_two_devices_reach_each_others_mapped_areas(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    one, two = BenchDevice(), BenchDevice()
    machine = await qemu_qtest(await serve_device(one), await serve_device(two))
    first, second = [Attached(machine, each, await each.place_bars()) for each in await machine.pci.scan()]
    for device, other, there in ((one, two, second), (two, one, first)):
        address = there.bars[2].address + 0x2000
        other.second.memory[:8] = b"from %d  " % (device is one)
        assert await device.memory.read(address, 8) == b"from %d  " % (device is one)
        data = bytes(range(256)) * 32
        await device.memory.write(address, data)
        assert bytes(other.second.memory[: len(data)]) == data
        with pytest.raises(OSError, match=r"not be reachable by message only$"):
            device.memory.read_mapped(address, 4)
        with pytest.raises(OSError, match=r"must lie within memory the guest mapped, not outside it$"):
            await device.memory.read(there.bars[0].address, 4)  # trapped: no memory
        device.memory.write_mapped(RAM_END - 8, b"both RAM")
    await first.write(0, SCRATCH, 1)
    await second.write(0, SCRATCH, 2)
    assert [await each.read(0, SCRATCH) for each in (first, second)] == [1, 2]


class Words(Registers):
    word = Register(0)


class Unmapped(Device):
    """Nothing of it is mapped: QEMU posts its writes, unless told not to."""

    identity = PciId(vendor=0x1234, device=0xBEC3, class_code=0xFF0000)
    bar0 = Bar(Words, size=4 * KiB)
    msi = Msi(1)


@pytest.mark.parametrize("posted", [True, False])
@pytest.mark.asyncio
async def test_writes_are_posted_unless_qemu_is_told_not_to(
    serve_device: ServeDevice, qemu_qtest: StartQtest, posted: bool
) -> None:
    served = await serve_device(Unmapped())
    machine = await qemu_qtest(served, properties={} if posted else {"x-no-posted-writes": True})
    attached = await Attached.place(machine)
    with nobody_serves():
        writing = asyncio.create_task(attached.write(0, 0, 0x1234))
        done, _ = await asyncio.wait({writing}, timeout=5 if posted else 0.1)
        assert bool(done) is posted
    await writing
    assert await attached.read(0, 0) == 0x1234
