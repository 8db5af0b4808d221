"""Small matrices, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pyvfio_user.guest.orders.results import Ordering, OrderPair, Orders, SpeculativeRead
from pyvfio_user.guest.results import Battery, Cell, HostCell, Kernel, Matrix, Proof, Row, Verdict

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
KERNEL = Kernel(
    "6.1", "6.1.0", "max", 1, "status-quo", ("trap",), judged_by="status-quo", expected="status-quo", seconds=5.0
)
PROOF = Proof(
    "6.1.0", "max", 1, "status-quo", "vfio", "policy", "wc-trapped", 32, 3, "1", "rw", "1", "KVM_RUN -EFAULT", "nothing"
)
PROVENANCE = {"experiments": 1234, "transactions": 56789, "seconds": 1.25, "jobs": [{"cpu": "max", "fwb": 1}]}

_FREE = Ordering("8 x STR x", "none", "", 9, 3_816_548, True, True, "", 863, 137, 71, 0, 1, 3, "8x8, doorbell")
_KEPT = Ordering("8 x STR x", "dmb oshst", "", 9, 545_835, True, False, "barrier [A]", 863, 137, 0, 0, 1, 3)
_ONE = [
    Ordering("8 x STR x", name, "", 9, 1, False, False, "nR [A]", 0, 1000, 0, 0, 8, 8) for name in ("none", "dmb oshst")
]
_MANY = [Ordering("memcpy", name, "", 53, None, True, True, least=2, most=6) for name in ("none", "dmb oshst")]
_FAULT = [Ordering("memcpy", name, "alignment fault (B2.10.2) at store 2") for name in ("none", "dmb oshst")]
ORDERS = Orders(
    "modelled",
    "Modelled, never seen: <what> is permitted.",
    "wc-64x4",
    "4 buffers",
    1000,
    0.1,
    {"8 x STR x": "eight STR", "memcpy": "five STR"},
    {"none": "nothing between", "dmb oshst": "DMB OSHST"},
    {
        "44>04": OrderPair("44", "04", False, "", (_FREE, _KEPT, *_MANY)),
        "04>04": OrderPair("04", "04", False, "", (*_ONE, *_FAULT)),
    },
    tuple(
        SpeculativeRead(
            "status-quo", "asking", 1, who, "strict", "bar2+0x40000 4", "44", (), "STR w", 3, 2, f"the {who}'s"
        )
        for who in ("guest", "host")
    ),
)
"""Orders of a payload as NC and as nGnRE, small ones."""


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
