"""QEMU without a guest: guest-physical reads and writes over the qtest protocol (QEMU docs/devel/testing/qtest.rst).

async with qtest_machine(load_config("qtest").command(qemu, [socket])) as machine:
    (function,) = await machine.pci.scan()
    bars = await function.place_bars()
    value = await machine.read(bars[0].address + 4, 4)
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from .pci import PciBus
from .qemu import Qemu

_ACCESS = {1: "b", 2: "w", 4: "l", 8: "q"}
_LIMIT = 64 * 1024 * 1024


class QtestError(Exception):
    """QEMU answered a qtest command with FAIL or ERR, or with something that is no answer."""


class Qtest:
    """The client's side of one qtest connection. Commands run one at a time; addresses are guest-physical."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self.irq_levels: dict[int, bool] = {}

    async def command(self, text: str) -> str:
        """Send one command line; return what follows OK. Raises `QtestError`, or `EOFError` when QEMU went away."""
        async with self._turn:
            self._writer.write(text.encode("ascii") + b"\n")
            while True:
                line = (await self._reader.readuntil(b"\n")).decode("ascii").rstrip("\n")
                status, _, rest = line.partition(" ")
                if status == "IRQ":
                    level, _, number = rest.partition(" ")
                    self.irq_levels[int(number)] = level == "raise"
                elif status == "OK":
                    return rest
                else:
                    raise QtestError(f"{text[:80]}: {line}")

    async def read(self, address: int, size: int) -> int:
        """Read 1, 2, 4 or 8 bytes as one access."""
        return int(await self.command(f"read{_ACCESS[size]} {address:#x}"), 16)

    async def write(self, address: int, size: int, value: int) -> None:
        """Write 1, 2, 4 or 8 bytes as one access."""
        await self.command(f"write{_ACCESS[size]} {address:#x} {value:#x}")

    async def read_bytes(self, address: int, length: int) -> bytes:
        """Read memory; how a device sees it (which accesses) is QEMU's choice."""
        return bytes.fromhex((await self.command(f"read {address:#x} {length:#x}")).removeprefix("0x"))

    async def write_bytes(self, address: int, data: bytes) -> None:
        """Write memory; how a device sees it (which accesses) is QEMU's choice."""
        await self.command(f"write {address:#x} {len(data):#x} 0x{data.hex()}")


class QtestMachine(Qtest):
    """A running QEMU without a guest: the qtest commands, its process (`vm`) and its PCI bus (`pci`)."""

    def __init__(self, vm: Qemu, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.vm = vm
        self.pci = PciBus(self)

    async def command(self, text: str) -> str:
        """As `Qtest.command`, but a QEMU that ends is a `QemuError` with its command and its last lines."""
        try:
            return await super().command(text)
        except (EOFError, OSError) as error:
            raise await self.vm.lost() from error

    async def intercept_irqs(self) -> None:
        """Take the input lines of the interrupt controller (GICv3): their levels appear in `irq_levels` by number.

        A level is current once a later command was answered. On `virt`, the INTx lines A to D are 3 to 6, rotated by
        the slot: pin A of slot 1 is 4.
        """
        parts = await self.vm.execute("qom-list", path="/machine/unattached")
        controller = next(part["name"] for part in parts if part["type"] == "child<arm-gicv3>")
        await self.command(f"irq_intercept_in /machine/unattached/{controller}")


@contextlib.asynccontextmanager
async def qtest_machine(command: Sequence[str], *, timeout: float = 60.0) -> AsyncIterator[QtestMachine]:
    """Start `command`, which must select the qtest accelerator, for at most `timeout` seconds, and connect to it."""
    directory = Path(tempfile.mkdtemp(prefix="pyvfio-user-qtest-"))
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    connected = asyncio.Event()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams.append((reader, writer))
        connected.set()

    server = await asyncio.start_unix_server(accept, directory / "qtest", limit=_LIMIT)
    try:
        options = ["-qtest", f"unix:{directory / 'qtest'}", "-qtest-log", "none"]
        async with Qemu([*command, *options], timeout=timeout) as vm:
            await vm.bounded(connected.wait())
            yield QtestMachine(vm, *streams[0])
    finally:
        for _, writer in streams:
            writer.close()
            with contextlib.suppress(OSError):  # QEMU has ended: its end of the connection may have been reset
                await writer.wait_closed()
        server.close()
        shutil.rmtree(directory, ignore_errors=True)
