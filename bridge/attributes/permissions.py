"""What each effective memory type permits, as one record (Arm ARM DDI 0487 B2.10)."""

from __future__ import annotations

from dataclasses import dataclass

from .memory_type import MemoryType


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a type lets the machine do with plain accesses, and a program rely on.

    `atomics`: "guaranteed" or "implementation defined". `unaligned`, `dc_zva`, `st64b`: works, else it faults (`st64b`
    as without FEAT_LS64WB). The first three hold between plain accesses of one register; SVE, memory copies and
    multi-register accesses are freer on every Device type (B2.10.2.1, B2.10.2.4, B2.10.2.5).
    """

    gathering: bool
    reordering: bool
    early_ack: bool
    speculation: bool
    unaligned: bool
    dc_zva: bool
    atomics: str
    st64b: bool


def permissions(memory_type: MemoryType) -> Permissions:
    """What `memory_type` permits as an effective type."""
    normal = not memory_type.is_device
    return Permissions(
        gathering=memory_type.gathering,
        reordering=memory_type.reordering,
        early_ack=memory_type.early_ack,
        speculation=memory_type.speculation,
        unaligned=normal,
        dc_zva=normal,
        atomics="guaranteed" if memory_type.is_write_back else "implementation defined",
        st64b=memory_type.is_device or memory_type.is_non_cacheable,
    )
