"""The config space of a device at work: the region that C serves, and the few bits that Python acts on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .config_image import (
    COMMAND,
    COMMAND_BUS_MASTER,
    COMMAND_INTX_DISABLE,
    COMMAND_MEMORY,
    DEVICE_CONTROL_FLR,
    SIZE,
    STATUS,
    STATUS_INTERRUPT,
    BarShape,
    ConfigImage,
    MsixShape,
    PciId,
)
from .regions import Region


class ConfigSpace:
    """A type-0 config space of 4096 bytes: header, PM, MSI, MSI-X and PCI Express capabilities.

    `msi` is the number of MSI vectors, `rom` the bytes of the expansion ROM, 0 for none. `changed` is called after
    each write to the space; `function_reset` when the guest asks for a function-level reset (PCIe 6.6.2), instead.
    Reads never reach Python.
    """

    def __init__(
        self,
        identity: PciId,
        bars: Iterable[BarShape],
        *,
        intx: bool,
        msi: int,
        msix: MsixShape | None,
        rom: int = 0,
        changed: Callable[[], None],
        function_reset: Callable[[], None],
    ) -> None:
        image = ConfigImage()
        image.header(identity, bars, interrupt_pin=1 if intx else 0, rom=rom)
        self._power = image.power_management() + 4
        if msi:
            image.msi(msi)
        if msix is not None:
            image.msix(msix)
        self._device_control = image.express() + 8
        self._changed = changed
        self._function_reset = function_reset
        self.region = Region(SIZE)
        self.region.add_registers(0, image.rules(), on_write=self._written, name="config space")

    @property
    def memory_enabled(self) -> bool:
        """May the guest access the BARs? (COMMAND, memory space enable)"""
        return self._register(COMMAND) & COMMAND_MEMORY != 0 and self.power_state == 0

    @property
    def bus_master(self) -> bool:
        """May the device do DMA and send MSI and MSI-X? Only in D0 (PM 1.2, 5.4.1)."""
        return self._register(COMMAND) & COMMAND_BUS_MASTER != 0 and self.power_state == 0

    @property
    def intx_disabled(self) -> bool:
        """Did the guest forbid INTx? (COMMAND, interrupt disable)"""
        return self._register(COMMAND) & COMMAND_INTX_DISABLE != 0

    @property
    def power_state(self) -> int:
        """The D-state in PMCSR: 0 is D0, 3 is D3hot."""
        return self._register(self._power) & 3

    @property
    def interrupt_status(self) -> bool:
        """Is INTx asserted inside the device, whether it is disabled or not? (STATUS, interrupt status)"""
        return self._register(STATUS) & STATUS_INTERRUPT != 0

    def set_interrupt_status(self, asserted: bool) -> None:
        """Say in STATUS whether INTx is asserted."""
        status = self._register(STATUS) & ~STATUS_INTERRUPT
        self._set_register(STATUS, status | (STATUS_INTERRUPT if asserted else 0))

    def _register(self, offset: int) -> int:
        return int.from_bytes(self.region.memory[offset : offset + 2], "little")

    def _set_register(self, offset: int, value: int) -> None:
        self.region.memory[offset : offset + 2] = value.to_bytes(2, "little")

    def _written(self, offset: int, size: int, value: int) -> None:
        control = self._register(self._device_control)
        if control & DEVICE_CONTROL_FLR:
            self._set_register(self._device_control, control & ~DEVICE_CONTROL_FLR)
            self._function_reset()
        else:
            self._changed()
