"""What a device is to the bridge: its regions, interrupts, and the memory it can reach."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from .descriptions import describe
from .dma import GuestMemory
from .errors import DefinitionError
from .hotpath._native import ffi, lib
from .interrupts import Interrupts
from .observer import Observer
from .recorder import Recorder
from .regions import Hook, Region
from .wire import NUM_REGIONS, RegionIndex


@dataclass
class Endpoint:
    """One PCI function. `regions` by index: BARs 0 to 5, ROM 6, config space 7; those absent have size 0.

    `on_reset` is what a DEVICE_RESET does besides deasserting interrupts: registers to their reset values, and what
    the device itself must forget. `on_leave` is called when a client has left, while its memory and its interrupts can
    still be reached, `on_disconnect` after they were dropped. `name` is what the log calls the device.
    """

    regions: dict[int, Region]
    interrupts: Interrupts = field(default_factory=Interrupts)
    memory: GuestMemory = field(default_factory=GuestMemory)
    recorder: Recorder = field(default_factory=Recorder)
    on_reset: Callable[[], None] | None = None
    on_leave: Callable[[], None] | None = None
    on_disconnect: Callable[[], None] | None = None
    name: str = "device"
    served: bool = field(default=False, init=False)
    """A server has it: its maps and interrupts are one client's."""
    observer: Observer | None = None
    """Who looks on; see `observe`."""

    def __post_init__(self) -> None:
        for index in self.regions:
            if index not in range(NUM_REGIONS):
                raise DefinitionError(f"region must be 0 to {NUM_REGIONS - 1}, not {index}")
        if RegionIndex.CONFIG not in self.regions:
            raise DefinitionError(
                f"regions must have a config space, {RegionIndex.CONFIG:d}, not only {[*self.regions]}"
            )

    def prepare(self) -> None:
        """Makes what C needs of the device, which is then as it is: no span can be added to its regions.

        Raises:
            OSError: why it cannot be made.
        """
        _ = self.native

    def observe(self, observer: Observer | None) -> None:
        """Have an observer told of interrupts, DMA, and the handlers of accesses in process; None: nobody."""
        self.observer = observer
        self.memory.on_moved = None if observer is None else observer.dma
        self.interrupts.on_raised = None if observer is None else observer.interrupt

    def reset(self) -> None:
        """Resets the device, as DEVICE_RESET asks for."""
        self.interrupts.reset()
        if self.on_reset is not None:
            self.on_reset()

    @cached_property
    def hooks(self) -> list[list[Hook]]:
        """Of each region, what Python does about its spans."""
        return [self.regions[n].hooks if n in self.regions else [] for n in range(NUM_REGIONS)]

    @cached_property
    def native(self) -> Any:
        """The device for the hot path: once it was asked for, no span can be added to the regions."""
        regions = {index: region.native for index, region in self.regions.items()}
        native = lib.pvu_device_new(self.recorder.native)
        if not native:
            raise MemoryError("no memory for a device")
        native = ffi.gc(native, lib.pvu_device_free)
        for index, region in regions.items():
            status = lib.pvu_device_set_region(native, index, region)
            if status < 0:
                raise OSError(-status, os.strerror(-status))
        for command, index, brief, full, fd in describe(self.regions, self.interrupts):
            beside = -1 if fd is None else fd
            status = lib.pvu_device_describe(native, command, index, brief, len(brief), full, len(full), beside)
            if status < 0:
                raise OSError(-status, os.strerror(-status))
        return native


class HasEndpoint(Protocol):
    """What can be served: anything with an `endpoint`."""

    @property
    def endpoint(self) -> Endpoint:
        """The function that clients see."""
