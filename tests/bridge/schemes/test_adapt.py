"""What becomes of a page that turns write-combining-safe while the guest runs."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NORMAL_NC
from pyvfio_user.bridge.schemes import NOTHING, SCHEMES, BarMapping, Change, Driver, Request, settled

from .layouts import DRIVER, LAYOUT, MEMORY, situation

CHANGE = Change("dynamic", 3)
LEFT = "stage 2 leaves the type to the guest's own stage 1"
FORBIDDEN = "stage 2 forbids write-combining, and nobody can change it while the guest runs"

EXPECTED = {
    "status-quo": (False, "nobody", FORBIDDEN),
    "prefetchable-wc": (False, "guest", LEFT),
    "normal-nc-all": (False, "guest", LEFT),
    "vma-pci-io": (False, "guest", LEFT),
    "vma-allow-any-uncached": (False, "guest", LEFT),
    "vfio-descriptor": (False, "nobody", FORBIDDEN),
    "vmm-opt-in": (False, "nobody", FORBIDDEN),
    "pgprot-maybe-wc": (False, "guest", LEFT),
    "pgprot-device": (False, "guest", LEFT),
    "mmap-writecombine": (True, "vmm", "the vmm has stage 2 changed, page by page"),
    "mmap-writecombine-vetted": (True, "vmm", "the vmm has stage 2 changed, page by page"),
    "permit-wc": (True, "vmm", "the vmm has stage 2 changed, page by page"),
    "cacheable-follow": (False, "guest", LEFT),
    "vfio-wc-uapi": (True, "guest", LEFT),
    "trap": (True, "guest", "the guest has stage 2 changed, page by page"),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_who_drives(name: str) -> None:
    before = settled(SCHEMES[name], situation())
    adaptation = SCHEMES[name].adapt(before, CHANGE)
    assert (adaptation.changed, adaptation.driver, adaptation.reason) == EXPECTED[name]
    assert adaptation.changed == (adaptation.decision.pieces != before.pieces)


@pytest.mark.parametrize("name", [name for name, (changed, _, _) in EXPECTED.items() if changed])
def test_one_page_changes_and_no_other(name: str) -> None:
    scheme = SCHEMES[name]
    before = settled(scheme, situation())
    after = scheme.adapt(before, CHANGE).decision
    for where in LAYOUT.covered:
        for page in range(where.pages):
            one, other = before.at(where.name, page), after.at(where.name, page)
            same = (one.s2, one.host, one.vma_flags) == (other.s2, other.host, other.vma_flags)
            assert same == ((where.name, page) != ("dynamic", 3))
    assert [(piece.first_page, piece.pages) for piece in after.of("dynamic")] == [(0, 3), (3, 1), (4, 12)]
    assert after.of("dynamic")[1].offset == 0x53000


@pytest.mark.parametrize("name", [name for name, (changed, _, _) in EXPECTED.items() if changed])
def test_it_can_be_taken_back(name: str) -> None:
    scheme = SCHEMES[name]
    before = settled(scheme, situation())
    after = scheme.adapt(before, CHANGE).decision
    back = scheme.adapt(after, Change("dynamic", 3, wc_safe=False))
    assert back.decision == before
    assert back.changed


def test_what_the_page_becomes() -> None:
    got = {}
    for name, (changed, _, _) in EXPECTED.items():
        if changed:
            page = SCHEMES[name].adapt(settled(SCHEMES[name], situation()), CHANGE).decision.at("dynamic", 3)
            got[name] = (str(page.host), page.s2)
    assert got == {
        "mmap-writecombine": ("44", 5),
        "mmap-writecombine-vetted": ("44", 5),
        "permit-wc": ("00", 5),
        "vfio-wc-uapi": ("44", 5),
        "trap": ("00", 5),
    }


def test_pages_opened_one_by_one_cost_a_mapping_each() -> None:
    scheme = SCHEMES["mmap-writecombine"]
    decision = scheme.decide(situation(request=Request({"dynamic": Request.knowing(LAYOUT).asks["dynamic"]})))
    assert decision.bars[1] == BarMapping(2, 1, 1, 1)
    decision = scheme.adapt(decision, Change("dynamic", 3)).decision
    assert decision.bars[1] == BarMapping(2, 2, 3, 1)
    # The neighbour is a VMA of its own: device VMAs never merge.
    decision = scheme.adapt(decision, Change("dynamic", 4)).decision
    assert decision.bars[1] == BarMapping(2, 3, 4, 1)


def test_a_vmm_that_does_not_follow() -> None:
    for name in ("mmap-writecombine", "mmap-writecombine-vetted", "permit-wc", "trap"):
        decision = settled(SCHEMES[name], situation(request=NOTHING))
        adaptation = SCHEMES[name].adapt(decision, CHANGE)
        assert (adaptation.changed, adaptation.driver) == (False, "nobody")


def test_the_veto_needs_a_driver_that_tracks_the_device() -> None:
    scheme = SCHEMES["mmap-writecombine-vetted"]
    blind = Driver(DRIVER.descriptors, DRIVER.safe_wc, DRIVER.safe_speculation)
    adaptation = scheme.adapt(scheme.decide(situation(driver=blind)), CHANGE)
    assert (adaptation.changed, adaptation.driver) == (False, "nobody")


def test_a_tracked_page_that_must_not_be_speculated_upon_is_narrowed() -> None:
    scheme = SCHEMES["mmap-writecombine-vetted"]
    driver = Driver(tracks=frozenset({"dynamic"}))
    page = scheme.adapt(scheme.decide(situation(driver=driver)), CHANGE).decision.at("dynamic", 3)
    assert (page.host, page.stage2) == (GRE, GRE)


def test_permission_without_speculation_is_gre_at_run_time_too() -> None:
    asks = dict(Request.knowing(LAYOUT).asks)
    asks["dynamic"] = type(asks["dynamic"])(dynamic=True)
    scheme = SCHEMES["permit-wc"]
    page = scheme.adapt(scheme.decide(situation(request=Request(asks))), CHANGE).decision.at("dynamic", 3)
    assert page.stage2 == GRE


def test_a_whole_range() -> None:
    scheme = SCHEMES["trap"]
    after = scheme.adapt(scheme.decide(situation()), Change("dynamic")).decision
    (piece,) = after.of("dynamic")
    assert piece.stage2 == NORMAL_NC


def test_forced_and_refused_types_follow_nobody() -> None:
    scheme = SCHEMES["cacheable-follow"]
    driver = Driver.knowing(LAYOUT, cacheable_bars=MEMORY)
    forced = scheme.adapt(scheme.decide(situation(driver=driver)), CHANGE)
    assert (forced.driver, forced.reason) == (
        "nobody",
        "stage 2 forces the type, and nobody can change it while the guest runs",
    )
    refused = scheme.adapt(scheme.decide(situation(driver=driver, fwb=False)), CHANGE)
    assert (refused.driver, refused.reason) == ("nobody", "the memslot was refused")


def test_unknown_ranges_and_pages() -> None:
    scheme = SCHEMES["trap"]
    decision = scheme.decide(situation())
    for change in (Change("nowhere"), Change("dynamic", 16), Change("dynamic", -1)):
        with pytest.raises(KeyError):
            scheme.adapt(decision, change)
