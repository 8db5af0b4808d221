"""ESR_ELx of data aborts (Arm ARM DDI 0487, ESR_EL1: ISS encoding for an exception from a Data Abort)."""

from __future__ import annotations

from .access import Access, Effect, Kind, Outcome

DFSC_EXTERNAL = 0x10
DFSC_ALIGNMENT = 0x21
DFSC_UNSUPPORTED = 0x35  # IMPLEMENTATION DEFINED fault, Unsupported Exclusive or Atomic access

_EC_SAME, _EC_LOWER = 0x25, 0x24
_IL = 1 << 25
_WNR = 1 << 6
_ISV_AND_SYNDROME = 1 << 24 | 0x3FF << 14  # ISV, SAS, SSE, SRT, SF, AR: bits [24:14]
_LST_OR_SET = 3 << 11
_FNV, _EA = 1 << 10, 1 << 9
_ALL = 0xFFFF_FFFF


def data_abort(access: Access, level: int, dfsc: int, rule: str) -> Outcome:
    """The fault taken to EL`level`, with every bit in the mask that the architecture fixes.

    A stage-1 alignment fault has all 32 bits fixed: ISV is 0. A stage-2 one leaves bits [24:14] out: whether the
    instruction's syndrome is given depends on the instruction. WnR is UNKNOWN for DFSC 0x35 (AArch64.FaultSyndrome)
    and, with a fault that only the endpoint knows of, for atomics; DC ZVA is no cache maintenance, so CM is 0.
    """
    taken_from_lower = access.el < level
    esr = (_EC_LOWER if taken_from_lower else _EC_SAME) << 26 | _IL | dfsc
    if access.write or access.kind is Kind.DC_ZVA:
        esr |= _WNR
    mask = _ALL
    if level == 2 and taken_from_lower:
        mask &= ~_ISV_AND_SYNDROME
    if dfsc == DFSC_UNSUPPORTED:
        mask &= ~(_WNR | _LST_OR_SET)
    if dfsc == DFSC_EXTERNAL:
        mask &= ~(_LST_OR_SET | _FNV | _EA | (_WNR if access.kind is Kind.ATOMIC else 0))
    return Outcome(Effect.FAULT, level, esr & mask, mask, rule)
