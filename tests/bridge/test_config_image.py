"""The bytes and masks of a config space, as a reader of the specification finds them."""

from __future__ import annotations

import struct

import pytest

from pyvfio_user.bridge.config_image import SIZE, BarShape, ConfigImage, MsixShape, PciId
from pyvfio_user.bridge.regions import Rules

IDENTITY = PciId(0x1234, 0xBE50, 0x058000, revision=7, subsystem_vendor=0x1AF4, subsystem=0x1100)


def u16(image: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", image, offset)[0])


def u32(image: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", image, offset)[0])


def full() -> Rules:
    image = ConfigImage()
    image.header(IDENTITY, [BarShape(0, 0x1_0000), BarShape(2, 0x10_0000, 64, True)], interrupt_pin=1)
    image.power_management()
    image.msi(8)
    image.msix(MsixShape(8, 2, 0x60000, 2, 0x61000))
    image.express()
    return image.rules()


def test_header() -> None:
    rules = full()
    reset = rules.reset
    assert len(reset) == len(rules.writable) == len(rules.w1c) == len(rules.rc) == len(rules.once) == SIZE
    assert (u16(reset, 0x00), u16(reset, 0x02), u32(reset, 0x08)) == (0x1234, 0xBE50, 0x05800007)
    assert (u16(reset, 0x04), u16(reset, 0x06)) == (0, 0x0011)
    assert (u32(reset, 0x2C), reset[0x34], reset[0x3C], reset[0x3D]) == (0x11001AF4, 0x40, 0, 1)
    assert reset[0x0E] == 0
    assert u16(rules.writable, 0x04) == 0x0546
    assert (u16(rules.w1c, 0x06), u16(rules.writable, 0x06)) == (0xF900, 0)
    assert u32(rules.writable, 0x0C) == 0xFF
    assert u32(rules.writable, 0x3C) == 0xFF
    assert not any(rules.rc) and not any(rules.once)


def test_extended_config_space_is_empty() -> None:
    rules = full()
    assert not any(rules.reset[0x100:]) and not any(rules.writable[0x100:]) and not any(rules.w1c[0x100:])


@pytest.mark.parametrize(
    ("shape", "reset", "writable"),
    [
        (BarShape(0, 16), 0x0, 0xFFFF_FFF0),
        (BarShape(0, 4096, 32, True), 0x8, 0xFFFF_F000),
        (BarShape(0, 1 << 31), 0x0, 0x8000_0000),
        (BarShape(0, 1 << 20, 64), 0x4, 0xFFFF_FFFF_FFF0_0000),
        (BarShape(0, 1 << 36, 64, True), 0xC, 0xFFFF_FFF0_0000_0000),
    ],
)
def test_bars(shape: BarShape, reset: int, writable: int) -> None:
    image = ConfigImage()
    image.header(IDENTITY, [shape], interrupt_pin=0)
    rules = image.rules()
    assert struct.unpack_from("<Q", rules.reset, 0x10)[0] == reset
    assert struct.unpack_from("<Q", rules.writable, 0x10)[0] == writable
    assert not any(rules.writable[0x18:0x28])


def chain(image: bytes) -> dict[int, int]:
    found = {}
    offset = image[0x34]
    while offset:
        assert offset % 4 == 0
        found[image[offset]] = offset
        offset = image[offset + 1]
    return found


def test_capability_chain() -> None:
    assert chain(full().reset) == {0x01: 0x40, 0x05: 0x48, 0x11: 0x58, 0x10: 0x64}


def test_chain_of_one() -> None:
    image = ConfigImage()
    image.header(IDENTITY, [], interrupt_pin=0)
    image.express()
    assert chain(image.rules().reset) == {0x10: 0x40}


def test_power_management() -> None:
    rules = full()
    assert u32(rules.reset, 0x40) == 0x0603_4801
    assert (u32(rules.reset, 0x44), u32(rules.writable, 0x44)) == (0x0008, 0x0003)


@pytest.mark.parametrize(("vectors", "control"), [(1, 0x0080), (2, 0x0082), (8, 0x0086), (32, 0x008A)])
def test_msi(vectors: int, control: int) -> None:
    image = ConfigImage()
    at = image.msi(vectors)
    rules = image.rules()
    assert u16(rules.reset, at + 2) == control
    assert rules.writable[at : at + 16].hex() == "00007100fcffffffffffffffffff0000"


def test_msix() -> None:
    rules = full()
    assert rules.reset[0x58:0x64].hex() == "116407000200060002100600"
    assert rules.writable[0x58:0x64].hex() == "000000c00000000000000000"


def test_express_endpoint() -> None:
    rules = full()
    assert u32(rules.reset, 0x64) == 0x0002_0010
    assert u32(rules.reset, 0x68) == 0x1000_8000
    assert (u16(rules.reset, 0x6C), u16(rules.writable, 0x6C)) == (0x2810, 0xF9FF)
    assert (u16(rules.reset, 0x6E), u16(rules.w1c, 0x6E), u16(rules.writable, 0x6E)) == (0, 0x000F, 0)
    assert (u32(rules.reset, 0x70), u32(rules.reset, 0x74)) == (0x0040_0011, 0x0011_0000)
    assert (u32(rules.reset, 0x88), u32(rules.writable, 0x8C), u32(rules.reset, 0x90)) == (0x10, 0x10, 0x2)


def test_capabilities_fit_before_the_extended_space() -> None:
    assert max(chain(full().reset).values()) + 60 <= 0x100
