"""Counts are exact: held against trying everything, against the enumeration in C, and against closed counts.

The relations are random and raw, so that they are of all shapes: real programs are mostly put together by formulas.
"""

from __future__ import annotations

from itertools import combinations, product
from math import comb, factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.hotpath._native import ffi, lib
from pyvfio_user.bridge.interconnect import counting
from pyvfio_user.bridge.interconnect.counting import count_of
from pyvfio_user.bridge.interconnect.order import Rows

from .naive import partitions

FREE, APART, WEAK, STRICT = range(4)
"""How two effects stand to each other: any order or as one, any but not as one, not after, before."""


def rows(count: int, stand: dict[tuple[int, int], int]) -> Rows:
    """The relation in which pairs stand so; FREE where nothing is said. It need not be closed."""

    def mask(index: int, *kinds: int) -> int:
        pairs = [((i, j), stand.get((i, j), FREE)) for i, j in combinations(range(count), 2)]
        return sum(1 << i + j - index for (i, j), kind in pairs if index in (i, j) and kind in kinds)

    def earlier(index: int, *kinds: int) -> int:
        return mask(index, *kinds) & (1 << index) - 1

    every = range(count)
    return Rows(
        tuple(earlier(index, STRICT) for index in every),
        tuple(earlier(index, STRICT, WEAK) for index in every),
        tuple(mask(index, FREE, WEAK) for index in every),
    )


def tried(count: int, stand: dict[tuple[int, int], int], absent: int = 0) -> int:
    """The behaviours among all ordered partitions."""
    found = 0
    for blocks in partitions([index for index in range(count) if not absent >> index & 1]):
        at = {index: number for number, block in enumerate(blocks) for index in block}
        found += all(
            at[i] < at[j] or (kind == APART and at[i] != at[j]) or (kind == WEAK and at[i] == at[j])
            for (i, j), kind in stand.items()
            if i in at and j in at and kind != FREE
        )
    return found


@st.composite
def relation(draw: st.DrawFn, most: int) -> tuple[int, dict[tuple[int, int], int]]:
    """Of up to so many effects; in some, most pairs stand alike."""
    count = draw(st.integers(0, most))
    kinds = st.sampled_from(draw(st.sampled_from([(0, 1, 2, 3), (0, 3), (1, 3), (0, 0, 2), (0, 0, 0, 2, 3), (3, 2)])))
    return count, {pair: draw(kinds) for pair in combinations(range(count), 2)}


@settings(deadline=None, max_examples=300)
@given(relation(5), st.integers(0, 31))
def test_as_many_as_trying_everything_finds(each: tuple[int, dict[tuple[int, int], int]], absent: int) -> None:
    count, stand = each
    absent &= (1 << count) - 1
    whole, part = tried(count, stand), tried(count, stand, absent)
    found = rows(count, stand)
    assert count_of([(0, found)]) == whole
    assert count_of([(0, found), (absent, found)]) == whole + part


def enumerated(found: Rows) -> int:
    """As many as C enumerates."""
    rows = [list(row) for row in found]
    native = ffi.gc(lib.pvu_orders_new(len(rows[0]), *rows, 0, 0), lib.pvu_orders_free)
    none = [ffi.new(f"{kind}[]", 1) for kind in ("pvu_invariant", "uint64_t", "uint64_t")]
    return int(lib.pvu_orders_check(native, none[0], 0, (1 << 64) - 1, none[1], none[2]))


@settings(deadline=None, max_examples=300)
@given(relation(7))
def test_as_many_as_are_enumerated(each: tuple[int, dict[tuple[int, int], int]]) -> None:
    found = rows(*each)
    assert count_of([(0, found)]) == enumerated(found)


def test_every_relation_of_three_effects() -> None:
    pairs = list(combinations(range(3), 2))
    for kinds in product(range(4), repeat=3):
        stand = dict(zip(pairs, kinds, strict=True))
        assert count_of([(0, rows(3, stand))]) == tried(3, stand), stand


def surjections(effects: int, blocks: int) -> int:
    return sum((-1) ** (blocks - j) * comb(blocks, j) * j**effects for j in range(blocks + 1))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FREE, sum(surjections(100, k) for k in range(101))),
        (APART, factorial(100)),
        (WEAK, 2**99),
        (STRICT, 1),
    ],
    ids=["free", "apart", "weak", "strict"],
)
def test_a_hundred_effects_that_all_stand_alike(kind: int, expected: int) -> None:
    assert count_of([(0, rows(100, dict.fromkeys(combinations(range(100), 2), kind)))]) == expected


def zigzag(places: int, alike: int = 1) -> Rows:
    """Each even place is before its neighbours, all others apart: a prime relation; in each are effects, apart.

    Every relation leads from a lower number to a higher one, so the even places have the lower numbers.
    """
    at = [place for start in (0, 1) for place in range(start, places, 2) for _ in range(alike)]
    pairs = combinations(range(len(at)), 2)
    return rows(len(at), {(i, j): STRICT if abs(at[i] - at[j]) == 1 else APART for i, j in pairs})


def test_a_prime_relation_has_the_euler_zigzag_numbers() -> None:
    """Alternating permutations: OEIS A000111."""
    assert [count_of([(0, zigzag(n))]) for n in range(2, 13)] == [
        1, 2, 5, 16, 61, 272, 1385, 7936, 50521, 353792, 2702765
    ]  # fmt: skip


def test_a_prime_relation_of_modules() -> None:
    """Eight effects, in four places of two."""
    found = zigzag(4, 2)
    assert count_of([(0, found)]) == enumerated(found)


def test_what_takes_too_many_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_STEPS", 100)
    assert count_of([(0, zigzag(6))]) == 61
    with pytest.raises(DefinitionError, match=r"^a count must take at most 100 steps: let a profile run instead$"):
        count_of([(0, zigzag(8))])
    assert count_of([(0, zigzag(6))] * 9) == 9 * 61
