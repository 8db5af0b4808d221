"""Where the rules of arrival and herd7 differ on purpose: the reasons, and how often each is one.

A reason is checked, not believed: with its variation of the rules, or of the program, the outcomes must be herd7's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pyvfio_user.bridge.interconnect.effects import DEFAULT_MODEL, Effect, Op
from pyvfio_user.bridge.interconnect.rules import (
    FORWARDED,
    ORDERED_BEFORE,
    READ_THEN_MEMORY,
    RULES,
    SAME_LOCATION,
    Facts,
    Rules,
    in_program_order,
)
from pyvfio_user.bridge.stream import Domain

from .litmus import RAM, Fence, Litmus, Outcome
from .outcomes import outcomes


def _of_any_type(first: Effect, second: Effect, facts: Facts) -> bool:
    return first.at_device and second.at_device and facts.ordered_before(first, second)


def _answered_on_any_type(first: Effect, second: Effect, facts: Facts) -> bool:
    covers = first.op is Op.WRITE and second.op is Op.READ and first.overlaps(second)
    return covers and in_program_order(first, second) and not facts.synchronised(first, second)


def _but_of_two_loads(first: Effect, second: Effect, facts: Facts) -> bool:
    return (first.writes or second.writes) and SAME_LOCATION.holds(first, second, facts)


def _after_writes_too(first: Effect, second: Effect, facts: Facts) -> bool:
    return first.at_device and second.in_ram and facts.ordered_before(first, second)


EVERY_DOMAIN = RULES.with_model(replace(DEFAULT_MODEL, domains=frozenset({Domain.SY, Domain.OSH, Domain.ISH})))
DEPENDENCIES_COUNT = replace(ORDERED_BEFORE, holds=_of_any_type)


@dataclass(frozen=True)
class Reason:
    """Why outcomes differ: what the rules say that herd7's model does not, or the other way round.

    Agreement is reached with `rules`, and with the program's barriers of the kind `without` left out.
    """

    name: str
    says: str
    rules: Rules = RULES
    without: str = ""

    def outcomes(self, program: Litmus, kind: str) -> frozenset[Outcome]:
        """Those with the variation."""
        threads = tuple(tuple(step for step in thread if step != Fence(self.without)) for thread in program.threads)
        return outcomes(replace(program, threads=threads), kind, self.rules)


REASONS = (
    Reason(
        "domain",
        "a barrier for the Inner Shareable domain is none for a device; herd7 takes all domains for one, and says so",
        EVERY_DOMAIN,
    ),
    Reason(
        "dsb-oshld",
        "herd7 7.58 does not know DSB OSHLD: its aarch64fences.cat defines DSB.OSHLD as DSB.OSH",
        without="dsb oshld",
    ),
    Reason(
        "ordered-before",
        "B2.4.1.1 (c): where a type permits Gathering only Barrier-ordered-before counts: no dependency, nor DSB ST "
        "before a read",
        RULES.replaced("ordered-before", DEPENDENCIES_COUNT),
    ),
    Reason(
        "domain, ordered-before",
        "both of these",
        EVERY_DOMAIN.replaced("ordered-before", DEPENDENCIES_COUNT),
    ),
    Reason(
        "answered",
        "B2.10.2.1: no store answers a load of a type that does not permit Gathering",
        RULES.replaced("forwarded", replace(FORWARDED, holds=_answered_on_any_type)),
    ),
    Reason(
        "two-loads",
        "B2.10.1, B2.10.2: two loads of one location arrive in order, as seen from a device; memory need only look so",
        RULES.replaced("same-location", replace(SAME_LOCATION, holds=_but_of_two_loads)),
    ),
    Reason(
        "posted",
        "PCIe 2.4.1: nothing in memory waits for a posted write; herd7's observer is another CPU, for which "
        "B2.4.1.1 (c) holds through memory",
        RULES.replaced("read-then-memory", replace(READ_THEN_MEMORY, holds=_after_writes_too)),
    ),
)

EXPECTED: Mapping[str, Mapping[str, int]] = {
    RAM: {"domain": 15, "dsb-oshld": 2, "two-loads": 2},
    "nGRE": {"domain": 15, "dsb-oshld": 2, "answered": 4, "two-loads": 2},
    "NC": {"domain": 14, "dsb-oshld": 2, "ordered-before": 173, "domain, ordered-before": 1},
    "typed": {"posted": 6},
}
"""How many programs differ, by the type that they were run with, and the reason; all others agree."""


def differing(programs: Sequence[Litmus], herd: Mapping[str, frozenset[Outcome]], kind: str) -> list[Litmus]:
    """The programs of which the rules permit other outcomes than herd7."""
    return [program for program in programs if outcomes(program, kind) != herd[program.name]]


def reasons(
    programs: Sequence[Litmus], herd: Mapping[str, frozenset[Outcome]], kind: str
) -> tuple[dict[str, int], list[str]]:
    """How many programs differ for each reason (the first that holds), and the names of those that none explains."""
    found: Counter[str] = Counter()
    unexplained: list[str] = []
    for program in differing(programs, herd, kind):
        for reason in REASONS:
            if reason.outcomes(program, kind) == herd[program.name]:
                found[reason.name] += 1
                break
        else:
            unexplained.append(program.name)
    return dict(found), unexplained
