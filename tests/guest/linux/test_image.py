"""How long an Image must be, by its PE headers, made here as Microsoft's PE Format has them."""

from __future__ import annotations

import struct

import pytest

from pyvfio_user.guest.linux.image import image_size
from pyvfio_user.guest.provision.kernel import provide_kernel
from pyvfio_user.guest.provision.progress import Progress

OPTIONAL = 0xA0


def image(*sections: tuple[int, int]) -> bytes:
    """Headers alone; sections are (SizeOfRawData, PointerToRawData)."""
    dos = b"MZ".ljust(0x38, b"\0") + b"ARM\x64" + struct.pack("<I", 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0xAA64, len(sections), 0, 0, 0, OPTIONAL, 0x206)
    table = [struct.pack("<8sIIIIIIHHI", b".text", 1, 2, size, at, 3, 4, 5, 6, 7) for size, at in sections]
    return dos + coff + bytes(OPTIONAL) + b"".join(table)


def test_the_end_of_the_last_section() -> None:
    assert image_size(image((0x1000, 0x200), (0x600, 0x1200))) == 0x1800
    assert image_size(image((0x600, 0x1200), (0x1000, 0x200))) == 0x1800, "whatever their order"
    assert image_size(image()) == 0


@pytest.mark.parametrize("length", [2, 0x3F, 0x40, 0x42, 0x50, 0x58 + OPTIONAL, 0x58 + OPTIONAL + 39])
def test_what_ends_within_its_headers_is_not_whole(length: int) -> None:
    assert image_size(image((0x1000, 0x200))[:length]) == length + 1


def test_without_headers_it_does_not_say() -> None:
    """Not started by UEFI; or by something else than PE headers where they would be."""
    assert image_size(bytes(0x38) + b"ARM\x64" + bytes(100)) == 0
    assert image_size(b"MZ".ljust(0x38, b"\0") + b"ARM\x64" + struct.pack("<I", 0x40) + bytes(100)) == 0


@pytest.mark.parametrize("name", ["6.1", "6.12"])
def test_a_kernel_of_debians_is_as_long_as_it_says(name: str) -> None:
    file = provide_kernel(Progress(), name).image.read_bytes()
    assert 0.9 * len(file) < image_size(file) <= len(file)
