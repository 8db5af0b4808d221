"""What `--orders` adds to a matrix: which pairs of types its cells have, the scorecard's rows, and what was seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache

import msgspec
import pytest

from pyvfio_user.bridge.attributes import MEMORY_TYPES, combine
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect import PROFILES, RULES, Model, Rules
from pyvfio_user.bridge.schemes import SCHEMES, Host
from pyvfio_user.bridge.schemes.questions import Study
from pyvfio_user.bridge.stream import Domain
from pyvfio_user.guest.layout import DRIVER, LAYOUT, REQUEST
from pyvfio_user.guest.orders import attach
from pyvfio_user.guest.orders.answers import QUESTIONS
from pyvfio_user.guest.orders.attach import HOW, NOTE, STEP, Ordered, in_words, with_orders
from pyvfio_user.guest.orders.programs import BARRIERS, IDIOMS
from pyvfio_user.guest.orders.results import Ordering, OrderPair, Orders
from pyvfio_user.guest.results import Battery, Cell, HostCell, Matrix, Row, Verdict
from pyvfio_user.guest.scorecard import answers

from ..cells import cell, host, matrix

FEW = Ordered("wc-64x4", 3)


def run_of(scheme: str, *, fwb: bool = False) -> Matrix:
    """A matrix of one scheme as a run would have it, without the running."""
    study = Study.of(SCHEMES[scheme], LAYOUT, request=REQUEST, driver=DRIVER, host=Host(fwb=fwb))
    cells: list[Cell] = []
    hosts: list[HostCell] = []
    for piece in study.asking.pieces:
        where = {"scheme": scheme, "range": piece.range, "fwb": int(fwb), "full": None, "battery": None}
        for s1 in MEMORY_TYPES if piece.s2 is not None else ():
            kind = str(combine(s1, piece.s2, fwb))
            cells.append(cell(**where, s1=str(s1), s2=f"{piece.s2:x}", architecture=kind, observed=kind))
        if piece.host is not None:
            hosts.append(host(**where, type=str(piece.host), observed=str(piece.host)))
    return matrix(cells, host=tuple(hosts), scorecard=answers([scheme], cells, hosts))


async def ordered(made: Matrix, rules: Rules = RULES) -> tuple[Matrix, Orders]:
    found = await with_orders(made, FEW, rules=rules)
    assert found.orders is not None
    return found, found.orders


@cache
def ordered_run(scheme: str, fwb: bool = False) -> tuple[Matrix, Orders]:
    """The same for a whole scheme, once."""
    return asyncio.run(ordered(run_of(scheme, fwb=fwb)))


def row(pair: OrderPair, idiom: str, barrier: str) -> Ordering:
    (found,) = (each for each in pair.rows if (each.idiom, each.barrier) == (idiom, barrier))
    return found


class TestPairs:
    @pytest.mark.parametrize(
        ("scheme", "fwb", "pairs"),
        [
            ("status-quo", False, ["00>00", "00>04", "04>04"]),
            ("normal-nc-all", False, ["00>00", "00>04", "04>04", "08>04", "0c>04", "44>04"]),
            # The host's user mapping is GRE, its doorbell too.
            ("pgprot-maybe-wc", False, ["00>04", "04>04", "08>04", "0c>04", "0c>0c", "44>04"]),
            ("pgprot-device", False, ["00>04", "04>04", "08>04", "0c>04", "44>04"]),
            # BAR 2 is prefetchable and mapped write-combining, BAR 0 with the doorbell is not.
            ("prefetchable-wc", False, ["00>00", "00>04", "04>04", "08>04", "0c>04", "44>00", "44>04"]),
            # BAR 2 is forced Write-Back: where stage 1 is Device, accesses must be aligned still.
            ("cacheable-follow", True,
             ["00>00", "00>04", "04>04", "08>04", "0c>04", "44>04", "f0>04", "ff'>04", "ff>00", "ff>04"]),
        ],
    )  # fmt: skip
    def test_of_a_scheme(self, scheme: str, fwb: bool, pairs: Sequence[str]) -> None:
        found, orders = ordered_run(scheme, fwb)
        assert list(orders.pairs) == pairs
        places = [(each.range, each.orders) for each in found.cells] + [
            (each.range, each.orders) for each in found.host
        ]
        for name, key in places:
            assert (key is None) == (name == "platform" or name.startswith("bar"))
            assert key is None or key in orders.pairs
        for key, pair in orders.pairs.items():
            assert key == f"{pair.payload}{chr(39) if pair.aligned else ''}>{pair.doorbell}"
            assert [(each.idiom, each.barrier) for each in pair.rows] == [(i, b) for i in IDIOMS for b in BARRIERS]

    @pytest.mark.asyncio
    async def test_where_nothing_can_be_pushed_there_are_none(self) -> None:
        nowhere = [
            cell(range="platform"),
            cell(range="bar0+0xc000"),
            cell(verdict=Verdict.UNOBSERVABLE, observed=None),
            cell(verdict=Verdict.REFUSED, architecture=None, observed=None),
        ]
        found, orders = await ordered(matrix(nowhere, host=(host(type=None),)))
        assert not orders.pairs
        assert {each.orders for each in found.cells} | {each.orders for each in found.host} == {None}

    @pytest.mark.asyncio
    async def test_a_page_that_changed_and_the_pairs_of_types_have_them(self) -> None:
        cells = [
            cell(scheme="trap", case="changed", range="dynamic[1]", s2="5", architecture="44"),
            cell(scheme="all-pairs", range="wc-trapped", s1="0c", s2="3", architecture="0c"),
        ]
        found, _ = await ordered(matrix(cells, host=()))
        assert [each.orders for each in found.cells] == ["44>04", "0c>04"]

    def test_an_unaligned_idiom_faults_where_stage_1_is_device_though_the_type_is_not(self) -> None:
        _, orders = ordered_run("cacheable-follow", True)
        aligned, free = orders.pairs["ff'>04"], orders.pairs["ff>04"]
        assert (aligned.aligned, free.aligned) == (True, False)
        assert row(aligned, "memcpy", "none").fault == "alignment fault (B2.10.2) at store 2"
        assert row(free, "memcpy", "none").fault == ""
        assert row(aligned, "8 x STR x", "none") == row(free, "8 x STR x", "none")
        assert "no barrier orders them" in free.note
        assert orders.pairs["44>04"].note == ""


class TestTheRun:
    def test_it_says_that_it_is_modelled_and_by_which_profile(self) -> None:
        found, orders = ordered_run("normal-nc-all")
        assert (orders.how, orders.note, orders.profile, orders.seeds) == (HOW, NOTE, "wc-64x4", 3)
        assert orders.how == "modelled" and orders.note.startswith("Modelled, never seen: ")
        assert orders.buffers == (
            "4 buffers of 64 bytes, one drains after 2% of accesses; the root complex cuts at 256 bytes"
        )
        assert (list(orders.idioms), list(orders.barriers)) == (list(IDIOMS), list(BARRIERS))
        assert msgspec.json.decode(found.to_json(), type=Matrix) == found

    def test_its_figures_are_those_of_the_programs(self) -> None:
        _, orders = ordered_run("normal-nc-all")
        free, fenced = (row(orders.pairs["44>04"], "8 x STR x", each) for each in ("none", "dmb oshst"))
        assert (free.legal, free.one_tlp, free.early, free.kept_by) == (3_816_548, True, True, "")
        assert (fenced.legal, fenced.one_tlp, fenced.early) == (545_835, True, False)
        assert fenced.kept_by == "barrier [A] B2.4.1.1 (c), B2.3.12 DMB, DSB"
        assert free.whole + free.torn == 3
        assert row(orders.pairs["04>04"], "8 x STR x", "none").legal == 1
        assert row(orders.pairs["08>04"], "8 x STR x", "none").legal == 362_880

    @pytest.mark.asyncio
    async def test_progress(self) -> None:
        steps: list[tuple[str, int, int, str]] = []
        await with_orders(run_of("status-quo"), FEW, progress=lambda *step: steps.append(step))
        assert steps == [(STEP, 0, 3, "00>00"), (STEP, 1, 3, "00>04"), (STEP, 2, 3, "04>04"), (STEP, 3, 3, "")]

    @pytest.mark.asyncio
    async def test_what_was_seen_stands_beside(self) -> None:
        works, fault = {"EL1 cold": "works", "EL1 warm": "works"}, {"EL1 cold": "EL1 fault 96000061"}
        rows = (
            Row("payload-dmb-doorbell", "works", works, "8x8, doorbell | r8 8x8, doorbell", Verdict.AGREE),
            Row("str-w-read-doorbell", "works", works, "16x4 r4, doorbell", Verdict.AGREE),
            Row("memcpy-ishst-doorbell", "EL1 fault 96000061", fault, "2x8", Verdict.AGREE),
            Row("iowrite32-copy", "works", works, "16x4", Verdict.AGREE),
        )
        cells = [
            cell(scheme="normal-nc-all", range="wc-trapped", s2="5", architecture="44", full="f"),
            cell(scheme="normal-nc-all", range="wc-mapped", s1="04", s2="5", architecture="04", full="f"),
        ]
        _, orders = await ordered(matrix(cells, host=(), batteries={"f": Battery("f", "full", rows)}))
        seen = {(each.idiom, each.barrier): each.seen for each in orders.pairs["44>04"].rows if each.seen}
        assert seen == {
            ("8 x STR x", "dmb oshst"): "8x8, doorbell",
            ("16 x STR w", "read-back"): "16x4 r4, doorbell",
            ("memcpy", "dmb ishst"): "2x8, fault",
        }
        # Of a window that is memory shared with the guest no access is seen.
        assert not any(each.seen for each in orders.pairs["04>04"].rows)


CHANGED = {
    "barrier": RULES.replaced("barrier"),
    "release": RULES.replaced("release"),
    "non-reordering": RULES.replaced("non-reordering"),
    "same-location": RULES.replaced("same-location"),
    "different-kinds": RULES.replaced("different-kinds"),
    "not-gathering": RULES.replaced("not-gathering"),
    "forwarded": RULES.replaced("forwarded"),
    "all domains are one": RULES.with_model(Model(domains=frozenset(Domain))),
}
SAME = ("acquire", "dependency", "reads-from", "synchronised", "memory-first", "in-memory", "read-then-memory")
"""Rules about what the programs do not have."""


class TestARuleThatIsChanged:
    @pytest.mark.parametrize("name", [*CHANGED, *SAME])
    @pytest.mark.asyncio
    async def test_changes_the_table(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        small = {each: idiom for each, idiom in IDIOMS.items() if each not in ("16 x STR w", "memcpy")}
        monkeypatch.setattr(attach, "IDIOMS", small)
        made = run_of("normal-nc-all")
        _, before = await ordered(made)
        _, after = await ordered(made, CHANGED[name] if name in CHANGED else RULES.replaced(name))
        assert (before.pairs != after.pairs) == (name in CHANGED)


class TestTheScorecard:
    def test_rows_come_behind_the_fifteen_and_are_modelled(self) -> None:
        found, _ = ordered_run("vfio-descriptor")
        card = found.scorecard["vfio-descriptor"]
        assert list(card)[15:] == list(QUESTIONS) == ["host-reads", "unasked-reads", "one-tlp", "doorbell-first"]
        for number, key in enumerate(QUESTIONS, 16):
            answer = card[key]
            assert (answer["question"], answer["how"], answer["probes"]) == (number, "modelled", [])
            assert answer["text"].endswith("(modelled)")
            assert answer["programs"]

    @pytest.mark.parametrize(
        ("scheme", "host_reads", "unasked"),
        [
            ("status-quo", (True, True), (False, False)),
            ("normal-nc-all", (True, True), (False, True)),
            ("prefetchable-wc", (False, True), (False, False)),
            ("pgprot-maybe-wc", (True, True), (False, True)),
        ],
    )
    def test_reads(self, scheme: str, host_reads: tuple[bool, bool], unasked: tuple[bool, bool]) -> None:
        found, _ = ordered_run(scheme)
        card = found.scorecard[scheme]
        assert tuple(card["host-reads"]["value"].values()) == host_reads
        assert tuple(card["unasked-reads"]["value"].values()) == unasked
        # The same as questions 4 and 11 say by rule.
        assert card["host-mapping"]["value"]["no_speculation"] == card["host-reads"]["value"]["all_ranges"]
        assert card["side-effects"]["value"] == card["unasked-reads"]["value"]

    def test_a_read_is_said_with_its_program(self) -> None:
        found, _ = ordered_run("prefetchable-wc")
        answer = found.scorecard["prefetchable-wc"]["host-reads"]
        assert answer["programs"][0] == (
            "STR w to the doorbell, nGnRE; nobody loads bar2+0x0 4: 2 of 3 legal behaviours read it: bar2+0x0 4 "
            "through the host's Normal Non-cacheable mapping (B2.10.1)"
        )
        free = found.scorecard["prefetchable-wc"]["unasked-reads"]
        assert free["programs"][0] == (
            "STR w to the doorbell, nGnRE; nobody loads bar0+0x18 4: 0 of 1 legal behaviours read it; the host has "
            "control as Device-nGnRnE"
        )

    @pytest.mark.parametrize(
        ("scheme", "burst", "early"),
        [
            ("status-quo", "never", ""),
            ("normal-nc-all", "100.0%", "none, dmb ishst, dgh, read-back"),
            ("permit-wc", "100.0%", "none, dmb ishst, dgh, read-back"),
        ],
    )
    def test_bursts_and_doorbells(self, scheme: str, burst: str, early: str) -> None:
        found, orders = ordered_run(scheme)
        value = found.scorecard[scheme]["doorbell-first"]["value"]
        assert list(value) == list(BARRIERS)
        assert ", ".join(name for name, able in value.items() if able) == early
        detail = found.scorecard[scheme]["doorbell-first"]["detail"]
        assert ("Device-nGRE" in detail) == bool(early)
        best = max(row(pair, "8 x STR x", "none").whole for pair in orders.pairs.values())
        wanted = "never" if burst == "never" else f"{best / 3:.1%}"
        assert found.scorecard[scheme]["one-tlp"]["value"]["8 x STR x"] == wanted

    def test_only_ranges_that_stand_write_combining_are_asked_about(self) -> None:
        found, _ = ordered_run("cacheable-follow", True)
        answer = found.scorecard["cacheable-follow"]["doorbell-first"]
        assert answer["detail"] == (
            "the doorbell can overtake a payload of type: Normal Write-Back, Tagged Normal Write-Back"
        )
        assert set(answer["value"].values()) == {True}


class TestProfiles:
    def test_each_can_be_said_in_words(self) -> None:
        words = {name: in_words(profile) for name, profile in PROFILES.items()}
        assert words["in-order"] == "no buffers; the root complex cuts at 256 bytes"
        assert words["reorder-only"] == "no buffers, 8 accesses wait beside them; the root complex cuts at 256 bytes"
        assert words["wc-64x4-partial"] == (
            "4 buffers of 64 bytes, one drains after 20% of accesses, 70% of those in part; "
            "the root complex cuts at 256 bytes"
        )
        assert words["rc-splits-4"].endswith("; the root complex cuts at 256 bytes, and everything into 4")

    @pytest.mark.parametrize(
        ("profile", "seeds", "message"),
        [
            ("wc-1", 1, "profile must be one of in-order, reorder-only, .*, rc-splits-4, not wc-1"),
            ("wc-64x4", 0, "seeds must be at least 1, not 0"),
        ],
    )
    def test_others_are_refused(self, profile: str, seeds: int, message: str) -> None:
        with pytest.raises(DefinitionError, match=f"^{message}$"):
            Ordered(profile, seeds)
