"""PCIe devices in Python: the kit to declare them with, and those that ship."""

from __future__ import annotations

from ..bridge.config_image import PciId
from ..bridge.dma import DmaError, SegmentList
from ..bridge.errors import DefinitionError
from .bar import Bar, GiB, KiB, MiB
from .device import Device
from .doorbell import Doorbell
from .interrupts import Intx, Msi, MsiX
from .registers import ONCE, RC, RO, RW, W1C, Access, Field, Register, Registers
from .rom import Rom
from .windows import Memory, WriteCombineWindow

__all__ = [
    "ONCE",
    "RC",
    "RO",
    "RW",
    "W1C",
    "Access",
    "Bar",
    "DefinitionError",
    "Device",
    "DmaError",
    "Doorbell",
    "Field",
    "GiB",
    "Intx",
    "KiB",
    "Memory",
    "MiB",
    "Msi",
    "MsiX",
    "PciId",
    "Register",
    "Registers",
    "Rom",
    "SegmentList",
    "WriteCombineWindow",
]
