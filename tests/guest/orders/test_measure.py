"""What is measured, against counts worked out by hand from the rules, and against profiles whose outcome is certain."""

from __future__ import annotations

from math import comb, factorial, sqrt

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore.shrink import is_legal
from pyvfio_user.bridge.interconnect import PROFILES, RULES, Model, Order, Profile, Rules, counting
from pyvfio_user.bridge.stream import Domain
from pyvfio_user.guest.orders.measure import Measure, Measured
from pyvfio_user.guest.orders.programs import BARRIERS, IDIOMS, program

ORDERED = ("dmb oshst", "dsb st", "store-release")
"""What keeps a doorbell behind its payload at a device."""
FREE = ("none", "dmb ishst", "dgh")


def measured(
    idiom: str,
    barrier: str,
    payload: MemoryType,
    bell: MemoryType = NGNRE,
    *,
    rules: Rules = RULES,
    seeds: int = 40,
    **buffers: float,
) -> Measured:
    profile = Profile("own", **buffers)  # type: ignore[arg-type]
    return Measure(profile, seeds, rules)(program(IDIOMS[idiom], barrier, payload, bell))


def blocks(stores: int, count: int) -> int:
    """In how many ways stores can be parted into so many blocks that have an order: k! S(n, k)."""
    return sum((-1) ** (count - j) * comb(count, j) * j**stores for j in range(count + 1))


def over_blocks(stores: int, places: list[int]) -> int:
    """The same over all numbers of blocks, k, times in how many places each lets other accesses be: `places[k - 1]`."""
    return sum(blocks(stores, k) * places[k - 1] for k in range(1, stores + 1))


def pairs(extra: int, divisor: int = 1) -> int:
    """Four pairs of which each may arrive as one, and else in any order, with so many accesses more."""
    return sum(comb(4, j) * factorial(8 - j + extra) for j in range(5)) // divisor


