"""A flattened device tree, and what is added to it (Devicetree Specification, chapter 5)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from ..errors import KernelError

_HEADER = struct.Struct(">10I")
_MAGIC = 0xD00DFEED
_BEGIN, _END, _PROPERTY, _NOP, _LAST = 1, 2, 3, 4, 9
_WORD = struct.Struct(">I")


def cells(*values: int) -> bytes:
    """A property's value: numbers of 32 bits."""
    return struct.pack(f">{len(values)}I", *values)


def add_node(tree: bytes, parent: str, name: str, properties: Mapping[str, bytes]) -> bytes:
    """The tree with a node more, the first child of the node ``parent`` (its name with its unit address).

    Raises:
        KernelError: It is no device tree of version 17, or has no such node.
    """
    return _insert(tree, parent, lambda offset: _node(name, properties, offset))


def add_properties(tree: bytes, node: str, properties: Mapping[str, bytes]) -> bytes:
    """The tree with properties more, which the node (its name with its unit address) must not have yet.

    Raises as `add_node` does.
    """
    return _insert(tree, node, lambda offset: _properties(properties, offset))


def _insert(tree: bytes, parent: str, content: Callable[[int], tuple[bytes, bytes]]) -> bytes:
    """Insert behind a node's properties; ``content`` is given where its names begin, and returns them, too."""
    if len(tree) < _HEADER.size or _HEADER.unpack_from(tree)[0] != _MAGIC:
        raise KernelError(f"the device tree must begin with d00dfeed, not {tree[:4].hex()}", "use another QEMU")
    _, _, structure, strings, reserved, version, compatible, cpu, strings_size, structure_size = _HEADER.unpack_from(
        tree
    )
    blocks = tree[structure : structure + structure_size], tree[strings : strings + strings_size]
    at = _after_properties(blocks[0], parent)
    added, names = content(strings_size)
    new_structure = blocks[0][:at] + added + blocks[0][at:]
    new_strings = blocks[1] + names
    reservations = tree[reserved : min(each for each in (structure, strings) if each > reserved)]
    start = _HEADER.size + len(reservations)
    start += -start % 8
    end = start + len(new_structure) + len(new_strings)
    header = _HEADER.pack(
        _MAGIC, end, start, start + len(new_structure), _HEADER.size, version, compatible, cpu,
        len(new_strings), len(new_structure),
    )  # fmt: skip
    return (header + reservations).ljust(start, b"\0") + new_structure + new_strings


def _node(name: str, properties: Mapping[str, bytes], offset: int) -> tuple[bytes, bytes]:
    """A node without children, and the names of its properties, which begin at this offset of the strings."""
    content, names = _properties(properties, offset)
    return _WORD.pack(_BEGIN) + _padded(name.encode() + b"\0") + content + _WORD.pack(_END), names


def _properties(properties: Mapping[str, bytes], offset: int) -> tuple[bytes, bytes]:
    """Properties, and their names, which begin at this offset of the strings."""
    content = names = b""
    for key, value in properties.items():
        content += struct.pack(">3I", _PROPERTY, len(value), offset + len(names)) + _padded(value)
        names += key.encode() + b"\0"
    return content, names


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


def _after_properties(structure: bytes, parent: str) -> int:
    """Where the first child of a node begins, or its end if it has none."""
    at, inside = 0, False
    while True:
        (token,) = _WORD.unpack_from(structure, at)
        if inside and token not in (_PROPERTY, _NOP):
            return at
        if token == _LAST:
            raise KernelError(f"the device tree must have a node {parent}", "use another QEMU")
        if token == _BEGIN:
            end = structure.index(b"\0", at + 4)
            inside = structure[at + 4 : end].decode() == parent
            at = end + 1 + -(end + 1) % 4
        elif token == _PROPERTY:
            (length,) = _WORD.unpack_from(structure, at + 4)
            at += 12 + length + -length % 4
        else:
            at += 4
