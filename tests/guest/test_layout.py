"""The layout of the test bed, and a scheme's decision as a lane installs it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import NGNRE, NGNRNE, NORMAL_NC
from pyvfio_user.bridge.schemes import (
    NOTHING,
    SCHEMES,
    BarMapping,
    Change,
    Decision,
    Host,
    Piece,
    Refusal,
    Situation,
    settled,
)
from pyvfio_user.devices.probe_map import RANGES
from pyvfio_user.guest.lanes.places import PLACES, RTC_ADDRESS
from pyvfio_user.guest.layout import DRIVER, GAP, LAYOUT, REQUEST, installation, part_holding, part_name
from pyvfio_user.guest.plan import PLATFORM

SITUATION = Situation(LAYOUT, REQUEST, DRIVER, Host())
PAGE = 4096


def piece(name: str, first: int, pages: int, *, s2: int | None = 1, refusal: Refusal | None = None) -> Piece:
    place = PLACES[name]
    bar = None if place.platform else place.bar
    stage2 = None if s2 is None else NORMAL_NC if s2 == 5 else NGNRE
    offset = place.offset + first * PAGE
    return Piece(name, bar, offset, pages * PAGE, first, NGNRNE, (), s2, stage2, refusal)


def decision(*pieces: Piece) -> Decision:
    return Decision("made-up", SITUATION, pieces, (BarMapping(0, 1, 1, 1),))


class TestParts:
    @given(st.text("abc-+0x", min_size=1), st.integers(0, 300), st.integers(1, 300), st.integers(0, 700))
    def test_a_part_holds_its_pages_and_no_other(self, name: str, first: int, pages: int, page: int) -> None:
        part = part_name(name, first, pages)
        assert part_holding([part], name, page) == (part if first <= page < first + pages else None)
        assert part_holding([part], name + "x", page) is None

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.data())
    def test_of_parts_that_cover_a_range_exactly_one_holds_a_page(self, sizes: list[int], data: st.DataObject) -> None:
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        names = [part_name("dynamic", start, size) for start, size in zip(starts, sizes, strict=True)]
        page = data.draw(st.integers(0, sum(sizes) - 1))
        owner = max(n for n, start in enumerate(starts) if start <= page)
        shuffled = data.draw(st.permutations(["strict", *names]))
        assert part_holding(shuffled, "dynamic", page) == names[owner]
        assert part_holding(shuffled, "dynamic", sum(sizes)) is None

    @pytest.mark.parametrize(("first", "pages", "name"), [(0, 1, "d[0]"), (2, 14, "d[2:16]"), (7, 1, "d[7]")])
    def test_names_are_slices(self, first: int, pages: int, name: str) -> None:
        assert part_name("d", first, pages) == name

    def test_a_whole_range_holds_every_page(self) -> None:
        assert part_holding(["strict", "dynamic"], "dynamic", 12) == "dynamic"
        assert part_holding([], "dynamic", 0) is None


class TestTheLayout:
    def test_it_is_the_probe_and_an_onboard_device(self) -> None:
        ranges = {each.name: each for each in LAYOUT.ranges}
        assert list(ranges) == [*RANGES, "platform"]
        assert (ranges["platform"].bar, ranges["platform"].offset, ranges["platform"].size) == (None, RTC_ADDRESS, 4096)
        assert [name for name, each in ranges.items() if each.wc_safe] == ["wc-mapped", "wc-trapped"]
        assert [name for name, each in ranges.items() if each.speculation_safe] == ["wc-mapped", "dynamic"]
        assert [name for name, each in ranges.items() if each.read_side_effects] == ["control", "fifo"]
        assert [name for name, each in ranges.items() if each.msix_table] == ["msix"]
        assert [name for name, each in ranges.items() if each.dynamic] == ["dynamic"]
        assert [(bar.index, bar.size, bar.prefetchable) for bar in LAYOUT.bars] == [
            (0, 0x1_0000, False), (2, 0x10_0000, True)
        ]  # fmt: skip


class TestInstallation:
    def test_a_range_in_one_piece_keeps_its_name_and_place(self) -> None:
        patches = installation(decision(piece("strict", 0, 16, s2=5))).patches
        assert list(patches) == ["strict"]
        assert (patches["strict"].place, patches["strict"].stage2) == (PLACES["strict"], 5)
        assert patches["strict"].host == NGNRNE

    def test_a_range_whose_pages_differ_becomes_parts(self) -> None:
        pieces = piece("dynamic", 0, 1), piece("dynamic", 1, 1, s2=5), piece("dynamic", 2, 14)
        patches = installation(decision(*pieces)).patches
        assert {
            name: (patch.place.name, patch.place.offset, patch.place.size, patch.stage2)
            for name, patch in patches.items()
        } == {
            "dynamic[0]": ("dynamic[0]", 0x50000, 0x1000, 1),
            "dynamic[1]": ("dynamic[1]", 0x51000, 0x1000, 5),
            "dynamic[2:16]": ("dynamic[2:16]", 0x52000, 0xE000, 1),
        }

    def test_the_arena_of_a_part_is_what_of_it_lies_there(self) -> None:
        parts = [piece("msix", 0, 1), piece("msix", 1, 1), piece("msix", 2, 3), piece("msix", 5, 11)]
        places = [patch.place for patch in installation(decision(*parts)).patches.values()]
        assert [place.arena_size for place in places] == [0, 0, 0x3000, 0xB000]
        assert [place.arena_offset for place in places[2:]] == [0x62000, 0x65000]
        assert [place.crossable for place in places] == [False, False, True, True]
        assert [bool(place.slots) for place in places] == [False, False, True, True]

    def test_what_is_refused_has_no_patch(self) -> None:
        refused = piece("strict", 0, 16, s2=None, refusal=Refusal(22, "no"))
        assert installation(decision(refused, piece("msix", 0, 16))).patches.keys() == {"msix"}

    def test_a_platform_range_is_at_its_physical_address(self) -> None:
        (entry,) = installation(decision(piece("platform", 0, 1))).ranges()
        assert (entry.bar, entry.offset, entry.pages, entry.memattr, entry.host) == (PLATFORM, RTC_ADDRESS, 1, 1, 0)

    @pytest.mark.parametrize("name", SCHEMES)
    @pytest.mark.parametrize("fwb", [False, True])
    def test_every_page_that_a_scheme_installs_is_installed_once(self, name: str, fwb: bool) -> None:
        for request in (REQUEST, NOTHING):
            made = settled(SCHEMES[name], Situation(LAYOUT, request, DRIVER, Host(fwb=fwb)))
            for each in (made, SCHEMES[name].adapt(made, Change("dynamic", 1)).decision):
                found = [
                    (None if entry.bar == PLATFORM else entry.bar, entry.offset + n * PAGE, entry.memattr)
                    for entry in installation(each).ranges()
                    for n in range(entry.pages)
                ]
                wanted = [
                    (p.bar, p.offset + n * PAGE, p.s2) for p in each.pieces if p.s2 is not None for n in range(p.pages)
                ]
                assert found == wanted
                assert len({page[:2] for page in found}) == len(found)

    def test_pages_that_no_range_claims_have_no_arena(self) -> None:
        patches = installation(settled(SCHEMES["normal-nc-all"], SITUATION)).patches
        gaps = {name: patch.place for name, patch in patches.items() if name.startswith(GAP)}
        assert {name: (place.bar, place.offset, place.size, place.arena_size) for name, place in gaps.items()} == {
            "bar0+0xc000": (0, 0xC000, 0x4000, 0),
            "bar2+0x70000": (2, 0x70000, 0x90000, 0),
        }
