"""Shrinking: to the fewest accesses, and the least surprising order, that still break the same invariant."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..errors import DefinitionError
from ..interconnect import Behaviour, Dependency, Effects, Order, Program
from ..interconnect.order import Rows, bits
from ..interconnect.program import WINDOW
from ..stream import Kind
from .judge import Judge
from .replay import Failed, answerable, in_program_order
from .sampling import behaviours_of
from .search import Found

MOST_SEARCHED = 5_000
"""Behaviours of a shrunk program that are looked at for the least surprising one."""


@dataclass(frozen=True)
class Shrunk:
    """A part of a program, `positions` of its events, and a behaviour that breaks the same invariant.

    `failed`: requests in it that fail. `least`: no legal behaviour of it that breaks the invariant is closer to
    program order. `missing`: pairs of effects; if the first of any one pair had to arrive before the second, the
    invariant would hold.
    """

    program: Program
    positions: tuple[int, ...]
    behaviour: Behaviour
    order: Order
    message: str
    least: bool
    missing: tuple[tuple[int, int], ...]
    failed: tuple[Failed, ...] = ()


def shrink(explored: Found) -> Shrunk:
    """Shrink the first failure. Raises DefinitionError when there is none."""
    if explored.first is None:
        raise DefinitionError("an exploration must have found a failure to be shrunk, not none")
    return _Shrinker(explored, explored.first).shrink()


def surprise(behaviour: Behaviour) -> tuple[int, int, Behaviour]:
    """How far it is from program order: pairs that changed places and effects gathered; then those gathered."""
    gathered = sum(block.bit_count() - 1 for block in behaviour)
    later, changed = 0, 0
    for block in reversed(behaviour):
        for index in bits(block):
            changed += (later & (1 << index) - 1).bit_count()
        later |= block
    return changed + gathered, gathered, behaviour


def unlikely(behaviour: Behaviour, ordinary: int) -> tuple[int, int, Behaviour]:
    """As `surprise`, and each speculative read that was made, and each load that did not arrive, counts too."""
    changes, gathered, blocks = surprise(behaviour)
    return changes + (sum(behaviour) ^ ordinary).bit_count(), gathered, blocks


def is_legal(order: Order, behaviour: Behaviour) -> bool:
    """Whether the order of arrival permits the behaviour."""
    everything = (1 << len(order.effects)) - 1
    absent = everything & ~sum(behaviour)
    if absent & ~order.optional:
        return False
    rows = order.without(absent) if absent else order.rows
    done = 0
    for block in behaviour:
        for index in bits(block):
            late = rows.before[index] & ~done or rows.not_after[index] & ~(done | block)
            if late or block & ~(rows.gather[index] | 1 << index):
                return False
        done |= block
    return True


def part_of(program: Program, positions: Sequence[int]) -> Program:
    """The program with these of its events alone, and what is between them of dependencies."""
    new = {old: at for at, old in enumerate(positions)}
    return Program(
        tuple(program.events[position] for position in positions),
        tuple(d._replace(first=new[d.first], second=new[d.second]) for d in program.dependencies if _both(d, new)),
        tuple((new[pair[0]], new[pair[1]]) for pair in program.reads_from if _both(pair, new)),
        program.ram,
    )


def _both(pair: Dependency | tuple[int, int], new: dict[int, int]) -> bool:
    return pair[0] in new and pair[1] in new


class _Shrinker:
    def __init__(self, explored: Found, behaviour: Behaviour) -> None:
        self._explored = explored
        self._setup = explored.setup
        self._positions = list(range(len(explored.program.events)))
        self._behaviour = behaviour
        self._judge = Judge(explored.program, explored.setup)

    def shrink(self) -> Shrunk:
        size = len(self._positions) // 2
        while len(self._positions) > WINDOW and size > 1:
            self._drop_pieces(size)
            size //= 2
        self._drop_pieces(1)
        self._drop_pieces(1, search=True)
        judge = self._judge
        program = judge.effects.program
        order = Order(program, self._setup.rules)
        found = behaviours_of(program, self._setup.rules, None)
        if found is not None and found.count <= MOST_SEARCHED:
            failing = [each for each in found if self._fails(judge, each)] or [self._behaviour]
            self._behaviour = min(failing, key=lambda each: unlikely(each, _ordinary(order.effects)))
            missing, least = _missing(failing, self._behaviour), True
        else:
            least = self._nearest(order, judge)
            if not least:
                self._approach(order, judge)
            missing = tuple(_changed(self._behaviour))
        message = judge.broken(self._behaviour)[self._explored.invariant]
        failed = judge.failed(self._behaviour)
        return Shrunk(program, tuple(self._positions), self._behaviour, order, message, least, missing, failed)

    def _fails(self, judge: Judge, behaviour: Behaviour) -> bool:
        return self._explored.invariant in judge.broken(behaviour)

    def _drop_pieces(self, size: int, *, search: bool = False) -> None:
        """Leave out pieces of `size` accesses as long as any can be; then barriers that nothing is before or after.

        Without them the same behaviour must fail, or with `search` any. What reads what stays: without it, what is
        looked at would be another case.
        """
        changed = True
        while changed:
            changed = False
            premises = {position for pair in self._explored.program.reads_from for position in pair}
            accesses = [p for p in self._positions if self._is_access(p) and p not in premises]
            for end in range(len(accesses), 0, -size):
                piece = set(accesses[max(0, end - size) : end])
                kept = [p for p in self._positions if p not in piece]
                changed |= self._keep(kept, exact=size == 1, search=search)
            changed &= size == 1
        self._keep(self._between(), exact=False)

    def _is_access(self, position: int) -> bool:
        return self._explored.program.events[position].kind not in (Kind.BARRIER, Kind.DGH, Kind.LOST)

    def _between(self) -> list[int]:
        """The positions without barriers that no access of their vCPU is before, or after, or that come twice."""
        events = self._explored.program.events
        spans: dict[int, list[int]] = {}
        for position in filter(self._is_access, self._positions):
            spans.setdefault(events[position].vcpu, []).append(position)
        kept: list[int] = []
        for position in self._positions:
            event = events[position]
            if not self._is_access(position):
                mine = spans.get(event.vcpu, [])
                last = events[kept[-1]] if kept else None
                same = last is not None and (last.kind, last.barrier) == (event.kind, event.barrier)
                twice = last is not None and same and last.vcpu == event.vcpu
                if not mine or not mine[0] < position < mine[-1] or twice:
                    continue
            kept.append(position)
        return kept

    def _keep(self, positions: list[int], *, exact: bool, search: bool = False) -> bool:
        """Go on with these positions if the invariant still breaks; with `exact`, if no order between them is lost."""
        if not positions or len(positions) == len(self._positions):
            return False
        kept = set(positions)
        before = self._judge.effects
        judge = Judge(part_of(self._explored.program, positions), self._setup)
        remaining = [e.index for e in before if self._positions[e.position] in kept]
        if len(remaining) != len(judge.effects):
            return False
        bit = {index: 1 << at for at, index in enumerate(remaining)}
        moved = (sum(bit.get(index, 0) for index in bits(block)) for block in self._behaviour)
        behaviour: Behaviour | None = tuple(block for block in moved if block)
        absent = (e for e in judge.effects if not e.optional and not e.bit & sum(behaviour or ()))
        if not search and not all(answerable(judge.effects, load) for load in absent):
            return False
        if not search and not self._fails(judge, behaviour or ()):
            return False
        if self._explored.expected and self._fails(judge, in_program_order(judge.effects)):
            return False
        if exact:
            order = Order(judge.effects.program, self._setup.rules)
            if _looser(order.rows, _restricted(self._rows(before, remaining), remaining)):
                return False
            if not search and not is_legal(order, behaviour or ()):
                return False  # what is left out had loosened the rest
        if search and (behaviour := self._failing(judge)) is None:
            return False
        self._positions, self._behaviour, self._judge = positions, behaviour or (), judge
        return True

    def _failing(self, judge: Judge) -> Behaviour | None:
        """A behaviour that fails, if there are few enough to look at all."""
        found = behaviours_of(judge.effects.program, self._setup.rules, None)
        if found is None or found.count > MOST_SEARCHED:
            return None
        return next((each for each in found if self._fails(judge, each)), None)

    def _rows(self, found: Effects, remaining: Sequence[int]) -> Rows:
        """What is permitted of those that remain while the others are there, but for what need not arrive."""
        order = Order(found.program, self._setup.rules)
        return order.without(order.optional & ~sum(1 << index for index in remaining))

    def _nearest(self, order: Order, judge: Judge) -> bool:
        """Search from program order outwards; False when nothing was found near enough."""
        ordinary = _ordinary(order.effects)
        start = in_program_order(order.effects)
        queue, seen = [(unlikely(start, ordinary), start)], {start}
        for _ in range(MOST_SEARCHED):
            if not queue:
                break
            _, behaviour = heapq.heappop(queue)
            if self._fails(judge, behaviour):
                self._behaviour = behaviour
                return True
            for each in _neighbours(behaviour, order.optional):
                if each not in seen and is_legal(order, each):
                    seen.add(each)
                    heapq.heappush(queue, (unlikely(each, ordinary), each))
        return False

    def _approach(self, order: Order, judge: Judge) -> None:
        """Step by step to a behaviour of which no single step leads closer to program order and still fails."""
        ordinary = _ordinary(order.effects)
        found = True
        while found:
            found = False
            for each in sorted(_neighbours(self._behaviour, order.optional), key=lambda each: unlikely(each, ordinary)):
                closer = unlikely(each, ordinary) < unlikely(self._behaviour, ordinary)
                if closer and is_legal(order, each) and self._fails(judge, each):
                    self._behaviour, found = each, True
                    break


def _ordinary(found: Effects) -> int:
    return sum(in_program_order(found))


def _restricted(rows: Rows, remaining: Sequence[int]) -> Rows:
    """The same relation among some of the effects, numbered anew."""
    bit = {index: 1 << at for at, index in enumerate(remaining)}
    every = (tuple(sum(bit.get(other, 0) for other in bits(row[index])) for index in remaining) for row in rows)
    return Rows(*every)


def _looser(one: Rows, other: Rows) -> bool:
    """Whether the one permits anything that the other does not."""
    pairs = (*zip(other.before, one.before, strict=True), *zip(other.not_after, one.not_after, strict=True))
    return any(must & ~does for must, does in (*pairs, *zip(one.gather, other.gather, strict=True)))


def _neighbours(behaviour: Behaviour, optional: int) -> Iterator[Behaviour]:
    """Two blocks change places or become one, one is split, or an optional effect is left out or comes in."""
    for at, block in enumerate(behaviour):
        before, behind = behaviour[:at], behaviour[at + 1 :]
        if at:
            yield (*before[:-1], block, before[-1], *behind)
            yield (*before[:-1], block | before[-1], *behind)
        for index in bits(block):
            alone, rest = 1 << index, block & ~(1 << index)
            if rest:
                yield (*before, alone, rest, *behind)
                yield (*before, rest, alone, *behind)
            if alone & optional:
                yield (*before, *((rest,) if rest else ()), *behind)
    for index in bits(optional & ~sum(behaviour)):
        for at in range(len(behaviour) + 1):
            yield (*behaviour[:at], 1 << index, *behaviour[at:])


def _changed(behaviour: Behaviour) -> Iterator[tuple[int, int]]:
    """Pairs of effects of which the first, by number, did not arrive first: it came later, or as one with the other."""
    place = {index: at for at, block in enumerate(behaviour) for index in bits(block)}
    for first, second in combinations(sorted(place), 2):
        if place[first] >= place[second]:
            yield first, second


def _missing(failing: Sequence[Behaviour], least: Behaviour) -> tuple[tuple[int, int], ...]:
    """Those of the least surprising one's changed pairs of which one had to be in order; all, if one is not enough."""
    changed = tuple(_changed(least))
    everywhere = set(changed).intersection(*(set(_changed(each)) for each in failing))
    return tuple(pair for pair in changed if pair in everywhere) or changed
