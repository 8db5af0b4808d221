"""Any register under any accesses, against a model of the rules that is as simple as can be."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.devices import ONCE, RC, RO, RW, W1C, Access, Bar, Device, Field, KiB, PciId, Register, Registers

from .serving import attached

WIDTHS = (1, 2, 4, 8)


class Model:
    """A register bit by bit, as the documentation of `Access` tells it."""

    def __init__(self, accesses: list[Access | None], reset: int) -> None:
        self.accesses = accesses
        self.bits = [reset >> n & 1 for n in range(len(accesses))]
        self.locked: set[int] = set()

    def write(self, offset: int, size: int, value: int) -> None:
        for n in range(8 * offset, 8 * (offset + size)):
            written = value >> n - 8 * offset & 1
            access = self.accesses[n]
            if access is RW or (access is ONCE and n // 8 not in self.locked):
                self.bits[n] = written
            elif access is W1C and written:
                self.bits[n] = 0
        self.locked |= set(range(offset, offset + size))

    def read(self, offset: int, size: int) -> int:
        found = 0
        for n in range(8 * offset, 8 * (offset + size)):
            found |= self.bits[n] << n - 8 * offset
            if self.accesses[n] is RC:
                self.bits[n] = 0
        return found


@st.composite
def accesses_of_a_register(draw: st.DrawFn, width: int) -> list[tuple[bool, int, int, int]]:
    """(write, offset, size, value) of aligned accesses within the register."""
    found = []
    for _ in range(draw(st.integers(1, 12))):
        size = draw(st.sampled_from([size for size in WIDTHS if size <= width]))
        offset = size * draw(st.integers(0, width // size - 1))
        found.append((draw(st.booleans()), offset, size, draw(st.integers(0, (1 << 8 * size) - 1))))
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data(), access=st.sampled_from(Access), width=st.sampled_from(WIDTHS))
def test_registers_follow_the_model(data: st.DataObject, access: Access, width: int) -> None:
    ones = (1 << 8 * width) - 1
    reset = data.draw(st.integers(0, ones), label="reset")
    reserved = data.draw(st.just(0) | st.integers(0, ones), label="reserved")
    other = data.draw(st.sampled_from([None, RO, RW, W1C, RC]), label="access of the low half")
    script = data.draw(accesses_of_a_register(width), label="accesses")

    class Block(Registers):
        register = Register(0x10, access=access, width=width, reset=reset, reserved=reserved)
        low = Field(register, 0, 4 * width, access=other)

    class OneRegister(Device):
        identity = PciId(vendor=1, device=1, class_code=0xFF0000)
        bar0 = Bar(Block, size=4 * KiB)

    def rule(bit: int) -> Access | None:
        return None if reserved >> bit & 1 else (other or access) if bit < 4 * width else access

    async def compare() -> None:
        device = OneRegister()
        model = Model([rule(bit) for bit in range(8 * width)], reset)
        async with attached(device) as client:
            for write, offset, size, value in script:
                if write:
                    await client.bars[0].write(0x10 + offset, value, size)
                    model.write(offset, size, value)
                else:
                    assert await client.bars[0].read(0x10 + offset, size) == model.read(offset, size)
                assert device.bar0.register == sum(bit << n for n, bit in enumerate(model.bits))

    asyncio.run(compare())
