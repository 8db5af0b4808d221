"""The teaching device in real QEMU: its doorbell rung, DMA both ways, and MSI-X, MSI and INTx in turn."""

from __future__ import annotations

import pytest

from pyvfio_user.devices.upcase import Upcase
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest

from .attached import RAM, STATUS, Attached

ADDRESS, LENGTH, RESULT, RING = 0x00, 0x08, 0x0C, 0x10
TEXT = RAM + 0x1000
LINE = 4


async def capitalise(attached: Attached, text: bytes) -> None:
    await attached.machine.write_bytes(TEXT, text)
    await attached.write(0, ADDRESS, TEXT, 8)
    await attached.write(0, LENGTH, len(text), 2)
    await attached.write(0, RING, 1)


@pytest.mark.asyncio
async def test_msix_msi_and_intx_in_turn(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device = Upcase()
    attached = await Attached.place(await qemu_qtest(await serve_device(device)))
    await attached.machine.intercept_irqs()

    await attached.enable_msix({0: (RAM, 0x5151)}, bar=1)
    await capitalise(attached, b"msi-x, please")
    await attached.until(RAM, 0x5151)
    assert await attached.machine.read_bytes(TEXT, 13) == b"MSI-X, PLEASE"
    await attached.disable_msix()

    await attached.enable_msi(RAM + 4, 0x6161)
    await capitalise(attached, b"msi, please")
    await attached.until(RAM + 4, 0x6161)
    assert await attached.machine.read_bytes(TEXT, 11) == b"MSI, PLEASE"
    await attached.disable_msi()

    await capitalise(attached, b"intx, please")
    await attached.until_irq(LINE, True)
    assert await attached.machine.read_bytes(TEXT, 12) == b"INTX, PLEASE"
    assert await attached.read(0, RESULT) == 1, "and this read ends the interrupt"
    await attached.until_irq(LINE, False)
    assert not await attached.function.read_config(STATUS, 2) & 1 << 3


@pytest.mark.asyncio
async def test_memory_that_the_guest_does_not_have(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    attached = await Attached.place(await qemu_qtest(await serve_device(Upcase())))
    await attached.enable_msix({0: (RAM, 0x5151)}, bar=1)
    await attached.write(0, ADDRESS, 0x1_0000_0000, 8)
    await attached.write(0, LENGTH, 8, 2)
    await attached.write(0, RING, 1)
    await attached.until(RAM, 0x5151)
    assert await attached.read(0, RESULT) == 2
