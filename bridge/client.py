"""A VMM in Python: the client's side of vfio-user, over the same socket and with the same requests as QEMU.

A device under test is served in the same event loop, so a test without QEMU takes milliseconds::

    async with Client.connect("device.sock") as client:
        ram = await client.add_memory(0x4000_0000, 1 << 20)
        await client.config.set_bus_master(True)
        await client.config.enable_msix()
        await client.bars[0].write(0x08, 1, 4)
        await client.msix[0].wait()
        assert ram.memory[:4] == b"TEXT"
"""

from __future__ import annotations

import asyncio
import errno
import json
import mmap
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import wire
from .client_config import ConfigSpace
from .client_irqs import ClientInterrupts
from .client_link import Link, Message, ProtocolError, VfioUserError
from .client_regions import ClientRegion, write_multi

__all__ = ["QEMU_CAPABILITIES", "Client", "GuestRam", "ProtocolError", "VfioUserError"]

QEMU_CAPABILITIES: dict[str, Any] = {
    "pgsizes": 4096,
    "max_msg_fds": 16,
    "max_dma_maps": 65535,
    "max_data_xfer_size": 1048576,
    "migration": {"max_bitmap_size": 268435456, "pgsize": 4096},
    "write_multiple": True,
}
"""What QEMU 11.1 proposes in VERSION."""

_DEFAULTS = {"pgsizes": 4096, "max_msg_fds": 8, "max_dma_maps": 65535, "max_data_xfer_size": 1048576}
_LIMITS = {  # lowest, highest, multiple of: what QEMU accepts
    "pgsizes": (4096, 1 << 63, 4096),
    "max_msg_fds": (0, 16, 1),
    "max_dma_maps": (0, 65535, 1),
    "max_data_xfer_size": (4096, 64 << 20, 1),
}
_VERSION = struct.Struct("<HH")
_DEVICE_INFO = struct.Struct("<IIII")
_DMA_MAP = struct.Struct("<IIQQQ")
_DMA_UNMAP = struct.Struct("<IIQQ")
_DMA_ACCESS = struct.Struct("<QQ")


@dataclass(frozen=True)
class GuestRam:
    """Memory that the device may access: `memory` holds the bytes at guest-physical `iova`.

    With `shared` the server maps it; else it asks for every access by message.
    """

    iova: int
    size: int
    memory: memoryview
    shared: bool
    readable: bool = True
    writable: bool = True


