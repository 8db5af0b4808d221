"""What is added to a device tree, read back by a reader of its own."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyvfio_user.guest.errors import KernelError
from pyvfio_user.guest.linux.devicetree import add_node, add_properties, cells

RESERVED = struct.pack(">4Q", 0x1000, 0x2000, 0, 0)
STRINGS = b"compatible\0reg\0"


def word(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def tree(version: int = 17) -> bytes:
    """/ { compatible = "abc"; pcie@1 { reg = <7>; bus { }; }; last { }; }."""
    structure = (
        word(1, 0)
        + word(3, 4, 0) + b"abc\0"
        + word(1) + b"pcie@1\0\0" + word(3, 4, 11, 7)
        + word(1) + b"bus\0" + word(2)
        + word(2)
        + word(1) + b"last\0\0\0\0" + word(2)
        + word(2) + word(9)
    )  # fmt: skip
    size = 40 + len(RESERVED) + len(structure) + len(STRINGS)
    header = word(0xD00DFEED, size, 40 + len(RESERVED), 40 + len(RESERVED) + len(structure), 40, version, 16, 0)
    return header + word(len(STRINGS), len(structure)) + RESERVED + structure + STRINGS


def read(data: bytes) -> dict[str, Any]:
    """Nodes as dictionaries, in order; properties as bytes."""
    magic, size, structure, strings, reserved, *_, strings_size, structure_size = struct.unpack(">10I", data[:40])
    assert (magic, size, strings + strings_size) == (0xD00DFEED, len(data), len(data))
    assert data[reserved : reserved + len(RESERVED)] == RESERVED
    assert (structure % 4, reserved % 8, strings) == (0, 0, structure + structure_size)
    at = structure
    stack: list[dict[str, Any]] = [{}]
    while (token := int.from_bytes(data[at : at + 4], "big")) != 9:
        at += 4
        if token == 1:
            name = data[at : data.index(b"\0", at)].decode()
            at += len(name) + 4 - len(name) % 4
            stack[-1][name] = {}
            stack.append(stack[-1][name])
        elif token == 2:
            stack.pop()
        else:
            length, offset = struct.unpack(">2I", data[at : at + 8])
            key = data[strings + offset : data.index(b"\0", strings + offset)].decode()
            stack[-1][key] = data[at + 8 : at + 8 + length]
            at += 8 + length + -length % 4
    assert at + 4 == structure + structure_size
    return stack[0]


def test_the_reader_reads() -> None:
    assert read(tree()) == {"": {"compatible": b"abc\0", "pcie@1": {"reg": word(7), "bus": {}}, "last": {}}}


def test_a_node_becomes_the_first_child() -> None:
    node = {"reg": cells(0x1800, 0), "nvidia,gpu-mem-size": bytes(7) + b"\x05", "odd": b"xyz"}
    found = read(add_node(tree(), "pcie@1", "gpu@3,0", node))
    assert list(found[""]["pcie@1"]) == ["reg", "gpu@3,0", "bus"]
    assert found[""]["pcie@1"]["gpu@3,0"] == {**node, "reg": word(0x1800, 0)}
    again = read(add_node(add_node(tree(), "last", "a", {}), "last", "b", {"c": b""}))
    assert again[""]["last"] == {"b": {"c": b""}, "a": {}}


def test_properties_come_behind_those_that_a_node_has_and_before_its_children() -> None:
    found = read(add_properties(tree(), "pcie@1", {"iommu-map": cells(0, 9, 0, 0x10000), "odd": b"xyz"}))
    assert list(found[""]["pcie@1"]) == ["reg", "iommu-map", "odd", "bus"]
    assert found[""]["pcie@1"]["iommu-map"] == word(0, 9, 0, 0x10000)
    assert found[""]["pcie@1"]["odd"] == b"xyz"
    bare = read(add_properties(add_properties(tree(), "last", {"status": b"disabled\0"}), "", {"more": b""}))
    assert bare[""] == {
        "compatible": b"abc\0", "more": b"", "pcie@1": {"reg": word(7), "bus": {}}, "last": {"status": b"disabled\0"}
    }  # fmt: skip


def test_what_is_no_tree_or_has_no_such_node() -> None:
    with pytest.raises(KernelError, match="the device tree must begin with d00dfeed"):
        add_node(bytes(100), "pcie@1", "a", {})
    with pytest.raises(KernelError, match="the device tree must have a node pcie@2"):
        add_node(tree(), "pcie@2", "a", {})
    with pytest.raises(KernelError, match="the device tree must have a node pcie@2"):
        add_properties(tree(), "pcie@2", {})
