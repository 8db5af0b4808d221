"""Declared registers: their checks, values on the device's side, masks and decoded text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.devices import ONCE, RC, RO, RW, W1C, Access, Doorbell, Field, Register, Registers


class Control(Registers):
    """A block with one of each."""

    version = Register(0x00, access=RO, reset=0x0001_0000)
    enable = Register(0x04, reserved=0xFFFF_0000)
    status = Register(0x08, access=W1C)
    done = Field(status, 0)
    state = Field(status, 4, 3, access=RO)
    drops = Register(0x0C, access=RC)
    key = Register(0x10, access=ONCE, width=8)
    flag = Register(0x18, width=1, reset=0xA5)
    tail = Doorbell(0x20, count=2, stride=0x10)


def test_a_block_without_a_device_holds_its_reset_values() -> None:
    control = Control()
    assert (control.version, control.enable, control.flag, control.key) == (0x0001_0000, 0, 0xA5, 0)
    assert (control.size, control.alignment, control.tail) == (0x34, 8, (0, 0))


def test_the_device_sets_any_register_and_field() -> None:
    control = Control()
    control.version = 0xFFFF_FFFF
    control.status = 0xFFFF_FF00
    control.done = 1
    control.state = 5
    assert (control.version, control.status, control.done, control.state) == (0xFFFF_FFFF, 0xFFFF_FF51, 1, 5)


def test_blocks_do_not_share_values() -> None:
    one, other = Control(), Control()
    one.enable = 7
    assert other.enable == 0


@pytest.mark.parametrize("value", [1 << 32, -1])
def test_a_value_must_fit(value: int) -> None:
    with pytest.raises(ValueError, match=f"^Control.enable must be an integer of 32 bits, not {value:#x}$"):
        Control().enable = value


def test_a_field_value_must_fit() -> None:
    with pytest.raises(ValueError, match=r"^Control.state must be an integer of 3 bits, not 0x8$"):
        Control().state = 8


def test_a_block_prints_itself_decoded() -> None:
    control = Control()
    control.state = 5
    control.done = 1
    assert str(control).splitlines() == [
        "Control",
        "  0x00 version 0x00010000",
        "  0x04 enable  0x00000000",
        "  0x08 status  0x00000051 (done=0x1 state=0x5)",
        "  0x0c drops   0x00000000",
        "  0x10 key     0x0000000000000000",
        "  0x18 flag    0xa5",
        "  0x20 tail[0] 0x00000000",
        "  0x30 tail[1] 0x00000000",
    ]


def test_an_empty_block_prints_its_name() -> None:
    class Nothing(Registers):
        """No registers."""

    assert str(Nothing()) == "Nothing"


def test_masks() -> None:
    assert Control.enable.rules().writable.hex() == "ffff0000"
    status = Control.status.rules()
    assert (status.w1c.hex(), status.writable.hex(), status.rc.hex()) == ("8fffffff", "00000000", "00000000")
    assert Control.drops.rules().rc.hex() == "ffffffff"
    assert Control.key.rules().once.hex() == "ff" * 8
    assert Control.version.rules().reset.hex() == "00000100"


def test_a_block_inherits_and_extends() -> None:
    class More(Control):
        extra = Register(0x1C)

    assert [each.name for each in More.elements][-3:] == ["flag", "extra", "tail"]
    assert len(Control.elements) == 7


def test_reserved_bits_have_no_access_and_fields_their_own() -> None:
    register = Register(0, access=W1C, reserved=0xF000_0000)
    Field(register, 28, 2, access=RW)
    Field(register, 0, 4, access=RO)
    bits = {access: register.bits(access) for access in Access}
    assert bits == {RO: 0xF, RW: 0, W1C: 0x0FFF_FFF0, RC: 0, ONCE: 0}


@given(
    access=st.sampled_from(Access),
    width=st.sampled_from([1, 2, 4, 8]),
    reserved=st.integers(0, (1 << 64) - 1),
    fields=st.lists(st.tuples(st.integers(0, 7), st.sampled_from([None, *Access])), unique_by=lambda each: each[0]),
)
def test_each_bit_has_one_access_or_is_reserved(
    access: Access, width: int, reserved: int, fields: list[tuple[int, Access | None]]
) -> None:
    ones = (1 << 8 * width) - 1
    register = Register(0, access=access, width=width, reserved=reserved & ones)
    for lsb, own in fields:
        Field(register, lsb, access=own)
    masks = [register.bits(each) for each in Access]
    assert sum(masks) == ones & ~reserved
    expected = dict(fields)
    for bit in range(8 * width):
        if not reserved >> bit & 1:
            assert register.bits(expected.get(bit) or access) >> bit & 1


@given(width=st.sampled_from([1, 2, 4, 8]), data=st.data())
def test_values_round_trip(width: int, data: st.DataObject) -> None:
    class Block(Registers):
        value = Register(8, width=width)

    block = Block()
    value = data.draw(st.integers(0, (1 << 8 * width) - 1))
    block.value = value
    assert block.value == value
    assert bytes(block.memory[8:]) == value.to_bytes(width, "little")


def one(element: Register | Doorbell) -> Callable[[], None]:
    def define() -> None:
        type("Block", (Registers,), {"a": element, "__module__": __name__})

    return define


def with_field(*fields: tuple[int, int]) -> Callable[[], None]:
    def define() -> None:
        register = Register(0)
        named = {f"f{index}": Field(register, *each) for index, each in enumerate(fields)}
        type("Block", (Registers,), {"a": register, **named})

    return define


def overlapping() -> None:
    class Block(Registers):
        a = Register(0x00, width=8)
        b = Register(0x04)


def twice() -> None:
    class Block(Registers):
        a = Register(0x00)
        b = a


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (one(Register(0, width=3)), "width of Block.a must be 1, 2, 4 or 8 bytes, not 3"),
        (one(Register(2)), "offset of Block.a must be a multiple of its 4 bytes, not 0x2"),
        (one(Register(-4)), "offset of Block.a must be a multiple of its 4 bytes, not -0x4"),
        (one(Register(0, width=1, reset=0x100)), "reset of Block.a must fit in 8 bits, not 0x100"),
        (one(Register(0, reserved=1 << 32)), "reserved bits of Block.a must fit in 32 bits, not 0x100000000"),
        (with_field((30, 4)), "Block.f0 must lie within the 32 bits of Block.a, not at 30 to 33"),
        (with_field((0, 0)), "Block.f0 must lie within the 32 bits of Block.a, not at 0 to -1"),
        (with_field((0, 4), (3, 2)), "Block.f1 must have bits of its own, not bit 3 of Block.f0"),
        (overlapping, "Block.b must begin at or after 0x8, the end of Block.a, not at 0x4"),
        (twice, "Block.a must be declared once, not also as b"),
    ],
)
def test_definition_errors(define: Callable[[], None], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define()
    assert str(caught.value) == message