@dataclass
class Client:
    """A connection to a served device; made by `Client.connect`.

    Attributes:
        capabilities: what the server answered in VERSION, with the protocol's defaults for what it omitted.
        flags: device flags of DEVICE_GET_INFO.
        regions: regions 0 to 7; `bars` are the first six, `config` is number 7 with helpers.
        irqs: all kinds of interrupts by index; `intx`, `msi`, `msix` are the first three.
        memories: the memory added so far.
    """

    link: Link
    capabilities: dict[str, Any]
    flags: int = 0
    regions: list[ClientRegion] = field(default_factory=list)
    irqs: dict[int, ClientInterrupts] = field(default_factory=dict)
    memories: list[GuestRam] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: str | Path, *, capabilities: dict[str, Any] | None = None) -> AsyncIterator[Client]:
        """Connects, negotiates and reads the device's description in QEMU's order; disconnects at the end.

        Args:
            path: the server's socket.
            capabilities: proposed in VERSION instead of `QEMU_CAPABILITIES`.

        Raises:
            OSError: the socket is absent or refuses.
            ConnectionError: the server is busy with another client, or left.
            ProtocolError: it answered what a client must not accept.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except BaseException:
            sock.close()
            raise
        memories: list[GuestRam] = []
        link = Link(sock, lambda request: _serve_dma(link, memories, request))
        client = cls(link, {}, memories=memories)
        try:
            await client._negotiate(QEMU_CAPABILITIES if capabilities is None else capabilities)
            await client._discover()
            yield client
        finally:
            client._close()

    @property
    def bars(self) -> list[ClientRegion]:
        """BARs 0 to 5."""
        return self.regions[:6]

    @property
    def config(self) -> ConfigSpace:
        """Config space (region 7)."""
        return ConfigSpace(self.link, self.regions[7], self.irqs, self.capabilities["max_msg_fds"])

    @property
    def intx(self) -> ClientInterrupts:
        """The INTx line: `enable`, wait for vector 0, `unmask` as end of interrupt."""
        return self.irqs[0]

    @property
    def msi(self) -> ClientInterrupts:
        """MSI vectors; enable them with `config.enable_msi`."""
        return self.irqs[1]

    @property
    def msix(self) -> ClientInterrupts:
        """MSI-X vectors; enable them with `config.enable_msix`."""
        return self.irqs[2]

    def mapped(self, bar: int, area: int = 0) -> memoryview:
        """The bytes of a BAR's mapped area, the first one by default; a store there is no message."""
        areas = self.regions[bar].areas
        if area >= len(areas):
            raise LookupError(f"BAR {bar} must have a mapped area {area}, and has {len(areas)}")
        return areas[area].memory

    async def write_multi(self, writes: Iterable[tuple[int, int, bytes]]) -> None:
        """Sends writes of 1 to 8 bytes, (BAR, offset, data), in REGION_WRITE_MULTI messages, which have no reply."""
        await write_multi(self.link, ((self.regions[index], offset, data) for index, offset, data in writes))

    async def reset(self) -> None:
        """Resets the device (DEVICE_RESET)."""
        await self.link.request(wire.Command.DEVICE_RESET)

    async def add_memory(
        self, iova: int, size: int, *, shared: bool = True, readable: bool = True, writable: bool = True
    ) -> GuestRam:
        """Gives the device `size` bytes of zeroed memory at guest-physical address `iova`.

        Args:
            iova: address, a multiple of 4096.
            size: bytes, a multiple of 4096.
            shared: the server gets a file descriptor to map; else it has to ask by DMA_READ and DMA_WRITE.
            readable: the device may read.
            writable: the device may write.
        """
        fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC) if shared else -1
        try:
            if shared:
                os.truncate(fd, size)
            memory = memoryview(mmap.mmap(fd, size) if shared else bytearray(size))
            ram = GuestRam(iova, size, memory, shared, readable, writable)
            # Before the request: a server may ask for memory as soon as it knows of it.
            self.memories.append(ram)
            body = _DMA_MAP.pack(_DMA_MAP.size, readable | writable << 1, 0, iova, size)
            try:
                await self.link.request(wire.Command.DMA_MAP, body, [fd] if shared else [])
            except BaseException:
                self.memories.remove(ram)
                raise
            return ram
        finally:
            if shared:
                os.close(fd)

    async def remove_memory(self, ram: GuestRam) -> None:
        """Takes memory back from the device; its bytes stay readable here."""
        body = _DMA_UNMAP.pack(_DMA_UNMAP.size, 0, ram.iova, ram.size)
        reply = await self.link.request(wire.Command.DMA_UNMAP, body)
        if reply.body != body:
            raise ProtocolError("a reply to DMA_UNMAP must repeat the request")
        self.memories.remove(ram)

    async def remove_all_memory(self) -> None:
        """Takes all memory back in one request (UNMAP ALL)."""
        await self.link.request(wire.Command.DMA_UNMAP, _DMA_UNMAP.pack(_DMA_UNMAP.size, 2, 0, 0))
        self.memories.clear()

    async def _negotiate(self, proposal: dict[str, Any]) -> None:
        text = json.dumps({"capabilities": proposal}).encode() + b"\0"
        try:
            reply = await self.link.request(wire.Command.VERSION, _VERSION.pack(0, 0) + text)
        except VfioUserError as error:
            if error.errno != errno.EBUSY:
                raise
            raise ConnectionRefusedError("the server must be free, not busy with another client") from error
        if len(reply.body) < _VERSION.size or _VERSION.unpack_from(reply.body) != (0, 0):
            offered = ".".join(str(part) for (part,) in struct.iter_unpack("<H", reply.body[:4]))
            raise ProtocolError(f"the version must be 0.0, not {offered}")
        answer = reply.body[_VERSION.size :]
        if len(answer) > len(text):
            raise ProtocolError(f"the server's JSON must be of at most {len(text)} bytes, not {len(answer)}")
        try:
            granted = json.loads(answer.removesuffix(b"\0") or b"{}").get("capabilities", {})
        except (ValueError, AttributeError) as error:
            raise ProtocolError(f"the server's VERSION must be JSON with capabilities, not {answer!r}") from error
        self.capabilities = {**_DEFAULTS, **granted}
        for name, (low, high, step) in _LIMITS.items():
            value = self.capabilities[name]
            if not isinstance(value, int) or not low <= value <= high or value % step:
                bounds = f"{low} to {high}" if step == 1 else f"a multiple of {step}"
                raise ProtocolError(f"{name} must be {bounds}, not {value}")

    async def _discover(self) -> None:
        reply = await self.link.request(wire.Command.DEVICE_GET_INFO, _DEVICE_INFO.pack(_DEVICE_INFO.size, 0, 0, 0))
        _, self.flags, regions, irqs = _DEVICE_INFO.unpack(reply.body)
        if not 8 <= regions <= 100 or not 3 <= irqs <= 50:
            raise ProtocolError(f"a PCI device must have 8 to 100 regions and 3 to 50 irqs, not {regions} and {irqs}")
        for index in range(8):  # nobody asks for 8, VGA
            region = await ClientRegion.query(self.link, index, self.capabilities["max_data_xfer_size"])
            self.regions.append(region)
        for index in range(irqs):
            self.irqs[index] = await ClientInterrupts.query(self.link, index, self.capabilities["max_msg_fds"])

    def _close(self) -> None:
        self.link.close()
        for region in self.regions:
            region.close()
        for interrupts in self.irqs.values():
            interrupts.close()
        self.memories.clear()


def _serve_dma(link: Link, memories: list[GuestRam], request: Message) -> None:
    """Answers the server's DMA_READ and DMA_WRITE out of the memory that was added."""
    reply = _dma(memories, request)
    if request.flags & wire.NO_REPLY:
        return
    if isinstance(reply, int):
        link.send(wire.HEADER.pack(request.id, request.command, wire.HEADER.size, wire.REPLY | wire.ERROR, reply))
    else:
        size = wire.HEADER.size + len(reply)
        link.send(wire.HEADER.pack(request.id, request.command, size, wire.REPLY, 0) + reply)


def _dma(memories: list[GuestRam], request: Message) -> bytes | int:
    """The reply's body, or an errno."""
    if request.command not in (wire.Command.DMA_READ, wire.Command.DMA_WRITE):
        return errno.EINVAL
    if len(request.body) < _DMA_ACCESS.size:
        return errno.EINVAL
    address, count = _DMA_ACCESS.unpack_from(request.body)
    data = request.body[_DMA_ACCESS.size :]
    for ram in memories:
        if ram.iova <= address and address + count <= ram.iova + ram.size:
            start = address - ram.iova
            if request.command == wire.Command.DMA_READ and ram.readable and not data:
                return request.body + bytes(ram.memory[start : start + count])
            if request.command == wire.Command.DMA_WRITE and ram.writable and len(data) == count:
                ram.memory[start : start + count] = data
                return _DMA_ACCESS.pack(address, count)
            return errno.EINVAL
    return errno.EFAULT
