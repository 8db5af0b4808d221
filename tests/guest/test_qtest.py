"""QEMU without a guest: memory, configuration space and BARs of QEMU's own devices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.machines import load_config
from pyvfio_user.guest.pci import PciBus, PlacedBar
from pyvfio_user.guest.provision.qemu import find_qemu
from pyvfio_user.guest.qtest import QtestError, QtestMachine, qtest_machine

RAM = 0x4000_0000
MSI_X = 0x11


@pytest_asyncio.fixture
async def machine() -> AsyncIterator[QtestMachine]:
    devices = ["-device", "edu", "-device", "virtio-rng-pci,disable-legacy=off"]
    command = load_config("qtest").command(find_qemu().require().path, extra=devices)
    async with qtest_machine(command) as running:
        yield running


@pytest.mark.asyncio
async def test_memory_in_every_size(machine: QtestMachine) -> None:
    await machine.write_bytes(RAM, bytes(range(16)))
    assert await machine.read_bytes(RAM + 1, 3) == b"\1\2\3"
    values = [await machine.read(RAM, size) for size in (1, 2, 4, 8)]
    assert values == [0x00, 0x0100, 0x03020100, 0x0706050403020100]
    for size in (1, 2, 4, 8):
        await machine.write(RAM + 16, size, (1 << 8 * size) - 2)
        assert await machine.read(RAM + 16, size) == (1 << 8 * size) - 2
    large = bytes(range(256)) * 4096
    await machine.write_bytes(RAM, large)
    assert await machine.read_bytes(RAM, len(large)) == large


@pytest.mark.asyncio
async def test_functions_are_found_and_their_bars_placed(machine: QtestMachine) -> None:
    edu, rng = await machine.pci.scan()
    assert await edu.identity() == (0x1234, 0x11E8)
    assert await edu.place_bars() == {0: PlacedBar(0, 0x1000_0000, 1 << 20, False, False, False)}
    assert await edu.read_config(4, 2) & 7 == 6
    assert await machine.read(0x1000_0000, 4) == 0x0100_00ED
    assert await rng.place_bars(master=False) == {
        0: PlacedBar(0, 0x3EFF_1000, 32, False, False, True),
        1: PlacedBar(1, 0x1010_0000, 4096, False, False, False),
        4: PlacedBar(4, 0x80_0000_0000, 16384, True, True, False),
    }
    assert await rng.read_config(4, 2) & 7 == 3


@pytest.mark.asyncio
async def test_capabilities(machine: QtestMachine) -> None:
    edu, rng = await machine.pci.scan()
    assert list(await edu.capabilities()) == [5]
    offset = (await rng.capabilities())[MSI_X]
    assert await rng.read_config(offset, 1) == MSI_X


@pytest.mark.asyncio
async def test_interrupt_lines(machine: QtestMachine) -> None:
    edu, _ = await machine.pci.scan()
    base = (await edu.place_bars())[0].address
    await machine.intercept_irqs()
    await machine.write(base + 0x60, 4, 1)
    assert machine.irq_levels == {4: True}
    await machine.write(base + 0x64, 4, 1)
    assert machine.irq_levels == {4: False}


@pytest.mark.asyncio
async def test_a_refused_command(machine: QtestMachine) -> None:
    with pytest.raises(QtestError, match=r"^fly: FAIL Unknown command 'fly'$"):
        await machine.command("fly")


@pytest.mark.asyncio
async def test_commands_of_several_tasks_take_turns(machine: QtestMachine) -> None:
    await machine.write_bytes(RAM, bytes(range(200)))
    values = await asyncio.gather(*(machine.read(RAM + n, 1) for n in range(200)))
    assert values == list(range(200))


@pytest.mark.asyncio
async def test_qemu_that_ends_in_the_middle(machine: QtestMachine) -> None:
    await machine.vm.execute("quit")
    with pytest.raises(QemuError, match=r"^QEMU ended with exit status 0\nQEMU's command:\n"):
        await machine.read(RAM, 4)


def test_a_bar_too_large_for_its_window(machine_bus: PciBus) -> None:
    assert machine_bus.allocate("32", 0x1000) == 0x1000_0000
    assert machine_bus.allocate("32", 1 << 28) == 0x2000_0000
    with pytest.raises(ValueError, match=r"^BAR size must fit the 251592704 free bytes of window 32, not 268435456$"):
        machine_bus.allocate("32", 1 << 28)


@pytest.fixture
def machine_bus() -> PciBus:
    class Nowhere:
        async def read(self, address: int, size: int) -> int:
            raise AssertionError

        async def write(self, address: int, size: int, value: int) -> None:
            raise AssertionError

    return PciBus(Nowhere())
