"""In which order accesses must reach the device: Arm's peripheral arrival order (Arm ARM DDI 0487, B2.4.1.1).

One PCIe function is taken for one peripheral; the architecture leaves its size IMPLEMENTATION DEFINED.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..bridge.attributes import NGNRE, NGNRNE, MemoryType
from .operation import Element, Op

_ORDERING = frozenset({"dmb oshst", "dsb st", "stlr"})
"""What may stand before a doorbell and orders it after the payload; DGH is a hint, and orders nothing."""


def is_non_reordering(effective: MemoryType) -> bool:
    """Whether accesses arrive in program order without a barrier: nGnRnE and nGnRE."""
    return effective in (NGNRNE, NGNRE)


def doorbell_is_last(op: Op, effective: MemoryType, *, in_guest: bool) -> bool:
    """Whether the doorbell must arrive after the payload, which has the effective type given.

    A barrier orders Device and Non-cacheable accesses. Without one both must be non-reordering, as the doorbell is in
    the guest (stage 1 has nGnRE there); at EL2 it has whatever type the host maps it with.
    """
    if op.barrier in _ORDERING:
        return effective.is_device or effective.is_non_cacheable
    return in_guest and is_non_reordering(effective)


def out_of_order(made: Iterable[Element], arrivals: Sequence[tuple[bool, int]]) -> int | None:
    """Index of the first arrival, as (write, offset), of an instruction before that of an earlier arrival; or None.

    Within one instruction no order is promised (B2.10.2.4): a pair's halves, or a vector's elements, come as they like.
    """
    elements = tuple(made)
    last = 0
    for index, (write, offset) in enumerate(arrivals):
        owners = [e.instruction for e in elements if e.write == write and e.offset <= offset < e.offset + e.size]
        if owners and max(owners) < last:
            return index
        last = max(last, min(owners, default=last))
    return None
