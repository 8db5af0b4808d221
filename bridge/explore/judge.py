"""Which invariants a behaviour breaks."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DefinitionError
from ..interconnect import DEFAULT_LINK, RULES, Behaviour, Effects, Profile, Program, Rules, effects
from .invariants import Arrival, Invariant, Property, holds
from .replay import Factory, Failed, Outcome, Replay
from .sampling import Passive

LIMIT = 100_000
"""Behaviours that are all replayed, if not told otherwise."""
DRAWN = 10_000
"""Behaviours that are drawn where there are more, if not told otherwise: some seconds with a device in Python."""
RAISED = "the device does not fail"
"""The invariant that a device breaks by raising: by an assert of its own, or by failing."""


@dataclass(frozen=True)
class Setup:
    """What stays the same while programs are tried: the device, what must hold, and the rules."""

    device: Factory | None
    invariants: tuple[Invariant, ...]
    seed: int = 0
    limit: int = LIMIT
    drawn: int = DRAWN
    rules: Rules = RULES
    passive: Passive | None = None
    profile: Profile | None = None


class Judge:
    """Says which invariants a behaviour of one program breaks, and why."""

    def __init__(self, program: Program, setup: Setup) -> None:
        self.effects: Effects = effects(program, setup.rules.model)
        self.arrivals = [(each, each.resolve(self.effects)) for each in setup.invariants if isinstance(each, Arrival)]
        self._properties = [each for each in setup.invariants if isinstance(each, Property)]
        if self._properties and setup.device is None:
            raise DefinitionError(f"a device must be given to have the property {self._properties[0].name}, not None")
        link = setup.profile.link if setup.profile else DEFAULT_LINK
        self._replay = Replay(self.effects, setup.device, link) if setup.device else None

    def broken(self, behaviour: Behaviour) -> dict[str, str]:
        """The names of those that it breaks, with what was raised, or nothing."""
        found = {each.name: "" for each, native in self.arrivals if not holds(native, self.effects, behaviour)}
        if self._replay is None:
            return found
        try:
            outcome = self._replay.run(behaviour)
        except DefinitionError:
            raise
        except Exception as error:  # whatever a device raises: that it failed is what is looked for
            return found | {RAISED: _said(error)}
        for each in self._properties:
            if (why := _breaks(each, outcome)) is not None:
                found[each.name] = why
        return found

    def failed(self, behaviour: Behaviour) -> tuple[Failed, ...]:
        """The requests of it that failed in PCIe's way, if a device was asked and did not raise."""
        if self._replay is None:
            return ()
        try:
            return tuple(self._replay.run(behaviour).failed)
        except Exception:  # it has been told as the broken invariant
            return ()


def _breaks(invariant: Property, outcome: Outcome) -> str | None:
    try:
        return None if invariant.holds(outcome) else ""
    except Exception as error:  # likewise, an assert in a predicate
        return _said(error)


def _said(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
