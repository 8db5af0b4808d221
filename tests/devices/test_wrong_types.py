"""Declarations of the wrong type: a `DefinitionError` that says what must be, never another exception."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.devices import (
    Bar,
    DefinitionError,
    Device,
    Doorbell,
    Field,
    KiB,
    Memory,
    Msi,
    MsiX,
    PciId,
    Register,
    Registers,
    WriteCombineWindow,
)

PCI_ID = PciId(vendor=0x1234, device=1, class_code=0xFF0000)


def device(**members: Any) -> Any:
    return type("Made", (Device,), {"identity": PCI_ID, **members})


def block(**members: Any) -> Any:
    return type("Control", (Registers,), members)


def field(*arguments: Any, **named: Any) -> Any:
    register = Register(0)
    return block(register=register, part=Field(register, *arguments, **named))


DECLARATIONS: dict[str, Callable[[Any], object]] = {
    "size of bar0 must be an integer": lambda value: device(bar0=Bar(size=value)),
    "bits of bar0 must be 32 or 64": lambda value: device(bar0=Bar(size=4 * KiB, bits=value)),
    "contents of bar0 must be registers, a window or memory": lambda value: device(bar0=Bar(value, size=4 * KiB)),
    "size must be an integer": lambda value: Memory(value),
    "size must be an integer ": lambda value: WriteCombineWindow(value, mapped=True),
    "offset of Control.register must be an integer": lambda value: block(register=Register(value)),
    "width of Control.register must be an integer": lambda value: block(register=Register(0, width=value)),
    "reset of Control.register must be an integer": lambda value: block(register=Register(0, reset=value)),
    "reserved bits of Control.register must be an integer": lambda value: block(register=Register(0, reserved=value)),
    "access of Control.register must be RO, RW, W1C, RC or ONCE": lambda value: block(
        register=Register(0, access=value)
    ),
    "register of a Field must be a Register": lambda value: Field(value, 0),
    "lsb of Control.part must be an integer": field,
    "width of Control.part must be an integer": lambda value: field(0, value),
    "access of Control.part must be RO, RW, W1C, RC or ONCE": lambda value: field(0, access=value),
    "offset of Control.bell must be an integer": lambda value: block(bell=Doorbell(value)),
    "width of Control.bell must be an integer": lambda value: block(bell=Doorbell(0, width=value)),
    "count of Control.bell must be an integer": lambda value: block(bell=Doorbell(0, count=value)),
    "stride of Control.bell must be an integer": lambda value: block(bell=Doorbell(0, stride=value)),
    "poll of Control.bell must be more than 0 seconds": lambda value: block(bell=Doorbell(0, mapped=True, poll=value)),
    "vectors of Msi must be a power of two up to 32": Msi,
    "vectors of MsiX must be an integer": MsiX,
    "table of MsiX must be an integer": lambda value: MsiX(1, table=value),
    "pba of MsiX must be an integer": lambda value: MsiX(1, pba=value),
    "vendor must be an integer": lambda value: PciId(vendor=value, device=1, class_code=0),
    "class_code must be an integer": lambda value: PciId(vendor=1, device=1, class_code=value),
}
WRONG = st.one_of(st.text(min_size=1), st.binary(min_size=1), st.lists(st.integers(), min_size=1), st.just(object()))


@pytest.mark.parametrize("rule", DECLARATIONS)
@given(value=WRONG)
def test_what_is_of_the_wrong_type_is_refused(rule: str, value: object) -> None:
    with pytest.raises(DefinitionError, match="^" + re.escape(f"{rule.strip()}, not {value!r}") + "$"):
        DECLARATIONS[rule](value)


def test_a_place_is_at_an_offset() -> None:
    bar = Bar(size=4 * KiB)
    with pytest.raises(DefinitionError, match=r"^offset of part in bar0 must be an integer, not '16'$"):
        device(bar0=bar, part=bar.place(Memory(16), "16"))  # type: ignore[call-overload]
