"""The Arm architecture's rules for memory types: encodings, combination, what each permits, which accesses fault.

Nothing here knows a device, a hypervisor or an emulator; every rule names its section of the Arm ARM (DDI 0487).
"""

from __future__ import annotations

from .access import PAGE, Access, Effect, Kind, Outcome, permitted
from .combination import DEFAULT_CONTROLS, Controls, Stage2, combine, decode_stage2, effective_stage1, encode_stage2
from .esr import DFSC_ALIGNMENT, DFSC_EXTERNAL, DFSC_UNSUPPORTED
from .faults import DEFAULT_IMPLEMENTATION, Implementation, Page, outcomes
from .memory_type import (
    GRE,
    MEMORY_TYPES,
    NGNRE,
    NGNRNE,
    NGRE,
    NORMAL_NC,
    NORMAL_WB,
    NORMAL_WT,
    TAGGED_WB,
    TAGGED_WB_NO_TAG_ACCESS,
    Cacheability,
    MemoryType,
)
from .permissions import Permissions, permissions

__all__ = [
    "DEFAULT_CONTROLS",
    "DEFAULT_IMPLEMENTATION",
    "DFSC_ALIGNMENT",
    "DFSC_EXTERNAL",
    "DFSC_UNSUPPORTED",
    "GRE",
    "MEMORY_TYPES",
    "NGNRE",
    "NGNRNE",
    "NGRE",
    "NORMAL_NC",
    "NORMAL_WB",
    "NORMAL_WT",
    "PAGE",
    "TAGGED_WB",
    "TAGGED_WB_NO_TAG_ACCESS",
    "Access",
    "Cacheability",
    "Controls",
    "Effect",
    "Implementation",
    "Kind",
    "MemoryType",
    "Outcome",
    "Page",
    "Permissions",
    "Stage2",
    "combine",
    "decode_stage2",
    "effective_stage1",
    "encode_stage2",
    "outcomes",
    "permissions",
    "permitted",
]
