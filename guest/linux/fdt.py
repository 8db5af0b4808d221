"""A flattened device tree, written (Devicetree Specification, 5): what a Linux is told of its machine."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

Value = str | Sequence[str] | int | Sequence[int] | None
"""A property's value: strings; 32-bit cells; None for one that is only there."""

_MAGIC, _VERSION, _COMPATIBLE = 0xD00DFEED, 17, 16
_BEGIN_NODE, _END_NODE, _PROPERTY, _END = 1, 2, 3, 9


@dataclass(frozen=True)
class Node:
    """A node: its name, its properties in order, its children."""

    name: str
    properties: dict[str, Value] = field(default_factory=dict)
    children: tuple[Node, ...] = ()


def cells(value: int) -> tuple[int, int]:
    """A 64-bit number as two cells."""
    return value >> 32, value & 0xFFFF_FFFF


def flatten(root: Node) -> bytes:
    """The tree as a blob. Raises ValueError for a number that does not fit into a cell."""
    strings: dict[str, int] = {}
    structure = _node(root, strings) + struct.pack(">I", _END)
    names = b"".join(name.encode() + b"\0" for name in strings)
    reservations = bytes(16)
    start = 40 + len(reservations)
    sizes = (len(names), len(structure))
    total = start + sum(sizes)
    header = (_MAGIC, total, start, start + len(structure), 40, _VERSION, _COMPATIBLE, 0, *sizes)
    return struct.pack(">10I", *header) + reservations + structure + names


def _node(node: Node, strings: dict[str, int]) -> bytes:
    parts = [struct.pack(">I", _BEGIN_NODE), _padded(node.name.encode() + b"\0")]
    for name, value in node.properties.items():
        data = _bytes(value)
        where = strings.setdefault(name, sum(len(each) + 1 for each in strings))
        parts += [struct.pack(">III", _PROPERTY, len(data), where), _padded(data)]
    parts += [_node(child, strings) for child in node.children]
    return b"".join([*parts, struct.pack(">I", _END_NODE)])


def _bytes(value: Value) -> bytes:
    if value is None:
        return b""
    if isinstance(value, int):
        value = (value,)
    if isinstance(value, str):
        value = (value,)
    words: list[bytes] = []
    for each in value:
        if isinstance(each, str):
            words.append(each.encode() + b"\0")
        elif 0 <= each < 1 << 32:
            words.append(struct.pack(">I", each))
        else:
            raise ValueError(f"a cell must be 0 to 2**32 - 1, not {each}")
    return b"".join(words)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
