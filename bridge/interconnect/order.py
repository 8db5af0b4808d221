"""The order of arrival as a relation over effects, in rows of bits; `rules` has the rules."""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import NamedTuple

from ..attributes import NGNRNE
from ..stream import BAR_CONFIG, Barrier, BarrierKind
from .effects import Effect, Effects, Model, Op, effects
from .program import MSI_ADDRESS, DependencyKind, Program
from .rules import RULES, Rule, Rules, in_program_order


class ProgramFacts:
    """What rules ask: barriers between, dependencies, and chains of both."""

    def __init__(self, found: Effects, rules: Rules) -> None:
        self._effects = found
        self._model = rules.model
        self._barriers: dict[int, list[int]] = defaultdict(list)
        self._isb: dict[int, list[int]] = defaultdict(list)
        program = found.program
        for position, event in enumerate(program.events):
            barrier = event.barrier
            if barrier is None or barrier.kind is BarrierKind.SB:
                continue
            if barrier.kind is BarrierKind.ISB:
                self._isb[event.vcpu].append(position)
            elif barrier.domain in rules.model.domains:
                self._barriers[event.vcpu].append(position)
        self._dependencies = program.dependencies
        self._reads_from = set(program.reads_from)
        self._fenced = [self._row(effect, rules.barriers) for effect in found]
        observed = [self._row(effect, rules.observed) for effect in found]
        dependent = [self._row(effect, rules.dependent) for effect in found]
        self._synchronised = _closed([a | b for a, b in zip(self._fenced, observed, strict=True)])
        self._ordered = _closed([a | b | c for a, b, c in zip(self._fenced, observed, dependent, strict=True)])

    def _row(self, second: Effect, rules: tuple[Rule, ...]) -> int:
        earlier = self._effects.all[: second.index]
        return sum(e.bit for e in earlier if any(rule.holds(e, second, self) for rule in rules))

    @property
    def model(self) -> Model:
        """See `rules.Facts`."""
        return self._model

    def _between(self, first: Effect, second: Effect) -> Iterator[Barrier]:
        """The barriers, in domains that order at a device, between two effects in program order."""
        if in_program_order(first, second):
            positions = self._barriers[first.vcpu]
            for position in positions[bisect(positions, first.position) : bisect(positions, second.position)]:
                barrier = self._effects.program.events[position].barrier
                if barrier is not None:
                    yield barrier

    def fenced(self, first: Effect, second: Effect, *kinds: BarrierKind) -> bool:
        """See `rules.Facts`."""
        for barrier in self._between(first, second):
            if barrier.kind in kinds:
                if barrier.loads and (barrier.stores or first.reads):
                    return True
                if barrier.stores and first.writes and second.writes:
                    return True
        return False

    def completed(self, first: Effect, second: Effect) -> bool:
        """See `rules.Facts`."""
        return any(
            (barrier.loads and first.reads) or (barrier.stores and first.writes)
            for barrier in self._between(first, second)
            if barrier.kind is BarrierKind.DSB
        )

    def barrier_ordered_before(self, first: Effect, second: Effect) -> bool:
        """Whether one of the rules on barriers, acquire and release orders the two by itself."""
        return bool(self._fenced[second.index] & first.bit)

    def synchronised(self, first: Effect, second: Effect) -> bool:
        """See `rules.Facts`."""
        return bool(self._synchronised[second.index] & first.bit)

    def ordered_before(self, first: Effect, second: Effect) -> bool:
        """See `rules.Facts`."""
        return bool(self._ordered[second.index] & first.bit)

    def depends(self, first: Effect, second: Effect) -> bool:
        """See `rules.Facts`. A branch is taken to be right behind the load that it depends on."""
        if not in_program_order(first, second):
            return False
        return any(
            self._through(d.second, d.kind, first, second) for d in self._dependencies if d.first == first.instruction
        )

    def _through(self, on: int, kind: DependencyKind, first: Effect, second: Effect) -> bool:
        if kind is not DependencyKind.CONTROL and (second.instruction == on or self._read_back(on, second)):
            return True
        if kind is DependencyKind.DATA or second.instruction < on:
            return False
        # An address or a branch: what is behind it writes only when it is known, and reads if an ISB is between.
        after = first.position if kind is DependencyKind.CONTROL else on
        return second.writes or any(after < position < second.position for position in self._isb[second.vcpu])

    def _read_back(self, store: int, load: Effect) -> bool:
        """Whether the instruction is the last store to the load's location before it: even one that the store answers
        needs its address and its data (B2.3.4, Local read successor).
        """
        stores = [e.instruction for e in self._effects if e.writes and in_program_order(e, load) and e.overlaps(load)]
        return load.reads and bool(stores) and stores[-1] == store

    def reads_from(self, first: Effect, second: Effect) -> bool:
        """See `rules.Facts`."""
        return (first.instruction, second.instruction) in self._reads_from

    def handles(self, first: Effect, second: Effect) -> bool:
        """See `rules.Facts`."""
        if not first.by_device or first.offset != MSI_ADDRESS or second.by_device or second.optional:
            return False
        return any(
            sent == first.instruction and handler <= second.instruction and second.vcpu == self._vcpu_at(handler)
            for sent, handler in self._reads_from
        )

    def _vcpu_at(self, position: int) -> int:
        return self._effects.program.events[position].vcpu


