"""What becomes of a QEMU and a server when one of them is reset, leaves, is killed, or comes second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest
from pyvfio_user.guest.machines import load_config
from pyvfio_user.guest.provision.qemu import QemuBinary
from pyvfio_user.guest.qtest import qtest_machine

from ..bridge.bench import MEMORY, SCRATCH, BenchDevice
from .attached import COMMAND, RAM, Attached


@pytest.mark.asyncio
async def test_system_reset_in_the_middle(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    device = BenchDevice()
    served = await serve_device(device)
    machine = await qemu_qtest(served)
    attached = await Attached.place(machine)
    session = served.server.session
    await attached.write(0, SCRATCH, 0x1234)
    await attached.write(0, MEMORY, 0x5678)
    await attached.enable_msix({0: (RAM, 0xA0)}, bar=4)
    device.interrupts.intx_assert()
    maps, resets = device.memory.maps, device.resets

    await machine.vm.execute("system_reset")
    async with asyncio.timeout(5):
        while device.resets == resets or await attached.function.read_config(COMMAND, 2):
            await asyncio.sleep(0)

    assert device.resets == resets + 1
    assert served.server.session is session, "the same connection"
    assert device.interrupts.mode == "intx", "MSI-X is off, INTx armed again"
    assert not device.interrupts.intx_asserted
    assert [await attached.function.read_config(0x10 + 4 * n, 4) & ~0xF for n in range(6)] == [0] * 6
    assert device.memory.maps < maps, "the mapped BARs are no longer DMA targets"
    attached = await Attached.place(machine)
    assert await attached.read(0, SCRATCH) == 0, "registers are reset"
    assert await attached.read(0, MEMORY) == 0x5678, "memory keeps its bytes"
    device.memory.write_mapped(RAM + 0x100, b"still mapped")
    assert await machine.read_bytes(RAM + 0x100, 12) == b"still mapped"
    await attached.enable_msix({0: (RAM, 0xA1)}, bar=4)
    assert device.interrupts.fire(0)
    await attached.until(RAM, 0xA1)


@pytest.mark.asyncio
async def test_a_server_that_closes_in_the_middle(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    served = await serve_device(BenchDevice())
    machine = await qemu_qtest(served)
    attached = await Attached.place(machine)
    await attached.write(0, SCRATCH, 0x1234)
    served.server.close()
    await machine.vm.wait_for("failed to read header: EOF")
    await gone(attached)


@contextlib.asynccontextmanager
async def server_process(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Upcase served by another process."""
    program = "import sys; from pyvfio_user.guest.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "serve", "upcase", "--socket", str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"serving upcase on ")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.asyncio
async def test_a_server_that_is_killed_in_the_middle(tmp_path: Path, qemu_binary: QemuBinary) -> None:
    path = tmp_path / "upcase.sock"
    command = load_config("qtest").command(qemu_binary.path, [path])
    async with server_process(path) as process, qtest_machine(command) as machine:
        attached = await Attached.place(machine)
        await attached.write(0, 8, 5, 2)
        assert await attached.read(0, 8, 2) == 5
        process.kill()
        await process.wait()
        await machine.vm.wait_for("failed to read header: EOF")
        await gone(attached)


async def gone(attached: Attached) -> None:
    """QEMU lives, reads of the device give all-ones, writes go nowhere, and the rest of the machine works."""
    machine = attached.machine
    assert await attached.read(0, SCRATCH) == 0xFFFF_FFFF
    await attached.write(0, SCRATCH, 1)
    assert await attached.read(0, SCRATCH) == 0xFFFF_FFFF
    await machine.write(RAM, 4, 0x55AA)
    assert await machine.read(RAM, 4) == 0x55AA
    assert (await machine.vm.execute("query-status"))["running"] is True
    assert machine.vm.running


@pytest.mark.asyncio
async def test_a_second_qemu_is_refused_at_once(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    served = await serve_device(BenchDevice())
    attached = await Attached.place(await qemu_qtest(served))
    with pytest.raises(QemuError) as caught:
        await qemu_qtest(served)
    assert str(caught.value).startswith("QEMU ended with exit status 1\n")
    assert "version reply: Device or resource busy" in str(caught.value), "an answer, not the end of QEMU's patience"
    await attached.write(0, SCRATCH, 7)
    assert await attached.read(0, SCRATCH) == 7, "the first is not disturbed"


@pytest.mark.asyncio
async def test_one_qemu_after_another(serve_device: ServeDevice, qemu_binary: QemuBinary) -> None:
    device = BenchDevice()
    served = await serve_device(device)
    command = load_config("qtest").command(qemu_binary.path, [served.path])
    for _ in range(3):
        async with qtest_machine(command) as machine:
            attached = await Attached.place(machine)
            assert await attached.read(0, SCRATCH) == 0
            await attached.write(0, SCRATCH, 7)
            await attached.enable_msix({0: (RAM, 0xA0)}, bar=4)
            device.interrupts.fire(0)
            await attached.until(RAM, 0xA0)
        await asyncio.wait_for(served.server.wait_disconnected(), 5)
        assert device.memory.maps == 0
        assert device.interrupts.fire(0) is False


@pytest.mark.parametrize("by_signal", [True, False])
@pytest.mark.asyncio
async def test_qemu_ends_in_the_middle(serve_device: ServeDevice, qemu_qtest: StartQtest, by_signal: bool) -> None:
    device = BenchDevice()
    served = await serve_device(device)
    machine = await qemu_qtest(served)
    attached = await Attached.place(machine)
    await attached.write(0, SCRATCH, 7)
    await attached.enable_msix({0: (RAM, 0xA0)}, bar=4)
    assert (device.memory.maps > 0, device.interrupts.mode) == (True, "msix")
    if by_signal:
        os.kill(machine.vm.pid, signal.SIGKILL)
    else:
        await machine.vm.execute("quit")
    await asyncio.wait_for(served.server.wait_disconnected(), 5)
    with pytest.raises(OSError, match=r"must"):
        device.memory.read_mapped(RAM, 4)
    assert (device.memory.maps, device.interrupts.mode) == (0, "none")
    assert bytes(device.endpoint.regions[0].memory[SCRATCH : SCRATCH + 4]) == bytes(4), "reset at once, not by the next"
    attached = await Attached.place(await qemu_qtest(served))
    assert await attached.read(0, SCRATCH) == 0


@pytest.mark.asyncio
async def test_an_absent_socket_is_an_error_at_once(tmp_path: Path, qemu_binary: QemuBinary) -> None:
    with pytest.raises(QemuError, match=r"No such file or directory"):
        async with qtest_machine(load_config("qtest").command(qemu_binary.path, [tmp_path / "absent.sock"])):
            pass
