"""What a device says of itself: the replies to DEVICE_GET_INFO, DEVICE_GET_REGION_INFO and DEVICE_GET_IRQ_INFO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from . import wire
from .interrupts import Interrupts
from .regions import Region
from .wire import Command, DeviceFlag, IrqIndex, RegionFlag, RegionIndex


class Description(NamedTuple):
    """How `command` is answered, by `full` and perhaps `fd` when its argsz has room, else by `brief`.

    `about` is the index of the region or of the kind of interrupts, 0 for the device.
    """

    command: Command
    about: int
    brief: bytes
    full: bytes
    fd: int | None = None


def describe(regions: Mapping[int, Region], interrupts: Interrupts) -> Iterator[Description]:
    """All that can be asked of a device with these regions and interrupts."""
    flags = DeviceFlag.PCI | DeviceFlag.RESET
    info = wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, flags, wire.NUM_REGIONS, wire.NUM_IRQS)
    yield Description(Command.DEVICE_GET_INFO, 0, info, info)
    for index in range(wire.NUM_REGIONS):
        yield _region(index, regions.get(index))
    for kind in IrqIndex:
        info = wire.IRQ_INFO.pack(wire.IRQ_INFO.size, interrupts.flags(kind), kind, interrupts.counts[kind])
        yield Description(Command.DEVICE_GET_IRQ_INFO, kind, info, info)


def _region(index: int, region: Region | None) -> Description:
    """The areas that can be mapped, and their file, come only when there is room for them all: QEMU asks again."""
    if region is None:
        info = wire.REGION_INFO.pack(wire.REGION_INFO.size, 0, index, 0, 0, 0)
        return Description(Command.DEVICE_GET_REGION_INFO, index, info, info)
    flags = RegionFlag.READ if index == RegionIndex.ROM else RegionFlag.READ | RegionFlag.WRITE
    if not region.mapped:
        info = wire.REGION_INFO.pack(wire.REGION_INFO.size, flags, index, 0, region.size, 0)
        return Description(Command.DEVICE_GET_REGION_INFO, index, info, info)
    flags |= RegionFlag.MMAP
    areas = wire.SPARSE_MMAP.pack(wire.CAP_SPARSE_MMAP, 1, 0, len(region.mapped), 0)
    areas += b"".join(wire.SPARSE_AREA.pack(*area) for area in region.mapped)
    needed = wire.REGION_INFO.size + len(areas)
    brief = wire.REGION_INFO.pack(needed, flags, index, 0, region.size, 0)
    full = wire.REGION_INFO.pack(needed, flags | RegionFlag.CAPS, index, wire.REGION_INFO.size, region.size, 0)
    return Description(Command.DEVICE_GET_REGION_INFO, index, brief, full + areas, region.fd)
