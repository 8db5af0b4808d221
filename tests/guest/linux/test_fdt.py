"""A device tree as Linux reads it: parsed here by the specification (Devicetree Specification, 5)."""

from __future__ import annotations

import struct

import pytest

from pyvfio_user.guest.linux.fdt import Node, cells, flatten
from pyvfio_user.guest.linux.nested import INITRD, RAM, RAM_SIZE, tree

Parsed = dict[str, dict[str, bytes]]


def parse(blob: bytes) -> Parsed:
    """The properties of each node, by its path."""
    magic, total, structure, strings, reservations, version, oldest, _, strings_size, size = struct.unpack_from(
        ">10I", blob
    )
    assert (magic, total, version, oldest) == (0xD00DFEED, len(blob), 17, 16)
    assert blob[reservations : reservations + 16] == bytes(16)
    assert structure % 4 == 0
    assert (strings + strings_size, structure + size) == (len(blob), strings)
    found: Parsed = {}
    path: list[str] = []
    at = structure
    while True:
        (token,) = struct.unpack_from(">I", blob, at)
        at += 4
        if token == 1:
            name = blob[at : blob.index(b"\0", at)].decode()
            at += len(name) + 4 & ~3
            path.append(name)
            found["/".join(path) or "/"] = {}
        elif token == 2:
            path.pop()
        elif token == 3:
            length, where = struct.unpack_from(">II", blob, at)
            name = blob[strings + where : blob.index(b"\0", strings + where)].decode()
            found["/".join(path) or "/"][name] = blob[at + 8 : at + 8 + length]
            at += 8 + (length + 3 & ~3)
        else:
            assert (token, path, at) == (9, [], structure + size)
            return found


def test_values() -> None:
    child = Node("child@1", {"words": (1, 0xFFFF_FFFF), "there": None})
    root = Node("", {"one": "a", "two": ("a", "bc"), "number": 7, "there": None}, (child, Node("other")))
    assert parse(flatten(root)) == {
        "/": {"one": b"a\0", "two": b"a\0bc\0", "number": b"\0\0\0\7", "there": b""},
        "/child@1": {"words": bytes.fromhex("00000001ffffffff"), "there": b""},
        "/other": {},
    }


def test_a_cell_has_32_bits() -> None:
    assert cells(0x40_1000_0000) == (0x40, 0x1000_0000)
    with pytest.raises(ValueError, match="a cell must be 0 to 2\\*\\*32 - 1, not 4294967296"):
        flatten(Node("", {"reg": 1 << 32}))


def test_the_vmms_machine() -> None:
    found = parse(tree(1000))
    assert found["/memory@40000000"]["reg"] == struct.pack(">2Q", RAM, RAM_SIZE)
    assert found["/chosen"]["linux,initrd-start"] == struct.pack(">Q", INITRD)
    assert found["/chosen"]["linux,initrd-end"] == struct.pack(">Q", INITRD + 1000)
    assert found["/pcie@3f000000"]["reg"] == struct.pack(">2Q", 0x3F00_0000, 0x10_0000)
    gic = found["/interrupt-controller@8000000"]["phandle"]
    assert found["/"]["interrupt-parent"] == gic
    its = found["/interrupt-controller@8000000/msi-controller@8080000"]["phandle"]
    assert found["/pcie@3f000000"]["msi-map"][4:8] == its
