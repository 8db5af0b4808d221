"""The scorecard: fifteen questions of the thread, each a query over a scheme's decisions and Arm's rules."""

from __future__ import annotations

from collections.abc import Callable

from .guest import cacheable, guest_types, other_hosts, two_ranges
from .host import aliases, host_mapping, host_process, side_effects
from .others import asks_nothing, contiguous, knowledge, platform
from .runtime import containment, reset, run_time
from .study import Answer, Cell, Study

#: The questions in the scorecard's order, 1 to 15.
QUESTIONS: tuple[Callable[[Study], Answer], ...] = (
    guest_types,
    asks_nothing,
    platform,
    host_mapping,
    two_ranges,
    contiguous,
    knowledge,
    host_process,
    other_hosts,
    cacheable,
    side_effects,
    run_time,
    containment,
    reset,
    aliases,
)


def scorecard(study: Study) -> tuple[Answer, ...]:
    """Answer all fifteen."""
    return tuple(question(study) for question in QUESTIONS)


__all__ = ["QUESTIONS", "Answer", "Cell", "Study", "scorecard"]
