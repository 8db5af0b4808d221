"""What the rules permit of one program, and what a profile's buffers make of it; equal programs are worked out once.

Two programs are equal when their effects lie alike and have the same order: NC and GRE mostly are, and so are DMB OSHST
and a store-release.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import pairwise

from ...bridge.errors import DefinitionError
from ...bridge.interconnect import RULES, Behaviour, Effects, Order, Packets, Profile, Program, Rules
from ...bridge.interconnect.counting import count_of
from ...bridge.interconnect.order import Rows, bits
from ...bridge.stream import Kind
from .programs import SIZE, WINDOW_BAR


@dataclass(frozen=True)
class Measured:
    """One program.

    `legal`: its legal behaviours; None: too many to be counted. `one_tlp`: whether one of them brings the payload as a
    single TLP of 64 bytes; `early`: whether one brings the doorbell before the whole payload; `kept_by`: the rules by
    which none does. Under the profile, of `runs`: `whole` brought that one TLP, `torn` more than one, `early_runs` the
    doorbell before the payload was whole, `shuffled` parts of the payload in another order than ascending; it came in
    `least` to `most` TLPs.
    """

    effects: int
    legal: int | None
    one_tlp: bool
    early: bool
    kept_by: str
    runs: int
    whole: int
    torn: int
    early_runs: int
    shuffled: int
    least: int
    most: int


class Measure:
    """Measures programs under one profile, with seeds 0 to `seeds` - 1. Raises DefinitionError for no seeds."""

    def __init__(self, profile: Profile, seeds: int, rules: Rules = RULES) -> None:
        if seeds < 1:
            raise DefinitionError(f"seeds must be at least 1, not {seeds}")
        self.profile, self.seeds, self._rules = profile, seeds, rules
        self._known: dict[Hashable, Measured] = {}

    @property
    def distinct(self) -> int:
        """How many programs differed so far."""
        return len(self._known)

    def __call__(self, program: Program) -> Measured:
        """What a program of `programs.program` comes to: its last effect is the doorbell."""
        order = Order(program, self._rules)
        relation = tuple(order.variants())
        key = (relation, _shape(order))
        if key not in self._known:
            self._known[key] = self._measure(order, _count(relation))
        found = self._known[key]
        return found if found.early else replace(found, kept_by=_kept_by(order))

    def _measure(self, order: Order, legal: int | None) -> Measured:
        payload, bell = _parts(order.effects)
        early = any(payload & ~rows.before[bell] for _, rows in order.variants())
        runs = _Runs(order, self.profile, payload, bell)
        for seed in range(1 if legal == 1 else self.seeds):
            runs.add(self.profile.run(order, seed))
        every = self.seeds if legal == 1 else 1
        return Measured(
            len(order.effects),
            legal,
            _as_one(order, payload),
            early,
            "",
            self.seeds,
            every * runs.whole,
            every * runs.torn,
            every * runs.early,
            every * runs.shuffled,
            runs.least,
            runs.most,
        )


def _shape(order: Order) -> Hashable:
    """What a profile's run depends on, besides the relation: where effects lie, and where the hints are."""
    found = order.effects
    firsts = {effect.instruction: effect.index for effect in reversed(found.all)}
    hints = tuple(at for at, event in enumerate(found.program.events) if event.kind is Kind.DGH)
    return (
        tuple((e.op, e.offset, e.size, e.event.bar, e.gathering, firsts[e.instruction], e.optional) for e in found),
        tuple(sum(e.position < hint for e in found) for hint in hints),
    )


def _parts(found: Effects) -> tuple[int, int]:
    """The mask of the payload's effects, and the doorbell's number."""
    payload = sum(effect.bit for effect in found if effect.event.bar == WINDOW_BAR and effect.writes)
    return payload, len(found) - 1


def _count(relation: tuple[tuple[int, Rows], ...]) -> int | None:
    try:
        return count_of(relation)
    except DefinitionError:
        return None


def _as_one(order: Order, payload: int) -> bool:
    """Whether all of the payload may arrive as one block, and that is one TLP on an ordinary link."""
    sent = Packets(order.effects).of_block(payload)
    if len(sent) != 1 or len(sent[0].span) != SIZE:
        return False
    together = (rows.gather for _, rows in order.variants())
    return any(all(not payload & ~(gather[index] | 1 << index) for index in bits(payload)) for gather in together)


def _kept_by(order: Order) -> str:
    """The rules that keep the doorbell behind each effect of the payload."""
    payload, bell = _parts(order.effects)
    rules = (edge.rule for index in bits(payload) for edge in order.explain(index, bell))
    return "; ".join(dict.fromkeys(map(str, rules)))


class _Runs:
    """Counts what a profile's behaviours brought."""

    def __init__(self, order: Order, profile: Profile, payload: int, bell: int) -> None:
        self._packets = Packets(order.effects, profile.link)
        self._payload, self._bell = payload, 1 << bell
        self.whole = self.torn = self.early = self.shuffled = self.most = 0
        self.least = len(order.effects) * SIZE

    def add(self, behaviour: Behaviour) -> None:
        """One more behaviour."""
        arrived = 0
        sent: list[range] = []
        for block in behaviour:
            if block & self._payload:
                sent += [t.span for t in self._packets.of_block(block) if t.effects & self._payload]
            if block & self._bell and self._payload & ~arrived:
                self.early += 1
            arrived |= block
        self.whole += len(sent) == 1 and len(sent[0]) == SIZE
        self.torn += len(sent) > 1
        self.shuffled += any(one.start > two.start for one, two in pairwise(sent))
        self.least, self.most = min(self.least, len(sent)), max(self.most, len(sent))
