"""Declared interrupts: what may be declared, what fires, and the MSI-X table and pending bits in their BAR."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.devices import Device, Intx, Msi, MsiX, PciId

from .serving import attached


class Example(Device):
    """Has all kinds; the MSI-X table gets BAR 0."""

    identity = PciId(vendor=0x1234, device=0x5678, class_code=0xFF0000)
    intx = Intx()
    msi = Msi(4)
    msix = MsiX(3)


@pytest.mark.parametrize("vectors", [0, 3, 33, 64])
def test_msi_vectors(vectors: int) -> None:
    with pytest.raises(DefinitionError, match=f"^vectors of Msi must be a power of two up to 32, not {vectors}$"):
        Msi(vectors)


@pytest.mark.parametrize("vectors", [0, 2049])
def test_msix_vectors(vectors: int) -> None:
    with pytest.raises(DefinitionError, match=f"^vectors of MsiX must be 1 to 2048, not {vectors}$"):
        MsiX(vectors)


@pytest.mark.parametrize(("vectors", "pending"), [(1, 8), (64, 8), (65, 16), (128, 16), (2048, 256)])
def test_64_vectors_share_8_bytes_of_pending_bits_behind_the_table(vectors: int, pending: int) -> None:
    """PCI Express 7.7.2: 16 bytes an entry, one bit a vector in quadwords."""
    table, bits = MsiX(vectors).areas()
    assert (table.offset, table.length) == (0, 16 * vectors)
    assert (bits.offset, bits.length) == (16 * vectors, pending)


@pytest.mark.asyncio
async def test_vectors_fire_only_their_own_kind() -> None:
    device = Example()
    async with attached(device) as client:
        await client.config.enable_msi()
        assert (device.interrupts.mode, len(device.msi), len(device.msix)) == ("msi", 4, 3)
        assert not device.msix[2].fire()
        assert device.msi[3].fire()
        assert await client.msi[3].wait() == 1
        await client.config.disable_msi()
        await client.config.enable_msix()
        assert not device.msi[3].fire()
        assert device.msix[2].fire()
        assert await client.msix[2].wait() == 1


def test_a_vector_must_be_there() -> None:
    with pytest.raises(IndexError, match=r"^msix vector must be 0 to 2, not 3$"):
        Example().msix[3]


@pytest.mark.asyncio
async def test_msix_table_starts_masked_and_pending_bits_are_read_only() -> None:
    async with attached(Example()) as client:
        assert (await client.bars[0].read_bytes(0, 56)).hex() == ("00" * 12 + "01000000") * 3 + "00" * 8
        await client.bars[0].write_bytes(0, b"\xff" * 56)
        assert (await client.bars[0].read_bytes(0, 56)).hex() == ("fc" + "ff" * 11 + "01000000") * 3 + "00" * 8


@pytest.mark.asyncio
async def test_a_vector_without_an_eventfd_is_pending() -> None:
    device = Example()
    async with attached(device) as client:
        await client.config.enable_msix(vectors=1)
        assert device.msix[2].fire()
        assert await client.bars[0].read(48, 4) == 1 << 2
        await client.reset()
        assert await client.bars[0].read(48, 4) == 0


@pytest.mark.asyncio
async def test_messages_need_bus_mastering_and_intx_does_not() -> None:
    device = Example()
    async with attached(device) as client:
        await client.config.set_bus_master(False)
        await client.intx.enable()
        assert device.interrupts.fire()
        assert client.intx[0].take() == 1
        await client.config.enable_msix()
        assert not device.interrupts.fire(1)
        await client.config.disable_msix()
        await client.config.enable_msi()
        assert not device.interrupts.fire(1)
        await client.config.set_bus_master(True)
        assert device.interrupts.fire(1)
        assert client.msi[1].take() == 1


@pytest.mark.asyncio
async def test_an_intx_that_the_guest_disabled_shows_in_its_status_and_comes_later() -> None:
    """PCI Express 7.5.1.1.3 and .4: Interrupt Disable holds the line low, not the Interrupt Status bit."""
    device = Example()
    async with attached(device) as client:
        await client.intx.enable()
        await client.config.set_intx_disabled(True)
        assert device.interrupts.fire()
        assert await client.config.read(0x06, 2) & 1 << 3
        with pytest.raises(TimeoutError):
            await client.intx[0].wait(0.01)
        await client.config.set_intx_disabled(False)
        assert await client.intx[0].wait(5) == 1