def _closed(rows: list[int]) -> list[int]:
    """Transitive closure of rows of predecessors; all have lower numbers than what they precede."""
    for index, row in enumerate(rows):
        for earlier in bits(row):
            rows[index] |= rows[earlier]
    return rows


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class Rows(NamedTuple):
    """The relation: of each effect, which others arrive strictly before it, which not after it, and which with it.

    `not_after` includes `before`. What may be gathered is symmetric, and without the effect itself.
    """

    before: tuple[int, ...]
    not_after: tuple[int, ...]
    gather: tuple[int, ...]


class Edge(NamedTuple):
    """One step of an explanation: `first` arrives before `second` by this rule (or not after it, if it is weak)."""

    first: int
    second: int
    rule: Rule

    def __str__(self) -> str:
        """As in `0 -> 8: barrier [A] B2.4.1.1 (c), B2.3.12 DMB, DSB`."""
        return f"{self.first} -> {self.second}: {self.rule}"


class Order:
    """In which order a program's effects arrive, by some rules; every edge goes from a lower number to a higher one."""

    def __init__(self, program: Program, rules: Rules = RULES) -> None:
        self.rules = rules
        self.effects = effects(program, rules.model)
        self._facts = ProgramFacts(self.effects, rules)
        self._direct: dict[int, dict[int, Rule]] = defaultdict(dict)
        self._without: dict[int, Rows] = {}
        self.optional = 0
        """The effects that need not arrive: speculative reads, and reads that a store may answer."""
        for second in self.effects:
            for first in self.effects.all[: second.index]:
                rule = self._rule(first, second)
                if rule is not None:
                    self._direct[second.index][first.index] = rule
            self.optional |= second.bit if second.optional or self._answered(second) else 0
        self.rows = self.without(0)

    def _answered(self, load: Effect) -> bool:
        """Whether stores that are still in a buffer may have all bytes of a load between them."""
        wanted = set(range(load.offset, load.end))
        for store in self.effects.all[: load.index]:
            if any(rule.holds(store, load, self._facts) for rule in self.rules.answered):
                wanted.difference_update(range(store.offset, store.end))
        return not wanted

    def _rule(self, first: Effect, second: Effect) -> Rule | None:
        """Why `first` arrives before `second`, or not after it; strict rules come first."""
        facts, rules = self._facts, self.rules
        fenced = facts.barrier_ordered_before(first, second)
        if fenced and first.at_device and second.at_device and first.place == second.place:
            for rule in rules.barriers:
                if rule.holds(first, second, facts):
                    return rule
        found = [rule for rule in rules.arrival if rule.holds(first, second, facts)]
        return next((rule for rule in found if not rule.weak), found[0] if found else None)

    def without(self, absent: int) -> Rows:
        """The relation among the effects that are not in the mask: an effect that never arrives orders nothing."""
        if absent not in self._without:
            self._without[absent] = self._rows_without(absent)
        return self._without[absent]

    def variants(self) -> Iterator[tuple[int, Rows]]:
        """Each set of optional effects that do not arrive, as a mask, and the relation among the others."""
        absent = 0
        while True:
            yield absent, self.without(absent)
            absent = (absent - self.optional) & self.optional
            if not absent:
                return

    def _rows_without(self, absent: int) -> Rows:
        before: list[int] = []
        not_after: list[int] = []
        gather: list[int] = []
        for effect in self.effects:
            strict = weak = together = 0
            if not effect.bit & absent:
                for other, rule in self._direct[effect.index].items():
                    if absent >> other & 1:
                        continue
                    weak |= 1 << other | not_after[other]
                    ordered = self._strict(self.effects[other], effect, rule)
                    strict |= 1 << other | not_after[other] if ordered else before[other]
                for first in self.effects.all[: effect.index]:
                    if not (first.bit & (absent | strict)) and self.apart(first, effect) is None:
                        together |= first.bit
                for other in bits(together):
                    gather[other] |= effect.bit
            before.append(strict)
            not_after.append(weak | strict)
            gather.append(together)
        return Rows(tuple(before), tuple(not_after), tuple(gather))

    def _strict(self, first: Effect, second: Effect, rule: Rule) -> bool:
        return not rule.weak or self.apart(first, second) is not None

    def apart(self, first: Effect, second: Effect) -> Rule | None:
        """Why two effects may not be gathered whatever their order; None: nothing is against it."""
        return next((rule for rule in self.rules.apart if rule.holds(first, second, self._facts)), None)

    def arrives_before(self, first: int, second: int) -> bool:
        """Whether the effect arrives strictly before the other, in every behaviour that has both."""
        return bool(self.rows.before[second] >> first & 1)

    def may_gather(self, first: int, second: int) -> bool:
        """Whether the two may arrive as one."""
        return bool(self.rows.gather[first] >> second & 1)

    def explain(self, first: int, second: int) -> tuple[Edge, ...]:
        """The fewest steps by which `first` arrives before `second`, or not after it; () when it may come after."""
        strict = self.arrives_before(first, second)
        queue: deque[tuple[int, bool, tuple[Edge, ...]]] = deque([(second, False, ())])
        seen = {(second, False)}
        while queue:
            at, had_strict, path = queue.popleft()
            for earlier, rule in self._direct[at].items():
                strictly = self._strict(self.effects[earlier], self.effects[at], rule)
                state = (earlier, had_strict or strictly)
                steps = (Edge(earlier, at, rule), *path)
                if earlier == first and (state[1] or not strict):
                    return steps
                if state not in seen:
                    seen.add(state)
                    queue.append((*state, steps))
        return ()

    def proven(self, position: int) -> int:
        """The effects that have arrived when a DSB at `position` of the program is done, as a mask.

        A write's acknowledgement may be early (B2.10.2.3), and a posted one's always is: only the completion of a read,
        or of a configuration write, is the device's word; with it, what arrives before that has arrived.
        """
        event = self.effects.program.events[position]
        barrier = event.barrier
        if barrier is None or barrier.kind is not BarrierKind.DSB or barrier.domain not in self.rules.model.domains:
            return 0
        proven = 0
        for effect in self.effects:
            if effect.vcpu != event.vcpu or effect.position > position or effect.bit & self.optional:
                continue
            read = barrier.loads and effect.at_device and effect.op is Op.READ
            if read or (barrier.stores and effect.event.bar == BAR_CONFIG and effect.type == NGNRNE):
                proven |= effect.bit | self.rows.not_after[effect.index]
        return proven
