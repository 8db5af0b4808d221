"""A served kind of device without a server: accesses done in process, by the same rules in C and the same handlers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from .endpoint import HasEndpoint
from .errors import DefinitionError
from .hotpath._native import ffi, lib
from .regions import Hook, Region
from .stream import BAR_CONFIG
from .wire import DmaFlag, RegionIndex

_COMMAND = 0x04
_MEMORY_AND_MASTER = b"\x06\x00"
_STEPS = 1000


class Direct:
    """Accesses to a device's regions as a client's are done, with the same handlers, in the event loop that runs.

    A bar of 0xfe is the configuration space. Doorbells ring within the write; `async` handlers begin then.
    """

    def __init__(self, device: HasEndpoint) -> None:
        self._endpoint = device.endpoint

    def write(self, bar: int, offset: int, data: bytes) -> None:
        """A write. Raises DefinitionError for bytes that are not there."""
        region = self._region(bar)
        for hook, at, size in _parts(region, offset, len(data)):
            piece = data[at - offset : at - offset + size]
            _apply(region, at, ffi.from_buffer(piece), size, True)
            if hook is None:
                continue
            if hook.ring is not None:
                held = bytes(region.memory[hook.offset : hook.offset + hook.length])
                value = int.from_bytes(held, "little")
                self._handle(hook, value, hook.ring, value)
            elif hook.on_write is not None:
                value = int.from_bytes(piece, "little")
                self._handle(hook, value, hook.on_write, at - hook.offset, size, value)

    def read(self, bar: int, offset: int, size: int) -> bytes:
        """A read. Raises DefinitionError for bytes that are not there."""
        region = self._region(bar)
        found = b""
        for hook, at, length in _parts(region, offset, size):
            if hook is not None and hook.on_read is not None:
                value = self._handle(hook, None, hook.on_read, at - hook.offset, length)
                if value is not None:
                    region.memory[hook.offset : hook.offset + hook.length] = value.to_bytes(hook.length, "little")
            buffer = bytearray(length)
            _apply(region, at, ffi.from_buffer(buffer), length, False)
            found += buffer
        return found

    def _region(self, bar: int) -> Region:
        index = RegionIndex.CONFIG if bar == BAR_CONFIG else bar
        if index not in self._endpoint.regions:
            raise DefinitionError(f"bar must be one of the device's, not {bar}")
        return self._endpoint.regions[index]

    def _handle(self, hook: Hook, value: int | None, handler: Callable[..., Any], *arguments: int) -> Any:
        observer = self._endpoint.observer
        if observer is None:
            return self._call(handler, *arguments)
        with observer.handler(hook.name, value):
            return self._call(handler, *arguments)

    def _call(self, handler: Callable[..., Any], *arguments: int) -> Any:
        return handler(*arguments)


class InProcess(Direct):
    """Accesses to a device's BARs as a client's are done; doorbells ring, and `async` handlers end, within the write.

    `ram` are ranges of guest-physical memory that the device reaches by DMA; a write of bar None goes there. Handlers
    that raise, raise here, but for `async` ones, which are logged. It has an event loop of its own, so it cannot be
    used where one runs. Interrupts go nowhere. To be closed, or used as a context manager::

        with InProcess(Upcase(), ram=[range(0x4000_0000, 0x4000_1000)]) as device:
            explore(program, device.restarted, [...]).assert_holds()
    """

    def __init__(self, device: HasEndpoint, ram: Sequence[range] = ()) -> None:
        super().__init__(device)
        self.device = device
        self._memory = [(region, bytes(region.memory)) for region in self._endpoint.regions.values()]
        self._ram = [_Ram(each) for each in ram]
        self._loop = asyncio.new_event_loop()
        for each in self._ram:
            self._endpoint.memory.map(each.range.start, len(each.range), DmaFlag.READ | DmaFlag.WRITE, each.fd, 0)
        self.restart()

    def __enter__(self) -> InProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the RAM and the event loop."""
        self._endpoint.memory.disconnect()
        for each in self._ram:
            each.close()
        self._ram = []
        self._loop.close()

    def restart(self) -> None:
        """A reset, memory as it was at first, RAM all zeros; then memory space and bus mastering are enabled."""
        for region, content in self._memory:
            region.memory[:] = content
        for each in self._ram:
            each.clear()
        self._endpoint.reset()
        self.write(BAR_CONFIG, _COMMAND, _MEMORY_AND_MASTER)

    def restarted(self) -> InProcess:
        """Restart it; what explorations begin each behaviour with."""
        self.restart()
        return self

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        """A write to a BAR, the configuration space (0xfe) or RAM (None). Raises DefinitionError for no such bytes."""
        if bar is None:
            self._ram_at(offset, len(data)).write(offset, data)
        else:
            super().write(bar, offset, data)

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        """A read of a BAR, the configuration space (0xfe) or RAM (None). Raises DefinitionError for no such bytes."""
        return self._ram_at(offset, size).read(offset, size) if bar is None else super().read(bar, offset, size)

    def _ram_at(self, address: int, size: int) -> _Ram:
        for each in self._ram:
            if address in each.range and address + size <= each.range.stop:
                return each
        raise DefinitionError(f"RAM must be given for the {size} bytes at {address:#x}, not left out")

    def _call(self, handler: Callable[..., Any], *arguments: int) -> Any:
        return self._loop.run_until_complete(_called(handler, *arguments))


class _Ram:
    """A range of guest memory, in a memfd."""

    def __init__(self, addresses: range) -> None:
        self.range = addresses
        self.fd = os.memfd_create("pyvfio-user-ram", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, len(addresses))

    def close(self) -> None:
        os.close(self.fd)

    def clear(self) -> None:
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, len(self.range))

    def write(self, address: int, data: bytes) -> None:
        os.pwrite(self.fd, data, address - self.range.start)

    def read(self, address: int, size: int) -> bytes:
        return os.pread(self.fd, size, address - self.range.start)


async def _called(handler: Callable[..., Any], *arguments: int) -> Any:
    """Call a handler, and have the tasks that it starts done."""
    found = handler(*arguments)
    for _ in range(_STEPS):
        if len(asyncio.all_tasks()) == 1:
            return found
        await asyncio.sleep(0)
    raise DefinitionError("a handler must end by itself in process, not wait for a client or for time")


def _apply(region: Region, offset: int, data: Any, size: int, write: bool) -> None:
    if lib.pvu_region_apply(region.native, offset, data, size, write) < 0:
        raise DefinitionError(f"accesses must lie in the region's {region.size:#x} bytes, not {size} at {offset:#x}")


def _parts(region: Region, offset: int, size: int) -> list[tuple[Hook | None, int, int]]:
    """The access as parts that one hook, or none, is about: (hook, offset, size)."""
    found: list[tuple[Hook | None, int, int]] = []
    at, end = offset, offset + size
    for hook in region.hooks_in(offset, size):
        if at < hook.offset:
            found.append((None, at, hook.offset - at))
            at = hook.offset
        until = min(end, hook.offset + hook.length)
        found.append((hook, at, until - at))
        at = until
    if at < end:
        found.append((None, at, end - at))
    return found
