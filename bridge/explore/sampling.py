"""Behaviours of programs that are too long, or too free, to be counted: drawn at random, within the legal set."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from ..errors import DefinitionError
from ..interconnect import Behaviour, Behaviours, Effect, Order, Profile, Program, Rules, effects, windows
from ..interconnect.behaviours import MOST_EFFECTS
from ..interconnect.order import Rows, bits
from ..interconnect.program import WINDOW

Passive = Callable[[Effect], bool]
"""Which effects a device does not look at when they arrive."""

MOST_FREE = 9
"""Effects that one effect may have no order with, for behaviours to be counted: the effort is three to that power."""
_SPREADS = (0.5, 2, 8, WINDOW)
"""By how many places an access is early or late at most: one of these for each behaviour and window."""


def behaviours_of(program: Program, rules: Rules, passive: Passive | None) -> Behaviours | None:
    """All behaviours of the program; None when they cannot be counted with reasonable effort."""
    if len(effects(program, rules.model)) > MOST_EFFECTS:
        return None
    try:
        found = Behaviours(program, rules, passive)
        if freedom(found.order.rows) > MOST_FREE:
            return None
        _ = found.count, found.reduced_count
    except DefinitionError:
        return None
    return found


def freedom(rows: Rows) -> int:
    """The most effects that any one effect has no order with."""
    after = [0] * len(rows.not_after)
    for index, row in enumerate(rows.not_after):
        for earlier in bits(row):
            after[earlier] |= 1 << index
    ordered = ((row | later).bit_count() for row, later in zip(rows.not_after, after, strict=True))
    return len(after) - 1 - min(ordered, default=len(after) - 1)


class Walks:
    """Random behaviours: all that are legal are possible, not alike likely.

    Each access is due at its place in the program, give or take some; of those that may arrive, the first one due
    does, alone or with others; with a profile, it is that which chooses. A program of more than 48 events is cut into
    windows, and a behaviour is one of each, one after the other. Raises DefinitionError for such a program with
    dependencies.
    """

    def __init__(self, program: Program, rules: Rules, profile: Profile | None = None) -> None:
        self._profile = profile
        whole = len(program.events) <= WINDOW
        if not whole and (program.dependencies or program.reads_from):
            raise DefinitionError(f"a program with dependencies must have at most {WINDOW} events to be sampled")
        parts = [program] if whole else windows(program.events, WINDOW)
        self._orders = [Order(Program(p.events, p.dependencies, p.reads_from, program.ram), rules) for p in parts]
        self._rows: dict[tuple[int, int], Rows] = {}

    def __call__(self, chance: random.Random) -> Iterator[Behaviour]:
        """Behaviours without end; masks are of the effects of the whole program."""
        while True:
            found: list[int] = []
            base = 0
            for which, order in enumerate(self._orders):
                walk = self._profile.run(order, chance) if self._profile else self._walk(which, order, chance)
                found += [block << base for block in walk]
                base += len(order.effects)
            yield tuple(found)

    def _walk(self, which: int, order: Order, chance: random.Random) -> Iterator[int]:
        absent = order.optional & chance.getrandbits(len(order.effects) + 1)
        if (which, absent) not in self._rows:
            self._rows[which, absent] = order.without(absent)
        rows = self._rows[which, absent]
        left = (1 << len(order.effects)) - 1 & ~absent
        spread = chance.choice(_SPREADS)
        due = [index + chance.uniform(-spread, spread) for index in range(len(order.effects))]
        while left:
            ready = [index for index in bits(left) if not rows.not_after[index] & left]
            block = 1 << min(ready, key=due.__getitem__)
            if chance.getrandbits(1):
                block = self._gathered(rows, left, block, chance)
            yield block
            left &= ~block

    @staticmethod
    def _gathered(rows: Rows, left: int, block: int, chance: random.Random) -> int:
        for index in bits(left & ~block):
            late = rows.before[index] & left or rows.not_after[index] & left & ~block
            if not late and not block & ~rows.gather[index] and chance.randrange(4):
                block |= 1 << index
        return block
