"""The search through a program's behaviours: all of them, or drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..interconnect import Behaviour, Behaviours, Program
from .judge import RAISED, Judge, Setup
from .replay import in_program_order
from .sampling import Walks, behaviours_of

IN_C = 100
"""So many times more behaviours are checked when no device is asked, but only C."""


@dataclass(frozen=True)
class Found:
    """What a search came upon.

    `count`: the program's legal behaviours; `reduced_count`: those that the device can tell apart; None: too many to be
    counted. `checked`: those that were looked at. `complete`: nothing was left out. `broken`: by invariant, how many of
    the checked ones break it. `first` breaks the invariant `invariant`, with `message` if something was raised.
    `expected`: the program in its own order keeps that one, so that the order is to blame.
    """

    program: Program
    setup: Setup
    count: int | None
    reduced_count: int | None
    checked: int
    complete: bool
    broken: dict[str, int] = field(default_factory=dict)
    first: Behaviour | None = None
    invariant: str = ""
    message: str = ""
    expected: bool = True

    @property
    def passed(self) -> bool:
        """Whether no behaviour that was looked at breaks anything."""
        return self.first is None

    def __str__(self) -> str:
        """What was looked at, and what came of it, in one line."""
        return f"{self.extent}: {self.verdict}"

    @property
    def extent(self) -> str:
        """How many behaviours there are, and how many of them were looked at."""
        if self.setup.profile is not None:
            return (
                f"{self.checked:,} behaviours of profile {self.setup.profile.name}, drawn with seed {self.setup.seed}"
            )
        if self.count is None:
            return f"{self.checked:,} behaviours, drawn with seed {self.setup.seed} from more than could be counted"
        if self.count == 1:
            return "the one legal behaviour"
        legal = f"{self.count:,} legal behaviours"
        if not self.complete:
            return f"{self.checked:,} of {legal}, drawn with seed {self.setup.seed}"
        if self.checked != self.count:
            return f"all {legal}, which are {self.checked:,} that the device can tell apart"
        return f"all {legal}"

    @property
    def verdict(self) -> str:
        """Which invariants are broken, and how often."""
        if self.passed:
            return "every invariant holds"
        return "; ".join(f"{number:,} break “{self._named(name)}”" for name, number in self.broken.items())

    def _named(self, name: str) -> str:
        return self.message if name == RAISED == self.invariant else name


def run(program: Program, setup: Setup, *, stop: bool = False) -> Found:
    """Look at all behaviours, or at those that are drawn; with `stop`, no further than the first failure."""
    judge = Judge(program, setup)
    found = behaviours_of(program, setup.rules, setup.passive)
    if found is not None and setup.device is None and setup.profile is None and found.count <= setup.limit * IN_C:
        return _in_c(program, setup, judge, found)
    complete = setup.profile is None and found is not None and found.reduced_count <= setup.limit
    broken: dict[str, int] = {}
    first, invariant, message, checked = None, "", "", 0
    for behaviour in _chosen(program, setup, found, complete):
        checked += 1
        for name, why in judge.broken(behaviour).items():
            broken[name] = broken.get(name, 0) + 1
            if first is None:
                first, invariant, message = behaviour, name, why
        if stop and first is not None:
            complete = False
            break
    return Found(
        program,
        setup,
        found.count if found is not None else None,
        found.reduced_count if found is not None else None,
        checked,
        complete,
        broken,
        first,
        invariant,
        message,
        first is None or invariant not in judge.broken(in_program_order(judge.effects)),
    )


def _chosen(program: Program, setup: Setup, found: Behaviours | None, complete: bool) -> Iterator[Behaviour]:
    chance = random.Random(setup.seed)
    number = min(setup.drawn, setup.limit)
    if found is None or setup.profile is not None:
        return islice(Walks(program, setup.rules, setup.profile)(chance), number)
    if complete:
        return found.reduced() if setup.passive else iter(found)
    return islice(found.samples(chance), number)


def _in_c(program: Program, setup: Setup, judge: Judge, found: Behaviours) -> Found:
    checked = found.check([native for _, native in judge.arrivals])
    first, invariant = None, ""
    for (each, _), witness in zip(judge.arrivals, checked.witnesses, strict=True):
        if first is None and witness is not None:
            first, invariant = witness, each.name
    return Found(
        program,
        setup,
        found.count,
        found.reduced_count,
        checked.count,
        True,
        {each.name: number for (each, _), number in zip(judge.arrivals, checked.broken, strict=True) if number},
        first,
        invariant,
        expected=first is None or invariant not in judge.broken(in_program_order(judge.effects)),
    )
