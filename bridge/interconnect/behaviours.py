"""All legal behaviours of a small program: enumerated (in C), sampled, checked (in C), and counted (`counting`).

A behaviour is an ordered partition of the effects that arrive: linear extensions of the order, with gathering. With
passive effects, two are equivalent when a device that only looks at the others cannot tell them apart: the other
effects arrive in the same blocks and order, with the same passive effects in them, and before each of those blocks
the same set of passive effects has arrived. Then the bytes that these wrote are the same too, for passive effects are
writes, and one that overlaps another write which it has no order with is not taken for passive.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import DefinitionError
from ..hotpath._native import ffi, lib
from .counting import count_of
from .effects import Effect, Effects, Op
from .invariants import Invariant, data_in, only_image
from .order import Order, Rows, bits
from .program import Program
from .rules import RULES, Rules

Behaviour = tuple[int, ...]
"""The blocks in their order of arrival, each a mask of effects."""

MOST_EFFECTS = 64
MOST_OPTIONAL = 12
MOST_STEPS = 3_000_000
"""Before behaviours can be drawn, from one set that has arrived to the next: seconds. For twenty stores to one line it
takes two thirds of that."""
_BATCH = 1024


@dataclass(frozen=True)
class Checked:
    """How many behaviours were checked, whether those are all, and by invariant how many broke it, and the first."""

    count: int
    complete: bool
    broken: tuple[int, ...]
    witnesses: tuple[Behaviour | None, ...]

    @property
    def passed(self) -> bool:
        """Whether no invariant was broken."""
        return not any(self.broken)


class _Counter:
    """Counts by dynamic programming over what has arrived; the table then also draws, each behaviour alike."""

    def __init__(self, rows: Rows, present: int, passive: int) -> None:
        self._rows, self._present, self._passive = rows, present, passive
        self._counts: dict[int, int] = {}
        self._taken = 0
        self._twins = [
            [sum(1 << index for index in group[:arrived]) for arrived in range(len(group) + 1)]
            for group in twins(rows, present, passive)
        ]

    def count(self, done: int = 0) -> int:
        """How many ways there are to go on from `done`: as many, whichever of some twins have arrived."""
        if done == self._present:
            return 1
        for first in self._twins:
            done = done & ~first[-1] | first[(done & first[-1]).bit_count()]
        if done not in self._counts:
            found = 0
            for step in self._steps(done):
                self._taken += 1
                if self._taken > MOST_STEPS:
                    raise DefinitionError(f"a count must take at most {MOST_STEPS} steps: let a profile run instead")
                found += self.count(self._after(done, step))
            self._counts[done] = found
        return self._counts[done]

    def draw(self, chance: random.Random) -> Behaviour:
        """One behaviour, each as likely as any other."""
        done = 0
        found: list[int] = []
        while done != self._present:
            left = chance.randrange(self.count(done))
            for step in self._steps(done):
                left -= self.count(self._after(done, step))
                if left < 0:
                    break
            found.extend(step)
            done = self._after(done, step)
        return tuple(found)

    @staticmethod
    def _after(done: int, step: Behaviour) -> int:
        for block in step:
            done |= block
        return done

    def _steps(self, done: int) -> Iterator[Behaviour]:
        """The next block that is not passive, and before it passive effects one by one."""
        left = self._present & ~done
        if not left & ~self._passive:
            yield tuple(1 << index for index in bits(left))
            return
        for arrived in self._passive_sets(done, 0, list(bits(left & self._passive))):
            lead = tuple(1 << index for index in bits(arrived))
            for block in self._blocks(done | arrived, 0, list(bits(left & ~arrived))):
                if block & ~self._passive:
                    yield (*lead, block)

    def _passive_sets(self, done: int, arrived: int, candidates: list[int]) -> Iterator[int]:
        yield arrived
        for at, index in enumerate(candidates):
            if not self._rows.not_after[index] & ~(done | arrived):
                yield from self._passive_sets(done, arrived | 1 << index, candidates[at + 1 :])

    def _blocks(self, done: int, block: int, candidates: list[int]) -> Iterator[int]:
        rows = self._rows
        for at, index in enumerate(candidates):
            if rows.before[index] & ~done or rows.not_after[index] & ~(done | block) or block & ~rows.gather[index]:
                continue
            yield block | 1 << index
            yield from self._blocks(done, block | 1 << index, candidates[at + 1 :])


class Behaviours:
    """All legal behaviours of a program of at most 64 effects, 12 of them optional; see the module.

    Raises DefinitionError for more effects; `count` and `sample` do when that takes too many steps.
    """

    def __init__(self, program: Program, rules: Rules = RULES, passive: Callable[[Effect], bool] | None = None) -> None:
        self.order = Order(program, rules)
        if len(self.effects) > MOST_EFFECTS:
            raise DefinitionError(
                f"a program must have at most {MOST_EFFECTS} effects to have all its behaviours found, "
                f"not {len(self.effects)}: cut it with windows()"
            )
        if self.order.optional.bit_count() > MOST_OPTIONAL:
            raise DefinitionError(
                f"at most {MOST_OPTIONAL} effects must be optional, not {self.order.optional.bit_count()}"
            )
        self.passive = _passive(self.order, passive) if passive else 0
        """The effects that are taken for passive."""

    @property
    def effects(self) -> Effects:
        """The program's effects."""
        return self.order.effects

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return count_of(self.order.variants())

    @cached_property
    def reduced_count(self) -> int:
        """How many a device can tell apart that does not look at passive bytes."""
        if not self.passive:
            return self.count
        return sum(counter.count() for counter in self._counters(self.passive))

    def __iter__(self) -> Iterator[Behaviour]:
        """All of them, each once."""
        return self._enumerate(0)

    def reduced(self) -> Iterator[Behaviour]:
        """One of each class that such a device can tell apart."""
        return self._enumerate(self.passive)

    def sample(self, seed: int | random.Random) -> Behaviour:
        """One behaviour, each as likely as any other; the same seed gives the same one."""
        return next(self.samples(seed))

    def samples(self, seed: int | random.Random) -> Iterator[Behaviour]:
        """Behaviours without end, drawn independently."""
        chance = seed if isinstance(seed, random.Random) else random.Random(seed)
        counters = self._full
        weights = [counter.count() for counter in counters]
        while True:
            left = chance.randrange(sum(weights))
            at = 0
            while left >= weights[at]:
                left -= weights[at]
                at += 1
            yield counters[at].draw(chance)

    def check(self, invariants: Sequence[Invariant], *, limit: int | None = None, reduced: bool = False) -> Checked:
        """Check invariants in all behaviours, or the first `limit`, in C.

        With `reduced`, in one of each class: invariants must then be about effects that are not passive, or about
        passive ones being there before those.
        """
        image = only_image(invariants)
        native = ffi.new("pvu_invariant[]", [(each.kind, 0, each.first, each.second) for each in invariants])
        broken = ffi.new("uint64_t[]", len(invariants))
        total = 0
        found: list[Behaviour | None] = [None] * len(invariants)
        for orders in self._natives(self.passive if reduced else 0):
            if image is not None:
                self._expect(orders, image)
            first = ffi.new("uint64_t[]", max(1, len(invariants) * len(self.effects)))
            before = list(broken)
            most = (1 << 64) - 1 if limit is None else limit - total
            total += lib.pvu_orders_check(orders, native, len(invariants), most, broken, first)
            for which in range(len(invariants)):
                if not before[which] and broken[which]:
                    at = which * len(self.effects)
                    found[which] = tuple(block for block in first[at : at + len(self.effects)] if block)
        return Checked(total, limit is None or total < limit, tuple(broken), tuple(found))

    def _expect(self, orders: Any, image: Invariant) -> None:
        data = [(each.at, len(each.content), each.content) for each in data_in(self.effects, image)]
        native = ffi.new("pvu_effect_data[]", data)
        lib.pvu_orders_expect(orders, native, image.expected, len(image.expected))

    @cached_property
    def _full(self) -> list[_Counter]:
        return self._counters(0)

    def _counters(self, passive: int) -> list[_Counter]:
        return _counters(self.order.variants(), passive)

    def _natives(self, passive: int) -> Iterator[Any]:
        for absent, rows in self.order.variants():
            native = lib.pvu_orders_new(
                len(self.effects), list(rows.before), list(rows.not_after), list(rows.gather), absent, passive
            )
            if native == ffi.NULL:
                raise MemoryError
            yield ffi.gc(native, lib.pvu_orders_free)

    def _enumerate(self, passive: int) -> Iterator[Behaviour]:
        width = len(self.effects)
        blocks = ffi.new("uint64_t[]", max(1, _BATCH * width))
        for orders in self._natives(passive):
            while found := lib.pvu_orders_next(orders, blocks, _BATCH):
                numbers = memoryview(ffi.buffer(blocks, 8 * found * width)).cast("Q").tolist()
                for at in range(0, found * width, width) if width else ():
                    row = numbers[at : at + width]
                    yield tuple(row[: row.index(0)] if row[-1] == 0 else row)
                if not width:
                    yield ()


