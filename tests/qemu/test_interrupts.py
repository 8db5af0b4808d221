"""Interrupts as QEMU delivers them: MSI and MSI-X seen as values in guest RAM, INTx at the interrupt controller."""

from __future__ import annotations

import asyncio

import pytest

from pyvfio_user.guest.fixtures import ServeDevice, StartQtest

from ..bridge.bench import MSI_VECTORS, MSIX_VECTORS, SCRATCH, BenchDevice
from .attached import COMMAND, RAM, STATUS, Attached

LINE = 4  # of the interrupt controller, where INTA of slot 1 arrives
INTERRUPT_STATUS = 1 << 3


async def attach(serve_device: ServeDevice, qemu_qtest: StartQtest) -> tuple[BenchDevice, Attached]:
    device = BenchDevice()
    return device, await Attached.place(await qemu_qtest(await serve_device(device)))


@pytest.mark.asyncio
async def test_msi(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    assert device.interrupts.mode == "intx", "QEMU armed INTx when it realized the device"
    await attached.enable_msi(RAM, 0xABC0, vectors=MSI_VECTORS)
    assert device.interrupts.mode == "msi"
    for vector in range(MSI_VECTORS):
        assert device.interrupts.fire(vector)
        await attached.until(RAM, 0xABC0 + vector)
    await attached.disable_msi()
    assert device.interrupts.mode == "intx"


@pytest.mark.asyncio
async def test_msix(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    device.endpoint.recorder.drain()
    await attached.enable_msix({0: (RAM, 0xA0), 7: (RAM + 4, 0xA7), MSIX_VECTORS - 1: (RAM + 8, 0xAF)}, bar=4)
    assert device.interrupts.mode == "msix"
    assert device.endpoint.recorder.drain() == [], "QEMU keeps the table to itself"
    for vector, address, data in ((7, RAM + 4, 0xA7), (0, RAM, 0xA0), (MSIX_VECTORS - 1, RAM + 8, 0xAF)):
        assert await attached.machine.read(address, 4) == 0
        assert device.interrupts.fire(vector)
        await attached.until(address, data)
    await attached.disable_msix()
    assert device.interrupts.mode == "intx"


@pytest.mark.asyncio
async def test_an_msix_vector_that_is_used_later_was_pending(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    await attached.enable_msix({0: (RAM, 0xA0)}, bar=4)
    device.interrupts.fire(3)
    assert await attached.read(4, 0x800) == 1 << 3, "the pending bits are read from the device"
    for word, value in enumerate((RAM + 4, 0, 0xA3, 0)):
        await attached.write(4, 16 * 3 + 4 * word, value)
    await attached.until(RAM + 4, 0xA3)
    assert await attached.read(4, 0x800) == 0


@pytest.mark.asyncio
async def test_messages_need_bus_mastering(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    await attached.enable_msix({0: (RAM, 0xA0)}, bar=4)
    await attached.function.write_config(COMMAND, 2, 2)
    assert not device.interrupts.fire(0)
    await attached.function.write_config(COMMAND, 2, 6)
    assert device.interrupts.fire(0)
    await attached.until(RAM, 0xA0)


@pytest.mark.asyncio
async def test_intx_fires_again_until_it_is_deasserted(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    await attached.machine.intercept_irqs()
    device.interrupts.intx_assert()
    await attached.until_irq(LINE, True)
    assert await attached.function.read_config(STATUS, 2) & INTERRUPT_STATUS
    for _ in range(3):
        await attached.read(0, SCRATCH)  # a trapped access is QEMU's end-of-interrupt: UNMASK
        await attached.until_irq(LINE, True)
    device.interrupts.intx_deassert()
    assert not await attached.function.read_config(STATUS, 2) & INTERRUPT_STATUS
    await attached.read(0, SCRATCH)
    await attached.until_irq(LINE, False)
    await asyncio.sleep(0)
    assert attached.machine.irq_levels[LINE] is False
    device.interrupts.intx_assert()
    await attached.until_irq(LINE, True)


@pytest.mark.asyncio
async def test_intx_disabled_by_the_guest_is_only_a_status(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    await attached.machine.intercept_irqs()
    await attached.function.write_config(COMMAND, 2, 6 | 1 << 10)
    device.interrupts.intx_assert()
    assert await attached.function.read_config(STATUS, 2) & INTERRUPT_STATUS
    await attached.read(0, SCRATCH)
    assert not attached.machine.irq_levels.get(LINE, False)
    await attached.function.write_config(COMMAND, 2, 6)
    await attached.until_irq(LINE, True)


@pytest.mark.asyncio
async def test_a_mapped_area_traps_after_intx_and_still_keeps_what_is_written(
    serve_device: ServeDevice, qemu_qtest: StartQtest
) -> None:
    device, attached = await attach(serve_device, qemu_qtest)
    await attached.machine.intercept_irqs()
    device.interrupts.intx_assert()
    await attached.until_irq(LINE, True)
    device.endpoint.recorder.drain()
    await attached.write(2, 0x10, 0x1122_3344)
    assert device.bar2.memory[0x10:0x14].hex() == "44332211"
    assert [(t.region, t.offset) for t in device.endpoint.recorder.drain()] == [(2, 0x10)], "by message now"
