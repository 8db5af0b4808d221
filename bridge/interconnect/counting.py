"""How many legal behaviours a relation permits: exact, for programs whose behaviours nobody could enumerate.

A behaviour puts each effect into one of k blocks, and all that the relation says is of pairs: which of the two is in
the earlier block, or both in one. So effects that stand alike to all others, a *module*, can be counted by themselves,
as numbers of behaviours by k, and then stand for a chain of k blocks. A relation falls apart into modules in just one
way (modular decomposition of a 2-structure: Ehrenfeucht and Rozenberg 1990). Modules that all stand in the same way to
one another are put together by a formula; what is left, a *prime* relation of modules, by dynamic programming.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from math import comb

from ..errors import DefinitionError
from .order import Rows, bits

MOST_STEPS = 3_000_000
"""That a relation takes, from one set of blocks that has arrived to the next: some seconds."""

Ways = list[int]
"""By number of blocks, from none: in how many ways."""
State = tuple[tuple[int, ...], int]
"""How many blocks of each module have arrived, and the modules of which no more will."""


def count_of(variants: Iterable[tuple[int, Rows]]) -> int:
    """How many behaviours there are by a relation alone, as `Order.variants` gives it.

    Raises DefinitionError when that takes too many steps.
    """
    return sum(sum(_Count(rows).ways((1 << len(rows.before)) - 1 & ~absent)) for absent, rows in variants)


class _Count:
    """Counts by one relation. Of each effect, `sides` has the others by how they stand to it: each in one mask."""

    def __init__(self, rows: Rows) -> None:
        self._taken = 0
        every = (1 << len(rows.before)) - 1
        earlier = [(strict, weak & ~strict) for strict, weak, _ in zip(*rows, strict=True)]
        # What may neither be later nor be gathered is earlier.
        earlier = [(s | w & ~together, w & together) for (s, w), together in zip(earlier, rows.gather, strict=True)]
        later = [tuple(_column(earlier, side, index) for side in (0, 1)) for index in range(len(earlier))]
        self.sides: list[tuple[int, ...]] = []
        for index, (before, after, together) in enumerate(zip(earlier, later, rows.gather, strict=True)):
            apart = every & ~(before[0] | before[1] | after[0] | after[1] | 1 << index)
            self.sides.append((apart & together, apart & ~together, *before, *after))

    def ways(self, among: int) -> Ways:
        """Of these effects alone."""
        if among.bit_count() < 2:
            return [0, 1] if among else [1]
        for put, sides in ((_free, (0,)), (_apart, (1,)), (_strict, (2, 4)), (_weak, (3, 5))):
            parts = self._parts(among, sides)
            if len(parts) > 1:
                return reduce(put, map(self.ways, parts))
        return self._prime(sorted(self._modules(among), key=_lowest))

    def _parts(self, among: int, sides: tuple[int, ...]) -> list[int]:
        """The modules that all stand so to one another; ascending, where one of the two is before the other."""
        found: list[int] = []
        while among:
            part, new = 0, among & -among
            while new:
                part |= new
                joined = 0
                for index in bits(new):
                    joined |= ~_any(self.sides[index], sides)
                new = joined & among & ~part
            among &= ~part
            found.append(part)
        if len(sides) > 1:
            # Every relation leads from a lower number to a higher one.
            ascending: list[int] = []
            for part in found:
                while ascending and ascending[-1] > part & -part:
                    part |= ascending.pop()
                ascending.append(part)
            return ascending
        return found

    def _modules(self, among: int) -> Iterator[int]:
        """The largest modules of a prime relation: two effects are in one of them if any module but all has both."""
        left = among
        while left:
            first = _lowest(left)
            module = 1 << first
            for other in bits(left & ~module):
                if not module >> other & 1:
                    smallest = self._smallest(among, first, other)
                    module |= smallest if smallest != among else 0
            yield module
            left &= ~module

    def _smallest(self, among: int, first: int, other: int) -> int:
        """The smallest module with both."""
        module, new = 1 << first, 1 << other
        while new:
            module |= new
            outside = 0
            for index in bits(new):
                alike = _alike(self.sides[first], self.sides[index])
                outside |= among & ~alike
            new = outside & ~module
        return module

    def _prime(self, modules: Sequence[int]) -> Ways:
        """By how many blocks of each have arrived, from none to all."""
        chains = [self.ways(module) for module in modules]
        first = [self.sides[_lowest(module)] for module in modules]
        lowest = [1 << _lowest(module) for module in modules]
        strict, weak, together = (
            [sum(1 << n for n, low in enumerate(lowest) if _any(side, which) & low) for side in first]
            for which in ((2,), (3,), (0, 3, 5))
        )
        every, most = (1 << len(modules)) - 1, sum(len(chain) - 1 for chain in chains)

        def moves(at: tuple[int, ...], done: int) -> Iterator[tuple[State, int, int]]:
            """The next block: what has arrived then, in how many ways, and how many modules are in it."""
            steps = [(at, done, 1, 0)]
            for n in range(len(modules)):
                if done >> n & 1 or strict[n] & ~done:
                    continue
                further = chains[n][at[n] + 1 :]
                for now, ended, ways, block in steps[:]:
                    if weak[n] & ~ended or block & ~together[n]:
                        continue
                    now = (*now[:n], now[n] + 1, *now[n + 1 :])
                    if further[0]:
                        steps.append((now, ended | 1 << n, ways * further[0], block | 1 << n))
                    if any(further[1:]):
                        steps.append((now, ended, ways, block | 1 << n))
            for now, ended, ways, block in steps[1:]:
                yield (now, ended), ways, block.bit_count()

        # By number of blocks so far, in the digits of one number: of n effects there are fewer than (n + 1) ** n.
        effects = sum(modules).bit_count()
        digit = effects * (effects + 1).bit_length()
        pending: list[dict[State, int]] = [defaultdict(int) for _ in range(most + 1)]
        pending[0][(0,) * len(modules), 0] = 1
        found = 0
        for arrived, states in enumerate(pending):
            for (at, done), ways in states.items():
                found += ways if done == every else 0
                ways <<= digit
                for state, times, more in moves(at, done):
                    self._taken += 1
                    if self._taken > MOST_STEPS:
                        raise DefinitionError(
                            f"a count must take at most {MOST_STEPS} steps: let a profile run instead"
                        )
                    pending[arrived + more][state] += ways * times
        return [found >> digit * blocks & (1 << digit) - 1 for blocks in range(most + 1)]


def _free(first: Ways, second: Ways) -> Ways:
    """In any order, and as one: of k blocks, i have some of the first, and so have the other k - i of the second."""
    return [
        sum(
            a * b * comb(k, i) * comb(i, i + j - k)
            for i, a in enumerate(first[: k + 1])
            for j, b in enumerate(second[: k + 1])
            if i + j >= k
        )
        for k in range(len(first) + len(second) - 1)
    ]


def _apart(first: Ways, second: Ways) -> Ways:
    """In any order, but not as one."""
    return _product(first, second, lambda i, j: comb(i + j, i))


def _strict(first: Ways, second: Ways) -> Ways:
    """One behind the other."""
    return _product(first, second, lambda i, j: 1)


def _weak(first: Ways, second: Ways) -> Ways:
    """Likewise, but what is last of one and first of the other may be as one. Both have some."""
    behind = _strict(first, second)
    return [a + b for a, b in zip(behind, [*behind[1:], 0], strict=True)]


def _product(first: Ways, second: Ways, ways: Callable[[int, int], int]) -> Ways:
    found = [0] * (len(first) + len(second) - 1)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            found[i + j] += a * b * ways(i, j)
    return found


def _column(rows: Sequence[tuple[int, int]], side: int, index: int) -> int:
    return sum(1 << n for n, row in enumerate(rows) if row[side] >> index & 1)


def _any(masks: tuple[int, ...], which: tuple[int, ...]) -> int:
    return reduce(int.__or__, (masks[n] for n in which))


def _alike(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    return reduce(int.__or__, (one & two for one, two in zip(first, second, strict=True)))


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
