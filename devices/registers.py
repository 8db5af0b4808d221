"""Registers of a device: declared once, laid out in a BAR, served by C, decoded when printed.

A block of registers is a class; each register is a line in it. On the device's side a register reads and writes as an
int; what a guest may do with it is its access.

    class Control(Registers):
        version = Register(0x00, access=RO, reset=0x0001_0000)
        enable = Register(0x04)
        status = Register(0x08, access=W1C)
        done = Field(status, 0)
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

from ..bridge.errors import DefinitionError, check_integer
from ..bridge.regions import Rules
from .element import Element
from .handlers import ReadHandlerT, WriteHandlerT, attach_handler
from .piece import Area, Piece, check_areas

if TYPE_CHECKING:
    from ..bridge.regions import Region
    from .handlers import Handlers


class Access(Enum):
    """What a guest's accesses do to a register's bits; the device itself may always read and set them."""

    RO = "read-only: writes are ignored"
    RW = "read and write"
    W1C = "write one to clear: a one clears the bit, a zero leaves it"
    RC = "read to clear: a read returns the bits, then clears them; writes are ignored"
    ONCE = "write once: the first write to a byte sticks until reset"


RO, RW, W1C, RC, ONCE = Access.RO, Access.RW, Access.W1C, Access.RC, Access.ONCE


def _check_access(what: object, access: object) -> None:
    if not isinstance(access, Access):
        raise DefinitionError(f"access of {what} must be RO, RW, W1C, RC or ONCE, not {access!r}")


class Register(Element):
    """A register of 1, 2, 4 or 8 bytes at `offset` in its block, a multiple of its width.

    `reset` is its value after a reset. Bits in `reserved` keep that value whatever a guest writes. `record=True` puts
    every access into the device's recorder.
    """

    def __init__(
        self,
        offset: int,
        *,
        access: Access = RW,
        reset: int = 0,
        width: int = 4,
        reserved: int = 0,
        record: bool = False,
    ) -> None:
        super().__init__(offset, width=width)
        self.access = access
        self.reset = reset
        self.reserved = reserved
        self.record = record
        self.fields: list[Field] = []

    @overload
    def __get__(self, block: None, owner: type) -> Self: ...
    @overload
    def __get__(self, block: Registers, owner: type) -> int: ...
    def __get__(self, block: Registers | None, owner: type) -> Self | int:
        if block is None:
            return self
        return int.from_bytes(block.memory[self.offset : self.offset + self.width], "little")

    def __set__(self, block: Registers, value: int) -> None:
        if not 0 <= value <= self._ones:
            raise ValueError(f"{self} must be an integer of {8 * self.width} bits, not {value:#x}")
        block.memory[self.offset : self.offset + self.width] = value.to_bytes(self.width, "little")

    def on_write(self, handler: WriteHandlerT) -> WriteHandlerT:
        """Call the decorated method of a device, `(self, value)`, after each guest write to this register.

        For bits that keep what is written, `value` is what they hold now; for the others (W1C, RO, RC) it is what the
        write carried, zero in bytes it did not reach. A plain method runs before the access is answered; an `async`
        one runs as a task, one call after another in the order of the writes.
        """
        return attach_handler(handler, self, "write")

    def on_read(self, handler: ReadHandlerT) -> ReadHandlerT:
        """Call the decorated method of a device, `(self) -> int`, for the value each guest read of this register finds.

        The access is answered with it, so the method must be plain: `DefinitionError` for an `async` one.
        """
        return attach_handler(handler, self, "read")

    @property
    def _ones(self) -> int:
        return (1 << 8 * self.width) - 1

    def bits(self, access: Access) -> int:
        """The register's bits that have this access, as a mask; reserved bits have none."""
        special = 0
        mask = 0
        for field in self.fields:
            if field.access is not None:
                special |= field.mask
                mask |= field.mask if field.access is access else 0
        if self.access is access:
            mask |= self._ones & ~special
        return mask & ~self.reserved

    def areas(self) -> Iterator[Area]:
        """Where the register lies in its block."""
        yield Area(str(self), self.offset, self.width, read_side_effects=self.bits(RC) != 0)

    def check(self) -> None:
        """Raise `DefinitionError` when a value or a field does not fit into the register."""
        super().check()
        bits = 8 * self.width
        _check_access(self, self.access)
        for what, value in (("reset", self.reset), ("reserved bits", self.reserved)):
            check_integer(f"{what} of {self}", value)
            if not 0 <= value <= self._ones:
                raise DefinitionError(f"{what} of {self} must fit in {bits} bits, not {value:#x}")
        taken: dict[int, Field] = {}
        for field in self.fields:
            for what, value in (("lsb", field.lsb), ("width", field.width)):
                check_integer(f"{what} of {field}", value)
            if field.access is not None:
                _check_access(field, field.access)
            if field.lsb < 0 or field.width < 1 or field.lsb + field.width > bits:
                raise DefinitionError(
                    f"{field} must lie within the {bits} bits of {self}, "
                    f"not at {field.lsb} to {field.lsb + field.width - 1}"
                )
            for bit in range(field.lsb, field.lsb + field.width):
                if (other := taken.setdefault(bit, field)) is not field:
                    raise DefinitionError(f"{field} must have bits of its own, not bit {bit} of {other}")

    def install(self, region: Region, base: int, handlers: Handlers) -> None:
        """Add the register to `region`, with the device's handlers."""
        start = base + self.offset
        on_write = handlers.write(self, start)
        on_read = handlers.read(self)
        keeps = self.bits(RW) | self.bits(ONCE)
        carried = self._ones & ~keeps & ~self.reserved

        def written(offset: int, size: int, value: int) -> None:
            assert on_write is not None
            stored = int.from_bytes(region.memory[start : start + self.width], "little")
            on_write((stored & keeps) | (value << 8 * offset & carried))

        def read(offset: int, size: int) -> int:
            assert on_read is not None
            value = on_read()
            if not isinstance(value, int) or not 0 <= value <= self._ones:
                found = f"{value:#x}" if isinstance(value, int) else repr(value)
                raise ValueError(f"{self} must read as an integer of {8 * self.width} bits, not {found}")
            return value

        region.add_registers(
            start,
            self.rules(),
            on_read=read if on_read else None,
            on_write=written if on_write else None,
            record=self.record,
            name=str(self),
        )

    def rules(self) -> Rules:
        """The register's access as the bit masks that the hot path applies."""

        def mask(value: int) -> bytes:
            return value.to_bytes(self.width, "little")

        return Rules(
            reset=mask(self.reset),
            writable=mask(self.bits(RW)),
            w1c=mask(self.bits(W1C)),
            rc=mask(self.bits(RC)),
            once=mask(self.bits(ONCE)),
        )

    def lines(self, block: Registers) -> Iterator[tuple[int, str, str]]:
        """One line, with the value of each field."""
        value = self.__get__(block, type(block))
        decoded = f"{value:#0{2 + 2 * self.width}x}"
        if self.fields:
            decoded += " (" + " ".join(f"{each.name}={each.decode(value):#x}" for each in self.fields) + ")"
        yield self.offset, self.name, decoded


