"""The layouts of messages."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge import wire
from pyvfio_user.bridge.control import version_json
from pyvfio_user.bridge.errors import WireError

SIZES = {
    "HEADER": 16,
    "VERSION": 4,
    "DEVICE_INFO": 16,
    "REGION_INFO": 32,
    "SPARSE_MMAP": 16,
    "SPARSE_AREA": 16,
    "IRQ_INFO": 16,
    "SET_IRQS": 20,
    "REGION_ACCESS": 16,
    "WRITE_MULTI": 24,
    "DMA_MAP": 32,
    "DMA_UNMAP": 24,
    "DMA_ACCESS": 16,
}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_a_layout_has_the_size_it_has_on_the_wire(name: str, size: int) -> None:
    assert getattr(wire, name).size == size


def test_a_header_is_packed_as_the_specification_lays_it_out() -> None:
    packed = wire.HEADER.pack(0x0102, wire.Command.REGION_READ, 32, wire.NO_REPLY, 5)
    assert packed == bytes.fromhex("0201 0900 20000000 10000000 05000000")
    assert wire.HEADER.unpack(packed) == wire.Header(0x0102, 9, 32, 0x10, 5)


def test_unpack_from_leaves_the_rest_alone() -> None:
    body = b"??" + wire.REGION_ACCESS.pack(0x1000, 2, 4) + b"data"
    assert wire.REGION_ACCESS.unpack_from(body, 2) == wire.RegionAccess(offset=0x1000, region=2, length=4)


def test_a_body_of_another_length_is_refused() -> None:
    with pytest.raises(WireError, match=r"^a message body must be 16 bytes, not 15$"):
        wire.REGION_ACCESS.unpack(bytes(15))
    with pytest.raises(WireError, match=r"^a message body must be at least 18 bytes, not 17$"):
        wire.REGION_ACCESS.unpack_from(bytes(17), 2)


def test_commands_have_names() -> None:
    assert wire.command_name(15) == "REGION_WRITE_MULTI"
    assert wire.command_name(77) == "command 77"


def test_the_version_reply_fits_into_what_qemu_has_room_for() -> None:
    assert len(version_json(write_multiple=True)) <= wire.MAX_VERSION_JSON == 194
    assert version_json(write_multiple=True).endswith(b'"write_multiple":true}}\0')