def _counters(variants: Iterable[tuple[int, Rows]], passive: int) -> list[_Counter]:
    return [_Counter(rows, (1 << len(rows.before)) - 1 & ~absent, passive & ~absent) for absent, rows in variants]


def twins(rows: Rows, present: int, passive: int = 0) -> list[list[int]]:
    """The effects that could change places and leave the relation as it is, in groups of two or more."""
    count = len(rows.before)
    behind = [[sum(1 << k for k in range(count) if row[k] >> n & 1) for n in range(count)] for row in rows[:2]]
    groups: dict[int, list[int]] = {}
    for index in bits(present):
        for first, group in groups.items():
            both = 1 << first | 1 << index
            alike = all(not (row[first] ^ row[index]) & ~both for row in (*rows, *behind))
            if alike and not rows.not_after[index] >> first & 1 and (passive & both) in (0, both):
                group.append(index)
                break
        else:
            groups[index] = [index]
    return [group for group in groups.values() if len(group) > 1]


def _passive(order: Order, chosen: Callable[[Effect], bool]) -> int:
    """Those of the chosen effects whose order among themselves leaves no trace."""
    writes = [effect for effect in order.effects if effect.writes]
    found = 0
    for effect in writes:
        unordered = any(
            other is not effect
            and other.overlaps(effect)
            and not order.rows.not_after[max(other.index, effect.index)] & min(other.bit, effect.bit)
            for other in writes
        )
        if effect.op is Op.WRITE and not unordered and chosen(effect):
            found |= effect.bit
    return found


def behaviours(program: Program, rules: Rules = RULES, passive: Callable[[Effect], bool] | None = None) -> Behaviours:
    """All legal behaviours of a program; `passive` says which effects the device does not look at when they arrive.

    Raises DefinitionError for a program that is too large.
    """
    return Behaviours(program, rules, passive)