class Field:
    """Some bits of a register, from bit `lsb` on, `width` of them.

    With an `access` of its own the field's bits follow that instead of the register's.
    """

    def __init__(self, register: Register, lsb: int, width: int = 1, *, access: Access | None = None) -> None:
        self.register = register
        self.lsb = lsb
        self.width = width
        self.access = access
        self.name = self.owner = ""
        if not isinstance(register, Register):
            raise DefinitionError(f"register of a Field must be a Register, not {register!r}")
        register.fields.append(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.owner = name, owner.__name__

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"

    @property
    def mask(self) -> int:
        """The field's bits in its register."""
        return ((1 << self.width) - 1) << self.lsb

    def decode(self, value: int) -> int:
        """The field's value within the register's `value`."""
        return (value & self.mask) >> self.lsb

    @overload
    def __get__(self, block: None, owner: type) -> Self: ...
    @overload
    def __get__(self, block: Registers, owner: type) -> int: ...
    def __get__(self, block: Registers | None, owner: type) -> Self | int:
        if block is None:
            return self
        return self.decode(self.register.__get__(block, type(block)))

    def __set__(self, block: Registers, value: int) -> None:
        if not 0 <= value <= self.mask >> self.lsb:
            raise ValueError(f"{self} must be an integer of {self.width} bits, not {value:#x}")
        register = self.register.__get__(block, type(block))
        self.register.__set__(block, register & ~self.mask | value << self.lsb)


class Registers(Piece):
    """A block of registers: subclass it with `Register`, `Field` and `Doorbell` lines.

    The class is checked when it is made: `DefinitionError` for a register that is unaligned, overlaps another or has a
    reset value that does not fit. `str()` of a block decodes what it holds.
    """

    elements: ClassVar[tuple[Element, ...]] = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        named: dict[str, Element] = {}
        for base in reversed(cls.__mro__):
            named.update((name, each) for name, each in vars(base).items() if isinstance(each, Element))
        cls.elements = tuple(sorted(named.values(), key=lambda each: each.offset))
        for each in cls.elements:
            each.check()
        check_areas(area for each in cls.elements for area in each.areas())

    def __init__(self) -> None:
        areas = list(self.areas())
        super().__init__(
            max((area.offset + area.length for area in areas), default=0),
            alignment=max((each.alignment for each in self.elements), default=1),
        )
        self.memory = memoryview(bytearray(self.size))
        for each in self.elements:
            if isinstance(each, Register):
                each.__set__(self, each.reset)

    def areas(self) -> Iterator[Area]:
        """Where the elements lie in the block."""
        for each in self.elements:
            yield from each.areas()

    def install(self, region: Region, base: int, handlers: Handlers) -> None:
        """Add all elements to `region`, the block starting at `base`."""
        for each in self.elements:
            each.install(region, base, handlers)

    def __str__(self) -> str:
        lines = [line for each in self.elements for line in each.lines(self)]
        digits = len(f"{max((offset for offset, _, _ in lines), default=0):x}")
        width = max((len(name) for _, name, _ in lines), default=0)
        return "\n".join(
            [
                type(self).__name__,
                *(f"  {offset:#0{2 + digits}x} {name:{width}} {value}" for offset, name, value in lines),
            ]
        )
