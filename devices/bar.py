"""BARs, and what lies where in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from ..bridge.errors import DefinitionError, check_integer
from .piece import Area, Piece
from .registers import Registers

if TYPE_CHECKING:
    from .device import Device

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

P = TypeVar("P", bound="Piece | None")
Q = TypeVar("Q", bound=Piece)
R = TypeVar("R", bound=Registers)

_NAMES = {f"bar{index}": index for index in range(6)}


class Placed(Generic[Q]):
    """A piece at an offset of a BAR; made by `Bar.place`. Of a device it is the device's own piece."""

    def __init__(self, bar: Bar[Any], piece: Q, offset: int) -> None:
        self.bar = bar
        self.piece = piece
        self.offset = offset
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, device: None, owner: type) -> Self: ...
    @overload
    def __get__(self, device: Device, owner: type) -> Q: ...
    def __get__(self, device: Device | None, owner: type) -> Self | Q:
        return self if device is None else device.piece(self)

    def __str__(self) -> str:
        return self.name or type(self.piece).__name__

    def check(self) -> None:
        """Raise `DefinitionError` when the offset is not one that the piece can have."""
        if not isinstance(self.piece, Piece):
            raise DefinitionError(f"contents of {self.bar} must be registers, a window or memory, not {self.piece!r}")
        check_integer(f"offset of {self} in {self.bar}", self.offset)
        if self.offset < 0 or self.offset % self.piece.alignment:
            raise DefinitionError(
                f"offset of {self} in {self.bar} must be a multiple of {self.piece.alignment}, not {self.offset:#x}"
            )

    def areas(self) -> Iterator[Area]:
        """The parts of the BAR that the piece takes."""
        for area in self.piece.areas():
            yield area.moved(self.offset)


class Bar(Generic[P]):
    """A memory BAR of a device class, named `bar0` to `bar5` there.

    `contents` lies at its start: `self.bar0` of a device is its own copy of that. More pieces are laid out with
    `place`. `size` is in bytes, a power of two of at least 16, by default that of the contents. A BAR of 64 `bits`
    takes the next index too. Bytes that nothing claims read 0 and ignore writes.
    """

    @overload
    def __init__(
        self: Bar[None], contents: None = None, *, size: int, bits: Literal[32, 64] = 32, prefetchable: bool = False
    ) -> None: ...
    @overload
    def __init__(
        self: Bar[R], contents: type[R], *, size: int, bits: Literal[32, 64] = 32, prefetchable: bool = False
    ) -> None: ...
    @overload
    def __init__(
        self: Bar[Q], contents: Q, *, size: int = 0, bits: Literal[32, 64] = 32, prefetchable: bool = False
    ) -> None: ...
    def __init__(
        self,
        contents: Piece | type[Registers] | None = None,
        *,
        size: int = 0,
        bits: Literal[32, 64] = 32,
        prefetchable: bool = False,
    ) -> None:
        piece = contents() if isinstance(contents, type) else contents
        self.contents = None if piece is None else Placed(self, piece, 0)
        self.size = size or (piece.size if isinstance(piece, Piece) else 0)
        self.bits = bits
        self.prefetchable = prefetchable
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, device: None, owner: type) -> Self: ...
    @overload
    def __get__(self, device: Device, owner: type) -> P: ...
    def __get__(self, device: Device | None, owner: type) -> Any:
        if device is None:
            return self
        return None if self.contents is None else device.piece(self.contents)

    def __str__(self) -> str:
        return self.name or "a BAR"

    @overload
    def place(self, piece: type[R], offset: int) -> Placed[R]: ...
    @overload
    def place(self, piece: Q, offset: int) -> Placed[Q]: ...
    def place(self, piece: Any, offset: int) -> Placed[Any]:
        """Lay a piece out at `offset` bytes; what it is assigned to in the device class is the device's own piece."""
        return Placed(self, piece() if isinstance(piece, type) else piece, offset)

    @property
    def index(self) -> int:
        """Which BAR it is, 0 to 5."""
        return _NAMES[self.name]

    def check(self) -> None:
        """Raise `DefinitionError` when the BAR cannot be one."""
        if self.name not in _NAMES:
            raise DefinitionError(f"name of a BAR must be bar0 to bar5, not {self.name}")
        check_integer(f"size of {self}", self.size)
        if self.size < 16 or self.size & (self.size - 1):
            raise DefinitionError(f"size of {self} must be a power of two of at least 16 bytes, not {self.size}")
        if self.bits not in (32, 64):
            raise DefinitionError(f"bits of {self} must be 32 or 64, not {self.bits!r}")
        if self.bits == 32 and self.size > 2 * GiB:
            raise DefinitionError(f"size of {self} must be at most 2 GiB in a 32-bit BAR, not {self.size}")
        if self.bits == 64 and self.index == 5:
            raise DefinitionError("bar5 must be 32-bit, not 64-bit: no BAR follows it for the upper half")
