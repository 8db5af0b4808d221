"""As much of an Elastic Network Adapter as Linux' driver looks at before it finds the device too old."""

from __future__ import annotations

from pyvfio_user.devices import RO, Bar, Device, KiB, MsiX, PciId, Register, Registers, WriteCombineWindow

READY, RESETTING = 1 << 0, 1 << 3
RESET = 1 << 0


class Control(Registers):
    """The registers of `ena_regs_defs.h` that it uses."""

    version = Register(0x00, access=RO, reset=0x0001_0000)
    controller_version = Register(0x04, access=RO)
    caps = Register(0x08, access=RO, reset=48 << 8 | 10 << 1)
    """48 bits of DMA address; a reset takes at most a second."""
    control = Register(0x54)
    status = Register(0x58, access=RO, reset=READY)


class Ena(Device):
    """Its registers in BAR 0, and in BAR 2 the window for low-latency queues, which the driver maps."""

    identity = PciId(vendor=0x1D0F, device=0xEC20, class_code=0x020000, revision=1)
    bar0 = Bar(Control, size=16 * KiB)
    bar2 = Bar(WriteCombineWindow(64 * KiB), prefetchable=True)
    msix = MsiX(2)

    @Control.control.on_write
    def reset(self, value: int) -> None:
        self.bar0.status = READY | (RESETTING if value & RESET else 0)
