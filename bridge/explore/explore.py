"""Exploration: which legal behaviours of a program break what must hold, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cached_property

from ..errors import DefinitionError
from ..interconnect import RULES, Profile, Program, Rules
from ..stream import Event
from .card import Card, make_card
from .fixes import Fix, find_fixes
from .invariants import Invariant
from .judge import DRAWN, LIMIT, Setup
from .replay import Factory
from .sampling import Passive
from .search import Found, run
from .shrink import Shrunk, shrink


class LitmusFailure(AssertionError):
    """A legal behaviour breaks an invariant. The message is the litmus card."""

    def __init__(self, card: Card) -> None:
        super().__init__(str(card))
        self.card = card


class Explored(Found):
    """What an exploration found; shrinking and fixes are worked out when they are asked for."""

    @cached_property
    def shrunk(self) -> Shrunk:
        """The first failure, with the fewest accesses and in the least surprising order.

        Raises DefinitionError when there is none.
        """
        return shrink(self)

    @cached_property
    def fixes(self) -> tuple[Fix, ...]:
        """Single changes of the program that make the invariants hold, the cheapest first."""
        return find_fixes(self, self.shrunk) if self.first is not None else ()

    @cached_property
    def card(self) -> Card | None:
        """The first failure, shrunk, explained and with its fixes; None when there is none."""
        return make_card(self, self.shrunk, self.fixes) if self.first is not None else None

    def assert_holds(self) -> None:
        """Raise LitmusFailure, an AssertionError with the litmus card, unless all that was looked at holds."""
        __tracebackhide__ = True
        if self.card is not None:
            raise LitmusFailure(self.card)


def explore(
    program: Program | Iterable[Event],
    device: Factory | None = None,
    invariants: Sequence[Invariant] = (),
    *,
    seed: int = 0,
    limit: int = LIMIT,
    drawn: int = DRAWN,
    rules: Rules = RULES,
    passive: Passive | None = None,
    profile: Profile | None = None,
) -> Explored:
    """Look for legal behaviours of a program, or a recording, that break an invariant.

    All behaviours are looked at when there are at most `limit` (a hundred times as many if no device is asked), else
    `drawn` of them, or `limit` if that is less, drawn with `seed`: the same seed finds the same. A device breaks an
    invariant of its own by raising.

    Args:
        program: the labelled accesses; of a trace file, what `read_trace` gives.
        device: makes the device in its first state; None when all invariants are about arrival alone.
        invariants: what must hold.
        profile: draw behaviours of these buffers, and have its link cut them, instead of looking at all.
        passive: which effects the device does not look at when they arrive, such as writes to plain memory.

    Raises:
        DefinitionError: there is nothing to check, or a program that cannot be replayed.
    """
    if device is None and not invariants:
        raise DefinitionError("there must be a device or an invariant, not neither")
    if not isinstance(program, Program):
        program = Program.recorded(program)
    found = run(program, Setup(device, tuple(invariants), seed, limit, drawn, rules, passive, profile))
    return Explored(**{each.name: getattr(found, each.name) for each in fields(found)})
