"""Small matrices, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pyvfio_user.guest.results import Battery, Cell, HostCell, Matrix, Row, Verdict

CELL = Cell(
    "el2",
    "max",
    1,
    "status-quo",
    "asking",
    "strict",
    "44",
    "1",
    "04",
    "04",
    Verdict.AGREE,
    Verdict.AGREE,
    "b1",
    None,
    12,
    32,
)
HOST = HostCell(
    "el2", "max", 1, "status-quo", "asking", "strict", "00", "00", Verdict.AGREE, Verdict.AGREE, "b1", None, 6, 16
)
ROW = Row("str-x", "works", {"EL1 cold": "works", "EL0 warm": "works"}, "8", Verdict.AGREE)
BATTERY = Battery("b1", "short", (ROW,))
PROVENANCE = {"experiments": 1234, "transactions": 56789, "seconds": 1.25, "jobs": [{"cpu": "max", "fwb": 1}]}


def cell(**changes: Any) -> Cell:
    """`CELL`, changed."""
    return msgspec.structs.replace(CELL, **changes)


def host(**changes: Any) -> HostCell:
    """`HOST`, changed."""
    return msgspec.structs.replace(HOST, **changes)


def matrix(cells: Sequence[Cell] = (CELL,), **changes: Any) -> Matrix:
    """A run of these cells."""
    made = Matrix(dict(PROVENANCE), tuple(cells), (HOST,), (), {"b1": BATTERY}, {})
    return msgspec.structs.replace(made, **changes)
