"""Every scheme's exact decision for a layout with every kind of range, on every kind of host, asked and not asked."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pyvfio_user.bridge.attributes import NORMAL_NC, NORMAL_WB
from pyvfio_user.bridge.schemes import (
    NOTHING,
    SCHEMES,
    VFIO_FLAGS,
    Ask,
    BarMapping,
    Driver,
    Refusal,
    Request,
    settled,
)

from .layouts import DRIVER, LAYOUT, MEMORY, situation, table

STRICT = {where.name: "00/1" for where in LAYOUT.covered} | {"gicv": "-/1"}
BAR0 = [where.name for where in LAYOUT.in_bar(0)]
BAR2 = [where.name for where in LAYOUT.in_bar(2)]
PCI = BAR0 + BAR2


def strict_but(value: str = "", names: list[str] | None = None, **others: str) -> dict[str, str]:
    """The old rule, but `value` for `names`; keywords override single ranges (`_` stands for `-`)."""
    changed = dict.fromkeys(names or [], value)
    return STRICT | changed | {name.replace("_", "-"): other for name, other in others.items()}


def test_the_order_is_that_of_the_proposals() -> None:
    assert list(SCHEMES) == [
        "status-quo",
        "prefetchable-wc",
        "normal-nc-all",
        "vma-pci-io",
        "vma-allow-any-uncached",
        "vfio-descriptor",
        "vmm-opt-in",
        "pgprot-maybe-wc",
        "pgprot-device",
        "mmap-writecombine",
        "mmap-writecombine-vetted",
        "permit-wc",
        "cacheable-follow",
        "vfio-wc-uapi",
        "trap",
    ]
    for name, scheme in SCHEMES.items():
        assert scheme.id == name
        assert all((scheme.title, scheme.decider, scheme.granularity, scheme.opt_in, scheme.status))


ASKED = {
    "status-quo": STRICT,
    "prefetchable-wc": strict_but("44/5", BAR2),
    "normal-nc-all": strict_but("00/5", PCI, platform="00/5", gicv="-/5"),
    "vma-pci-io": strict_but("00/5", PCI),
    "vma-allow-any-uncached": strict_but("00/5", PCI),
    "vfio-descriptor": strict_but(window="44/5", half_safe="0c/3"),
    "vmm-opt-in": strict_but(window="00/5", half_safe="00/5"),
    "pgprot-maybe-wc": strict_but("0c/5", PCI),
    "pgprot-device": strict_but("04/5", PCI, platform="00/0"),
    "mmap-writecombine": strict_but(window="44/5", half_safe="44/5"),
    "mmap-writecombine-vetted": strict_but(window="44/5", half_safe="0c/3"),
    "permit-wc": strict_but(window="00/5", half_safe="00/3"),
    "cacheable-follow": strict_but("00/5", BAR0) | dict.fromkeys(BAR2, "ff/6"),
    "vfio-wc-uapi": strict_but("00/5", PCI, window="44/5", half_safe="44/5"),
    "trap": strict_but(window="00/5", half_safe="00/5"),
}
# A VMM that asks for nothing: opt-in schemes leave the old rule, the others do not care.
NOT_ASKED = ASKED | {
    "vmm-opt-in": STRICT,
    "mmap-writecombine": STRICT,
    "mmap-writecombine-vetted": STRICT,
    "permit-wc": STRICT,
    "vfio-wc-uapi": ASKED["vma-allow-any-uncached"],
    "trap": STRICT,
}
# A 32-bit kernel: no high VMA flag, and no FWB.
BITS32 = ASKED | {
    "vma-pci-io": STRICT,
    "vma-allow-any-uncached": STRICT,
    "cacheable-follow": strict_but("ff/-", BAR2),
    "vfio-wc-uapi": strict_but(window="44/1", half_safe="44/1"),
}
# Without FWB the nibbles are the same but for Write-Back, which is refused.
NO_FWB = ASKED | {"cacheable-follow": ASKED["cacheable-follow"] | dict.fromkeys(BAR2, "ff/-")}

KNOWS = Driver.knowing(LAYOUT, cacheable_bars=MEMORY)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize(
    ("expected", "request_", "bits", "fwb"),
    [
        pytest.param(ASKED, None, 64, True, id="asked"),
        pytest.param(NOT_ASKED, NOTHING, 64, True, id="not-asked"),
        pytest.param(BITS32, None, 32, False, id="32-bit"),
        pytest.param(NO_FWB, None, 64, False, id="no-fwb"),
    ],
)
def test_decision(
    name: str, expected: Mapping[str, Mapping[str, str]], request_: Request | None, bits: int, fwb: bool
) -> None:
    inputs = situation(driver=KNOWS, bits=bits, fwb=fwb)
    if request_ is not None:
        inputs = situation(driver=KNOWS, bits=bits, fwb=fwb, request=request_)
    assert table(settled(SCHEMES[name], inputs)) == expected[name]


WHOLE = (BarMapping(0, 1, 1, 1), BarMapping(2, 1, 1, 1))
PIECES = (BarMapping(0, 1, 1, 1), BarMapping(2, 3, 3, 1))


@pytest.mark.parametrize(
    ("name", "bars"),
    [
        (name, {"vmm-opt-in": (BarMapping(0, 1, 1, 1), BarMapping(2, 1, 1, 2))}.get(name, WHOLE))
        for name in SCHEMES
        if name not in ("vfio-descriptor", "mmap-writecombine", "mmap-writecombine-vetted", "vfio-wc-uapi")
    ]
    + [
        # The whole BAR, then `window` and `half-safe` over it: three calls, and three VMAs are left.
        ("mmap-writecombine", PIECES),
        ("mmap-writecombine-vetted", PIECES),
        ("vfio-wc-uapi", PIECES),
        # `window`, `half-safe`, and all the rest, each with its own pgprot.
        ("vfio-descriptor", PIECES),
    ],
)
def test_what_mapping_costs(name: str, bars: tuple[BarMapping, ...]) -> None:
    assert settled(SCHEMES[name], situation()).bars == bars


def test_a_memslot_for_each_run_of_equal_flags() -> None:
    request = Request({"window": Ask(write_combine=True), "strict": Ask(write_combine=True)})
    decision = SCHEMES["vmm-opt-in"].decide(situation(request=request))
    assert decision.bars == (BarMapping(0, 1, 1, 1), BarMapping(2, 1, 1, 4))


@pytest.mark.parametrize(
    ("name", "bits", "flags"),
    [
        ("status-quo", 64, VFIO_FLAGS),
        ("vma-pci-io", 64, ("VM_PCI_IO", *VFIO_FLAGS)),
        ("vma-pci-io", 32, VFIO_FLAGS),
        ("vma-allow-any-uncached", 64, ("VM_ALLOW_ANY_UNCACHED", *VFIO_FLAGS)),
        ("vma-allow-any-uncached", 32, VFIO_FLAGS),
        ("vfio-wc-uapi", 64, ("VM_ALLOW_ANY_UNCACHED", *VFIO_FLAGS)),
        ("prefetchable-wc", 64, VFIO_FLAGS),
        ("mmap-writecombine", 64, VFIO_FLAGS),
    ],
)
def test_vma_flags(name: str, bits: int, flags: tuple[str, ...]) -> None:
    decision = SCHEMES[name].decide(situation(bits=bits, fwb=False))
    assert decision.at("window").vma_flags == flags
    assert decision.at("platform").vma_flags == VFIO_FLAGS
    assert decision.at("gicv").vma_flags == ()


def test_a_cacheable_mapping_has_no_uncached_flag() -> None:
    decision = SCHEMES["cacheable-follow"].decide(situation(driver=KNOWS))
    assert decision.at("window").vma_flags == VFIO_FLAGS
    assert decision.at("control").vma_flags == ("VM_ALLOW_ANY_UNCACHED", *VFIO_FLAGS)


@pytest.mark.parametrize(
    ("fwb", "dic", "missing"), [(False, True, "FWB"), (True, False, "DIC"), (False, False, "FWB and DIC")]
)
def test_a_cacheable_memslot_needs_fwb_and_dic(fwb: bool, dic: bool, missing: str) -> None:
    decision = SCHEMES["cacheable-follow"].decide(situation(driver=KNOWS, fwb=fwb, dic=dic))
    refusal = Refusal(
        22,
        f"a memslot must be over VMAs that are not cacheable on a host without {missing}, not over a Write-Back one",
    )
    assert refusal.name == "EINVAL"
    for name in BAR2:
        piece = decision.at(name)
        assert (piece.host, piece.s2, piece.stage2, piece.refusal) == (NORMAL_WB, None, None, refusal)
        assert piece.reachable(fwb) == {}
        assert piece.effective(NORMAL_NC, fwb) is None
    for name in BAR0:
        assert decision.at(name).refusal is None


def test_without_memory_cacheable_follow_is_what_was_merged() -> None:
    merged = SCHEMES["vma-allow-any-uncached"].decide(situation())
    assert SCHEMES["cacheable-follow"].decide(situation()).pieces == merged.pieces


def test_one_cacheable_piece_refuses_the_whole_memslot() -> None:
    """vfio-platform maps as ever, whatever is asked: its own memslot is taken."""
    request = Request({"strict": Ask(cacheable=True), "platform": Ask(cacheable=True)})
    decision = SCHEMES["mmap-writecombine"].decide(situation(request=request, fwb=False))
    refused = {piece.range for piece in decision.pieces if piece.refusal is not None}
    assert refused == {*BAR2}
    assert decision.at("platform").s2 == 1
    assert SCHEMES["mmap-writecombine"].decide(situation(request=request)).at("strict").s2 == 6


def test_the_driver_may_map_a_bar_write_combining_to_users() -> None:
    driver = Driver.knowing(LAYOUT, wc_bars=frozenset({2}))
    decision = SCHEMES["vma-allow-any-uncached"].decide(situation(driver=driver))
    assert table(decision) == strict_but("00/5", BAR0) | dict.fromkeys(BAR2, "44/5")


GREEDY = Request.greedy(LAYOUT)


def test_the_veto_says_why() -> None:
    decision = SCHEMES["mmap-writecombine-vetted"].decide(situation(request=GREEDY))
    vetoes = {piece.range: piece.veto.reason for piece in decision.pieces if piece.veto is not None}
    known = "must be known to be write-combining-safe to be mapped write-combining"
    assert vetoes == {
        "platform": f"platform {known}",
        "control": f"control {known}",
        "doorbell": f"doorbell {known}",
        "fifo": "fifo must be free of read side effects to be mapped write-combining",
        "bar0+0xc000": f"bar0+0xc000 {known}",
        "half-safe": (
            "half-safe must be known to be speculation-safe to be mapped Normal-NC, so it is mapped Device-GRE"
        ),
        "strict": f"strict {known}",
        "dynamic": f"dynamic {known}",
        "msix": "msix must be free of the MSI-X table to be mapped write-combining",
        "bar2+0x70000": f"bar2+0x70000 {known}",
    }
    assert all(piece.veto is None or piece.veto.name == "EPERM" for piece in decision.pieces)
    assert table(decision) == ASKED["mmap-writecombine-vetted"]
    assert all(piece.refusal is None for piece in decision.pieces)


def test_a_driver_that_knows_nothing_vetoes_everything() -> None:
    decision = SCHEMES["mmap-writecombine-vetted"].decide(situation(request=GREEDY, driver=Driver()))
    assert table(decision) == STRICT


def test_the_veto_on_cacheable_mappings() -> None:
    request = Request({"window": Ask(cacheable=True), "control": Ask(cacheable=True)})
    decision = SCHEMES["mmap-writecombine-vetted"].decide(situation(request=request, driver=KNOWS))
    assert decision.at("window").s2 == 6
    control = decision.at("control")
    assert control.s2 == 1
    assert control.veto == Refusal(1, "control must be memory to be mapped cacheable")


def test_without_a_veto_the_greedy_get_everything() -> None:
    """vfio-platform does not follow the flag of mmap()."""
    assert table(SCHEMES["mmap-writecombine"].decide(situation(request=GREEDY))) == strict_but("44/5", PCI)
    assert table(SCHEMES["permit-wc"].decide(situation(request=GREEDY))) == strict_but("00/5", PCI, platform="00/5")
    assert table(SCHEMES["vmm-opt-in"].decide(situation(request=GREEDY))) == strict_but("00/5", PCI, platform="00/5")
    assert table(SCHEMES["vfio-wc-uapi"].decide(situation(request=GREEDY))) == strict_but("44/5", PCI)
    assert table(settled(SCHEMES["trap"], situation(request=GREEDY), greedy=True)) == strict_but(
        "00/5", PCI, platform="00/5"
    )


def test_permitting_speculation_alone_permits_nothing() -> None:
    request = Request({"window": Ask(speculation=True), "half-safe": Ask(write_combine=True, speculation=True)})
    decision = SCHEMES["permit-wc"].decide(situation(request=request))
    assert table(decision) == strict_but(half_safe="00/5")


def test_an_undescribed_device_keeps_the_old_rule() -> None:
    decision = SCHEMES["vfio-descriptor"].decide(situation(driver=Driver()))
    assert table(decision) == STRICT
    assert decision.bars == WHOLE


def test_trap_is_the_old_rule_until_the_guest_asks() -> None:
    assert table(SCHEMES["trap"].decide(situation())) == STRICT
    assert table(settled(SCHEMES["trap"], situation(request=NOTHING))) == STRICT


def test_the_driver_is_not_asked_where_it_does_not_count() -> None:
    for name in ("status-quo", "normal-nc-all", "vmm-opt-in", "mmap-writecombine", "permit-wc", "trap"):
        with_driver = settled(SCHEMES[name], situation(driver=DRIVER))
        assert with_driver.pieces == settled(SCHEMES[name], situation(driver=Driver())).pieces
