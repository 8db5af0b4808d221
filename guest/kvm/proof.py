"""Whether three witnesses of a stage-2 mapping tell the same: its descriptor in memory, the guest, and the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

WITNESS = "str-x+1"
"""The operation that tells: an unaligned store faults on Device memory and works on Normal (DDI 0487, B2.15)."""


SIZE = 8
"""Bytes that it stores."""
LOAD_WITNESS = "ldr-w+1"
"""The same for registers that nothing may be written to, and which keep no record."""


class Seen(NamedTuple):
    """One `WITNESS`: where it ran ("EL1 cold"), what the guest said, and what the device recorded of it.

    ``stored`` is how many bytes of the store the device got; None where nothing keeps a record.
    """

    mode: str
    effect: str
    worked: bool
    device: str
    stored: int | None


def quarrel(memattr: int, *, normal: bool, seen: Iterable[Seen]) -> str:
    """What the three do not agree about; "" when they tell one story.

    ``normal``: stage 2 with this MemAttr leaves a Normal-NC mapping of the guest's Normal.
    """
    says = f"the descriptor has MemAttr {memattr:x}, under which an unaligned access {'works' if normal else 'faults'}"
    count = 0
    for each in seen:
        count += 1
        if each.worked != normal or each.stored not in (None, SIZE if normal else 0):
            return f"{each.mode}: {says}; the guest saw: {each.effect}; the device got: {each.device}"
    return "" if count else f"{says}, but no such access was made"