ONE = [1] * 16
BELL_ANYWHERE = [k + 1 for k in range(1, 17)]
# A load that is behind the last store, which is in any of the k blocks alike: m of the k + 1 gaps are left to it with
# chance 1/k each, and to the doorbell behind it, m (m + 1) / 2 together. Or, where DMB OSHLD is nothing to the load,
# the doorbell is anywhere: m (k + 2).
READ = {n: sum(blocks(n, k) * (k + 1) * (k + 2) for k in range(1, n + 1)) // 6 for n in (8, 16)}
READ_AND_BELL = sum(blocks(8, k) * (k + 1) * (k + 2) for k in range(1, 9)) // 2

COUNTS = [
    # nGnRE, doorbell nGnRE: program order, but for the elements of one instruction.
    *[("8 x STR x", barrier, NGNRE, 1) for barrier in BARRIERS],
    *[("16 x STR w", barrier, NGNRNE, 1) for barrier in BARRIERS],
    *[("4 x STP x", barrier, NGNRE, 3**4) for barrier in BARRIERS],
    *[("4 x STR q", barrier, NGNRE, 3**4) for barrier in BARRIERS],
    *[("ST1", barrier, NGNRE, over_blocks(8, ONE)) for barrier in BARRIERS],
    # nGRE: any order, nothing as one.
    *[("8 x STR x", barrier, NGRE, factorial(8)) for barrier in ORDERED],
    *[("8 x STR x", barrier, NGRE, factorial(9)) for barrier in FREE],
    ("8 x STR x", "read-back", NGRE, factorial(10) // 6),
    *[("16 x STR w", barrier, NGRE, factorial(16)) for barrier in ORDERED],
    *[("16 x STR w", barrier, NGRE, factorial(17)) for barrier in FREE],
    *[("4 x STP x", barrier, NGRE, pairs(0)) for barrier in ORDERED],
    *[("4 x STP x", barrier, NGRE, pairs(1)) for barrier in FREE],
    ("4 x STP x", "read-back", NGRE, pairs(2, 6)),
    *[("ST1", barrier, NGRE, over_blocks(8, ONE)) for barrier in ORDERED],
    *[("ST1", barrier, NGRE, over_blocks(8, BELL_ANYWHERE)) for barrier in FREE],
    ("ST1", "read-back", NGRE, READ[8]),
    # GRE and NC: any order, any of them as one; the last store may answer the load.
    *[
        (idiom, barrier, kind, over_blocks(8, ONE))
        for idiom in ("8 x STR x", "4 x STP x", "ST1", "4 x STR q")
        for barrier in ORDERED
        for kind in (GRE, NORMAL_NC)
    ],
    *[("8 x STR x", barrier, kind, over_blocks(8, BELL_ANYWHERE)) for barrier in FREE for kind in (GRE, NORMAL_NC)],
    ("8 x STR x", "read-back", NORMAL_NC, over_blocks(8, BELL_ANYWHERE) + READ[8]),
    ("16 x STR w", "dmb oshst", NORMAL_NC, over_blocks(16, ONE)),
    ("16 x STR w", "none", NORMAL_NC, over_blocks(16, BELL_ANYWHERE)),
    ("16 x STR w", "read-back", NORMAL_NC, over_blocks(16, BELL_ANYWHERE) + READ[16]),
    *[("DC ZVA", barrier, NORMAL_NC, over_blocks(8, ONE)) for barrier in ORDERED],
    # Write-Back: a barrier is nothing to the device, and the load orders nothing.
    *[("8 x STR x", barrier, NORMAL_WB, over_blocks(8, BELL_ANYWHERE)) for barrier in (*FREE, *ORDERED)],
    ("8 x STR x", "read-back", NORMAL_WB, over_blocks(8, BELL_ANYWHERE) + READ_AND_BELL),
]


def test_the_formulas_give_what_is_known() -> None:
    assert (over_blocks(8, ONE), over_blocks(8, BELL_ANYWHERE)) == (545_835, 3_816_548)
    assert (factorial(8), pairs(0)) == (40_320, 65_304)
    assert (READ[8], READ_AND_BELL) == (5_191_709, 15_575_127)


@pytest.mark.parametrize(
    ("idiom", "barrier", "kind", "count"), COUNTS, ids=lambda value: str(value) if not isinstance(value, int) else ""
)
def test_counts(idiom: str, barrier: str, kind: MemoryType, count: int) -> None:
    assert measured(idiom, barrier, kind).legal == count


class TestMemcpy:
    """Two stores in two halves of 8 bytes, three in bytes: counted as maps of the effects to their blocks.

    Bytes 13 to 15 may not arrive before the second half of the first store, nor bytes 48 to 55, and 56 to 60, after the
    halves of the last one, which overlap them; the other 33 effects are in no order with anything.
    """

    @staticmethod
    def maps(j: int) -> int:
        """Those to j blocks, and none need have any, but for the last half and what is not behind it."""
        return j**33 * sum(b**3 for b in range(1, j + 1)) * sum(b**8 for b in range(1, j + 1))

    def onto(self, k: int, last: int) -> int:
        """Those to k blocks of which none is empty, with the last half in the block `last`, by inclusion and exclusion:
        of j blocks that are not left empty, that one is the i-th.
        """
        return sum(
            (-1) ** (k - j) * comb(last - 1, i - 1) * comb(k - last, j - i) * self.maps(j) * i**5
            for j in range(1, k + 1)
            for i in range(max(1, last - k + j), min(last, j) + 1)
        )

    def test_is_counted(self) -> None:
        by_blocks = {(k, last): self.onto(k, last) for k in range(1, 53) for last in range(1, k + 1)}
        ordered = sum(by_blocks.values())
        free = sum((k + 1) * ways for (k, _), ways in by_blocks.items())
        # Load, then doorbell, in the gaps behind the last half; or the load is answered and orders nothing.
        read = sum(comb(k - last + 2, 2) * ways for (k, last), ways in by_blocks.items())
        found = {barrier: measured("memcpy", barrier, NORMAL_NC) for barrier in BARRIERS}
        assert {barrier: each.legal for barrier, each in found.items()} == {
            **dict.fromkeys(FREE, free),
            **dict.fromkeys(ORDERED, ordered),
            "read-back": free + read,
        }
        assert (f"{ordered:.3e}", f"{free:.3e}", f"{free + read:.3e}") == ("5.780e+73", "2.233e+75", "3.948e+75")

    def test_is_decided(self) -> None:
        found = {barrier: measured("memcpy", barrier, NORMAL_NC) for barrier in BARRIERS}
        # The read-back has an effect of its own.
        assert [each.effects for each in found.values()] == [53] * 6 + [54]
        assert {barrier for barrier, each in found.items() if not each.early} == set(ORDERED)
        assert all(each.one_tlp for each in found.values())


def test_more_than_64_effects_are_counted() -> None:
    """DC ZVA in bytes, which is all that the architecture promises of it, and the doorbell."""
    found = measured("DC ZVA", "dmb oshst", NORMAL_NC, rules=RULES.with_model(Model(piece=1)))
    assert (found.effects, found.legal) == (65, over_blocks(64, [1] * 64))
    assert (found.one_tlp, found.early) == (True, False)


def test_what_takes_too_long_is_not_counted_but_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_STEPS", 10)
    found = measured("4 x STR q", "read-back", GRE, NGNRNE)
    assert (found.legal, found.one_tlp, found.early) == (None, True, True)


class TestTheDoorbell:
    @pytest.mark.parametrize("barrier", BARRIERS)
    @pytest.mark.parametrize(
        ("payload", "bell"),
        [(NORMAL_NC, NGNRE), (GRE, NGNRE), (NGRE, NGNRE), (GRE, GRE), (NORMAL_NC, NGNRNE), (NGRE, NGRE)],
        ids=str,
    )
    def test_overtakes_unless_a_barrier_counts(self, payload: MemoryType, bell: MemoryType, barrier: str) -> None:
        found = measured("8 x STR x", barrier, payload, bell)
        assert found.early == (barrier not in ORDERED)
        assert bool(found.kept_by) == (not found.early)

    @pytest.mark.parametrize("barrier", BARRIERS)
    def test_overtakes_a_cached_payload_whatever_is_between(self, barrier: str) -> None:
        assert measured("8 x STR x", barrier, NORMAL_WB).early

    @pytest.mark.parametrize("idiom", ["8 x STR x", "4 x STP x", "ST1"])
    def test_never_overtakes_its_like(self, idiom: str) -> None:
        found = measured(idiom, "none", NGNRE)
        assert (found.early, found.kept_by) == (False, "non-reordering [A] B2.4.1.1 (a)")

    def test_is_kept_by_the_rule_of_each_program_although_programs_that_are_alike_are_measured_once(self) -> None:
        measure = Measure(PROFILES["in-order"], 1)
        kinds = {"dmb oshst": NGRE, "store-release": NGRE, "none": NGNRE}
        found = {barrier: measure(program(IDIOMS["ST1"], barrier, kind, NGNRE)) for barrier, kind in kinds.items()}
        assert {barrier: each.kept_by for barrier, each in found.items()} == {
            "dmb oshst": "barrier [A] B2.4.1.1 (c), B2.3.12 DMB, DSB",
            "store-release": "release [A] B2.4.1.1 (c), B2.3.12 Store-Release",
            "none": "non-reordering [A] B2.4.1.1 (a)",
        }
        assert measure.distinct == 1

    def test_comes_early_under_buffers_that_wait(self) -> None:
        """64 bytes do not fill a line of 128: at the end buffer and doorbell go in either order."""
        free = measured("8 x STR x", "none", NORMAL_NC, line=128, drain=0)
        assert 0 < free.early_runs < free.runs == 40
        assert (free.whole, free.torn) == (40, 0)
        assert measured("8 x STR x", "dmb oshst", NORMAL_NC, line=128, drain=0).early_runs == 0


class TestTlps:
    @pytest.mark.parametrize("kind", [NGNRNE, NGNRE, NGRE], ids=str)
    def test_of_one_store_each_where_nothing_gathers(self, kind: MemoryType) -> None:
        found = measured("8 x STR x", "none", kind)
        assert (found.one_tlp, found.whole, found.torn, found.least, found.most) == (False, 0, 40, 8, 8)

    @pytest.mark.parametrize("kind", [NGNRNE, NGNRE, NGRE], ids=str)
    def test_of_one_instruction_may_be_one_though_nothing_gathers(self, kind: MemoryType) -> None:
        """DDI 0487 B2.10.2.4: the number and sizes of the elements' transactions are not defined."""
        assert measured("ST1", "none", kind).one_tlp
        assert not measured("4 x STP x", "none", kind).one_tlp

    @pytest.mark.parametrize("kind", [GRE, NORMAL_NC, NORMAL_WB], ids=str)
    def test_are_one_when_a_line_fills(self, kind: MemoryType) -> None:
        found = measured("16 x STR w", "none", kind, drain=0)
        assert (found.one_tlp, found.whole, found.torn, found.least, found.most) == (True, 40, 0, 1, 1)

    def test_are_many_when_each_access_drains(self) -> None:
        found = measured("8 x STR x", "none", NORMAL_NC, drain=1)
        assert (found.one_tlp, found.whole, found.torn, found.least, found.most) == (True, 0, 40, 8, 8)

    def test_are_halves_with_half_a_line(self) -> None:
        found = measured("8 x STR x", "none", NORMAL_NC, line=32, drain=0)
        assert (found.whole, found.torn, found.shuffled, found.least, found.most) == (0, 40, 0, 2, 2)

    def test_come_in_any_order_beside_the_buffers(self) -> None:
        found = measured("8 x STR x", "dmb oshst", NGRE, buffers=0, reorder=8)
        assert found.shuffled > 0
        assert measured("8 x STR x", "dmb oshst", NGRE, buffers=0, reorder=0).shuffled == 0


class TestFrequencies:
    """Of the profile's chances, within four standard deviations: a buffer of 64 bytes that drains once in fifty."""

    SEEDS = 4000
    KEPT = 0.98

    def near(self, count: int, chance: float) -> bool:
        return abs(count - self.SEEDS * chance) < 4 * sqrt(self.SEEDS * chance * (1 - chance))

    @pytest.mark.parametrize(("idiom", "stores"), [("8 x STR x", 8), ("4 x STP x", 8), ("16 x STR w", 16)])
    def test_of_one_tlp(self, idiom: str, stores: int) -> None:
        """The buffer must not drain after any store but the last, which fills it."""
        assert self.near(measured(idiom, "dmb oshst", GRE, seeds=self.SEEDS).whole, self.KEPT ** (stores - 1))

    def test_of_one_tlp_by_the_elements_of_one_instruction(self) -> None:
        """Each of the seven others joins the one before, or does not."""
        assert self.near(measured("ST1", "none", NGNRE, seeds=self.SEEDS).whole, 0.5**7)

    def test_of_a_doorbell_that_overtakes(self) -> None:
        """It drained before the last store, not after it, nor after the doorbell: then either goes first."""
        chance = (1 - self.KEPT**7) * self.KEPT**2 / 2
        assert self.near(measured("8 x STR x", "none", NORMAL_NC, seeds=self.SEEDS).early_runs, chance)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("barrier", BARRIERS)
def test_runs_are_legal(name: str, barrier: str) -> None:
    for idiom in ("8 x STR x", "4 x STP x", "ST1"):
        for kind in (NGRE, NORMAL_NC):
            order = Order(program(IDIOMS[idiom], barrier, kind, NGNRE))
            assert all(is_legal(order, PROFILES[name].run(order, seed)) for seed in range(10))


class TestRulesThatAreChanged:
    def test_a_barrier_that_does_nothing(self) -> None:
        found = measured("8 x STR x", "dmb oshst", NORMAL_NC, rules=RULES.replaced("barrier"))
        assert (found.early, found.legal) == (True, 3_816_548)

    def test_a_device_that_is_inner_shareable(self) -> None:
        everywhere = RULES.with_model(Model(domains=frozenset(Domain)))
        found = measured("8 x STR x", "dmb ishst", NORMAL_NC, rules=everywhere)
        assert (found.early, found.legal) == (False, 545_835)

    def test_device_that_gathers(self) -> None:
        found = measured("8 x STR x", "dmb oshst", NGRE, rules=RULES.replaced("not-gathering"))
        assert (found.one_tlp, found.legal) == (True, 545_835)


def test_equal_programs_are_measured_once() -> None:
    measure = Measure(PROFILES["wc-64x4"], 5)
    for kind in (GRE, NORMAL_NC):
        for barrier in BARRIERS:
            measure(program(IDIOMS["8 x STR x"], barrier, kind, NGNRE))
    # Without order (none, dmb ishst), with a hint, with order, with the load.
    assert measure.distinct == 4


def test_programs_of_one_order_but_other_instructions_are_not_equal() -> None:
    """Without buffers only the elements of one instruction come as one."""
    measure = Measure(PROFILES["in-order"], 400)
    stores, elements = (measure(program(IDIOMS[name], "none", NORMAL_NC, NGNRE)) for name in ("8 x STR x", "ST1"))
    assert stores.legal == elements.legal
    assert (stores.most, stores.least, elements.least < 8) == (8, 8, True)


def test_the_same_seeds_give_the_same() -> None:
    one, two = (measured("8 x STR x", "none", NORMAL_NC, drain=0.3, partial=0.5) for _ in range(2))
    assert one == two
    assert 0 < one.whole < 40


def test_no_seeds_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^seeds must be at least 1, not 0$"):
        Measure(PROFILES["wc-64x4"], 0)
