"""Memory that processors reach coherently: what the kernel's driver for GH200, nvgrace-gpu, takes for its GPU.

BAR 0 has the two registers that the driver waits for. The memory is a BAR here; the driver looks for it where the
firmware says (`nvidia,gpu-mem-base-pa`), cuts 1 GiB off its end for `resmem` and shows the rest as `usemem`.
"""

from __future__ import annotations

from ..bridge.config_image import PciId
from .bar import Bar, MiB
from .device import Device
from .registers import RO, Register, Registers
from .windows import Memory

VENDOR = 0x10DE
DEVICE = 0x2342
SIZE = 2048 * MiB
"""Of the BAR; nothing of it takes memory before it is written."""
LENGTH = 1536 * MiB
"""Of the memory, for the firmware to say."""
USEMEM = 512 * MiB
"""How much of it is `usemem`; the rest is `resmem`."""
_READY = 0xFF


class Status(Registers):
    """What the driver polls."""

    c2c_link = Register(0x1498, access=RO, reset=_READY)
    hbm_training = Register(0x200BC, access=RO, reset=_READY)


class CoherentMemory(Device):
    """The device: ready at once."""

    identity = PciId(vendor=VENDOR, device=DEVICE, class_code=0x030200)
    bar0 = Bar(Status, size=0x40000)
    bar2 = Bar(Memory(SIZE, mapped=True), size=SIZE, bits=64, prefetchable=True)
