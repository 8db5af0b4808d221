"""A device with one of everything, for the server's tests, and the fixture that serves it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pyvfio_user.bridge.server import Server, serve
from pyvfio_user.devices import (
    RC,
    RO,
    W1C,
    Bar,
    Device,
    Doorbell,
    Intx,
    KiB,
    Memory,
    Msi,
    MsiX,
    PciId,
    Register,
    Registers,
    WriteCombineWindow,
)

from .raw import Raw, open_descriptors

BAR0_SIZE, BAR2_SIZE, MSIX_SIZE = 64 * KiB, 64 * KiB, 4 * KiB
BAR2_AREAS = [(0x0000, 0x1000), (0x2000, 0x2000)]
MSI_VECTORS, MSIX_VECTORS = 4, 20
SCRATCH, WRITE_ONES, CLEARED_BY_READ, COUNTER, FAULTY, WRITTEN = 0x00, 0x04, 0x08, 0x10, 0x14, 0x18
DOORBELL, NOWHERE, START = 0x20, 0x100, 0x30
MEMORY, MEMORY_SIZE = 0x1000, BAR0_SIZE - 0x1000
CONFIG_HEAD = bytes.fromhex("3412c0be 00001100 000000ff 00000000")


class Control(Registers):
    """Registers of every kind."""

    scratch = Register(SCRATCH)
    ones = Register(WRITE_ONES, access=W1C, reset=0xFFFF)
    cleared = Register(CLEARED_BY_READ, access=RC, reset=0x44332211)
    counter = Register(COUNTER, access=RO)
    faulty = Register(FAULTY)
    written = Register(WRITTEN)
    bell = Doorbell(DOORBELL)
    start = Register(START)


class BenchDevice(Device):
    """Keeps what it was told."""

    identity = PciId(vendor=0x1234, device=0xBEC0, class_code=0xFF0000)
    bar0 = Bar(Control, size=BAR0_SIZE)
    plain = bar0.place(Memory(MEMORY_SIZE), MEMORY)
    bar2 = Bar(WriteCombineWindow(0x1000, mapped=True), size=BAR2_SIZE, bits=64, prefetchable=True)
    second = bar2.place(WriteCombineWindow(0x2000, mapped=True), 0x2000)
    bar4 = Bar(size=MSIX_SIZE)
    intx, msi, msix = Intx(), Msi(MSI_VECTORS), MsiX(MSIX_VECTORS, bar=bar4, table=0, pba=0x800)

    def __init__(self) -> None:
        super().__init__()
        self.written: list[int] = []
        self.rings: list[int] = []
        self.reads = 0
        self.resets = 0
        self.started: Callable[[], None] = lambda: None

    def on_reset(self) -> None:
        """Count it."""
        self.resets += 1

    @Control.counter.on_read
    def count(self) -> int:
        """How often it was read."""
        self.reads += 1
        return self.reads

    @Control.faulty.on_read
    def divide(self) -> int:
        """Raises."""
        return 1 // 0

    @Control.faulty.on_write
    def divide_too(self, value: int) -> None:
        """Raises."""
        value // 0

    @Control.written.on_write
    def keep(self, value: int) -> None:
        """Keep it."""
        self.written.append(value)

    @Control.bell.rung
    def hear(self, number: int, value: int) -> None:
        """Keep it."""
        self.rings.append(value)

    @Control.start.on_write
    def begin(self, value: int) -> None:
        """Do what the test wants done inside a synchronous write."""
        self.started()


class Bench:
    """The device on its socket."""

    def __init__(self, device: BenchDevice, server: Server, path: Path) -> None:
        self.device = device
        self.server = server
        self.path = path
        self.interrupts = device.interrupts
        self.memory = device.memory

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Raw]:
        """A client that negotiated and enabled memory space and bus mastering."""
        async with Raw.connect(self.path) as raw:
            await raw.write(7, 4, b"\x06\0")
            yield raw

    def mode(self) -> str:
        """The kind of interrupt in use."""
        return self.interrupts.mode

    async def check_alive(self) -> None:
        """Asserts that a new client is served."""
        async with Raw.connect(self.path) as raw:
            await raw.write(0, SCRATCH, b"live")
            assert await raw.read(0, SCRATCH, 4) == b"live"
        await asyncio.wait_for(self.server.wait_disconnected(), 5)

    def descriptors(self) -> Counter[str]:
        """What the process has open and a client can have given."""
        kinds = ("anon_inode:[eventfd]", "pipe:", "/memfd:")
        return Counter(name for name in open_descriptors() if name.startswith(kinds))

    def leaked(self, before: Counter[str]) -> list[str]:
        """What is open now and was not `before`."""
        return sorted((self.descriptors() - before).elements())

    async def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Lets the loop run until `condition` holds."""
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0)


@asynccontextmanager
async def serve_bench(path: Path) -> AsyncIterator[Bench]:
    """Serves a new bench at `path`."""
    device = BenchDevice()
    async with serve(device, path) as server:
        yield Bench(device, server, path)
