"""Which interrupts a device can raise, and how it raises them.

A device class declares what it has. Which of them the guest enabled is known only at run time:
`self.interrupts.fire(vector)` uses that one, `self.msix[vector].fire()` only MSI-X.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, overload

from ..bridge.config_image import MsixShape
from ..bridge.errors import DefinitionError, check_integer
from ..bridge.regions import Region, Rules
from .piece import Area

if TYPE_CHECKING:
    from ..bridge.interrupts import Interrupts
    from .bar import Bar
    from .device import Device


class Vector:
    """One message-signalled interrupt of a device."""

    def __init__(self, interrupts: Interrupts, kind: str, index: int) -> None:
        self._interrupts = interrupts
        self._kind = kind
        self.index = index

    def fire(self) -> bool:
        """Send it; False when the guest did not enable this kind of interrupt, and nothing was sent."""
        return self._interrupts.mode == self._kind and self._interrupts.fire(self.index)


class Vectors:
    """The vectors of one kind of a device: `self.msix[2].fire()`."""

    def __init__(self, interrupts: Interrupts, kind: str, count: int) -> None:
        self._vectors = tuple(Vector(interrupts, kind, index) for index in range(count))
        self._kind = kind

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, index: int) -> Vector:
        if not 0 <= index < len(self._vectors):
            raise IndexError(f"{self._kind} vector must be 0 to {len(self._vectors) - 1}, not {index}")
        return self._vectors[index]


class _Declared:
    """An interrupt capability of a device class; of a device object it is its vectors."""

    kind: str

    def __init__(self, vectors: int) -> None:
        self.vectors = vectors

    @overload
    def __get__(self, device: None, owner: type) -> Self: ...
    @overload
    def __get__(self, device: Device, owner: type) -> Vectors: ...
    def __get__(self, device: Device | None, owner: type) -> Self | Vectors:
        return self if device is None else Vectors(device.interrupts, self.kind, self.vectors)


class Msi(_Declared):
    """MSI with a 64-bit address: `vectors` is 1, 2, 4, 8, 16 or 32."""

    kind = "msi"

    def __init__(self, vectors: int = 1) -> None:
        if vectors not in (1, 2, 4, 8, 16, 32):
            raise DefinitionError(f"vectors of Msi must be a power of two up to 32, not {vectors!r}")
        super().__init__(vectors)


class MsiX(_Declared):
    """MSI-X with 1 to 2048 vectors.

    `table` and `pba` are the offsets in `bar` of the vector table, 16 bytes a vector, and of the pending bits, 8 bytes
    for 64 vectors; by default the pending bits follow the table. Without a `bar` they get the first free one to
    themselves.
    """

    kind = "msix"

    def __init__(self, vectors: int, *, bar: Bar[Any] | None = None, table: int = 0, pba: int | None = None) -> None:
        check_integer("vectors of MsiX", vectors)
        if not 1 <= vectors <= 2048:
            raise DefinitionError(f"vectors of MsiX must be 1 to 2048, not {vectors}")
        super().__init__(vectors)
        check_integer("table of MsiX", table)
        if pba is not None:
            check_integer("pba of MsiX", pba)
        self.bar = bar
        self.table = table
        self.pba = table + 16 * vectors if pba is None else pba

    def __str__(self) -> str:
        return "MsiX"

    def areas(self) -> list[Area]:
        """Where the table and the pending bits lie in the BAR."""
        return [
            Area("the MSI-X table", self.table, 16 * self.vectors),
            Area("the MSI-X PBA", self.pba, (self.vectors + 63) // 64 * 8),
        ]

    def check(self) -> None:
        """Raise `DefinitionError` when an offset cannot be told in the capability (PCIe 7.7.2.3)."""
        for area in self.areas():
            if area.offset % 8:
                raise DefinitionError(f"offset of {area.name} must be a multiple of 8, not {area.offset:#x}")

    def shape(self, bar: int) -> MsixShape:
        """The capability, with table and pending bits in BAR `bar`."""
        return MsixShape(self.vectors, bar, self.table, bar, self.pba)


class Intx:
    """The legacy interrupt pin, INTA."""


def install_msix(shape: MsixShape, regions: Mapping[int, Region]) -> tuple[Region, int]:
    """Add vector table and pending bits to the regions of their BARs; where the pending bits are.

    QEMU keeps the table itself and never asks for it; a client that does finds plain storage, each vector masked (PCIe
    7.7.2.5). Nothing here obeys it: whether a vector is masked only the client knows.
    """
    vector = bytes.fromhex("00000000000000000000000001000000")
    writable = bytes.fromhex("fcffffffffffffffffffffff01000000")
    none = bytes(len(vector) * shape.vectors)
    rules = Rules(vector * shape.vectors, writable * shape.vectors, none, none, none)
    regions[shape.table_bar].add_registers(shape.table_offset, rules)
    pending = bytes((shape.vectors + 63) // 64 * 8)
    regions[shape.pba_bar].add_registers(shape.pba_offset, Rules(pending, pending, pending, pending, pending))
    return regions[shape.pba_bar], shape.pba_offset
