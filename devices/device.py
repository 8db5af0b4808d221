"""The base of all devices: from a class's declarations to regions that the hot path serves."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, cast

from ..bridge.config_image import PciId
from ..bridge.config_space import ConfigSpace
from ..bridge.dma import GuestMemory
from ..bridge.endpoint import Endpoint
from ..bridge.errors import DefinitionError
from ..bridge.interrupts import Interrupts
from ..bridge.regions import Region
from ..bridge.wire import RegionIndex
from .bar import Placed
from .handlers import Handlers
from .interrupts import install_msix
from .layout import BarLayout, Layout, layout_of
from .piece import Piece

Q = TypeVar("Q", bound=Piece)


class Device:
    """A PCI Express endpoint. Subclass it: declare identity, BARs and interrupts, and decorate handlers.

    The class is checked when it is made: `DefinitionError` for what would not work in a guest.
    """

    identity: ClassVar[PciId]
    """Vendor, device and class; a class without one is a base for others."""

    memory: GuestMemory
    """The guest's memory: `await self.memory.read(address, length)`."""

    interrupts: Interrupts
    """`self.interrupts.fire(vector)` raises the kind of interrupt that the guest enabled."""

    config: ConfigSpace
    """The config space, as the guest set it up."""

    endpoint: Endpoint
    """What the bridge serves; `endpoint.recorder` has the transactions of what records."""

    _layout: ClassVar[Layout | None] = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        identity = getattr(cls, "identity", None)
        if not isinstance(identity, PciId | None):
            raise DefinitionError(f"identity of {cls.__name__} must be a PciId, not {identity!r}")
        cls._layout = None if identity is None else layout_of(cls, Device, identity)

    def __init__(self) -> None:
        layout = self._layout
        if layout is None:
            raise DefinitionError(f"identity of {type(self).__name__} must be a PciId, not left out")
        self._handlers = Handlers(self, layout.hooks, lambda: self.endpoint.observer)
        self._pieces: dict[Placed[Any], Piece] = {}
        regions: dict[int, Region] = {bar.shape.index: self._build(bar) for bar in layout.bars}
        pba = None
        if layout.msix is not None:
            pba = install_msix(layout.msix, regions)
        self.interrupts = Interrupts(
            intx=layout.intx, msi=layout.msi, msix=layout.msix.vectors if layout.msix else 0, pba=pba
        )
        self.config = ConfigSpace(
            layout.identity,
            [bar.shape for bar in layout.bars],
            intx=layout.intx,
            msi=layout.msi,
            msix=layout.msix,
            rom=layout.rom.size if layout.rom else 0,
            changed=self._config_changed,
            function_reset=self._function_reset,
        )
        regions[RegionIndex.CONFIG] = self.config.region
        if layout.rom is not None:
            regions[RegionIndex.ROM] = layout.rom.region()
        self.interrupts.on_intx_status = self.config.set_interrupt_status
        self.memory = GuestMemory()
        self.endpoint = Endpoint(
            regions,
            self.interrupts,
            self.memory,
            on_reset=self._reset,
            on_disconnect=self._function_reset,
            name=type(self).__name__,
        )
        self._config_changed()

    def on_reset(self) -> None:
        """Override to forget what the device keeps besides its registers.

        Called after a reset, whatever its cause: by the client, by the guest (function-level reset), or because the
        client left; not when the device is made, which is `__init__`'s. Registers have their reset values again,
        handler tasks were cancelled, INTx is deasserted; windows and memory keep their contents.
        """

    def piece(self, placed: Placed[Q]) -> Q:
        """The device's own piece of what its class declares; reading the attribute is the same."""
        return cast(Q, self._pieces[placed])

    def _build(self, bar: BarLayout) -> Region:
        region = Region(bar.shape.size, mapped=bar.mapped)
        for placed in bar.placed:
            self._pieces[placed] = placed.piece.attach(region, placed.offset, self._handlers)
        return region

    def _config_changed(self) -> None:
        self.memory.bus_master = self.interrupts.bus_master = self.config.bus_master
        self.interrupts.intx_disabled = self.config.intx_disabled
        self._handlers.poll(self.config.memory_enabled)

    def _function_reset(self) -> None:
        self.endpoint.reset()

    def _reset(self) -> None:
        self._handlers.reset()
        for region in self.endpoint.regions.values():
            region.reset()
        self._config_changed()
        self.on_reset()
