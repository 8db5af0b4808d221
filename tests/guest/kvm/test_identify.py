"""The name of a scheme, from what was found of each range: by the proposals, not by what a kernel was seen to do."""

from __future__ import annotations

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NORMAL_NC
from pyvfio_user.guest.kvm.identify import Found, identify
from pyvfio_user.guest.layout import LAYOUT

BAR0 = ("control", "doorbell", "fifo")
BAR2 = ("wc-mapped", "wc-trapped", "strict", "dynamic", "msix")


def test_the_old_rule_is_everyones_that_must_be_asked() -> None:
    found = identify({name: Found("1", NGNRNE) for name in BAR0 + BAR2}, True)
    assert found.scheme == "status-quo"
    assert found.alike == (
        "vfio-descriptor", "vmm-opt-in", "mmap-writecombine", "mmap-writecombine-vetted", "permit-wc", "trap"
    )  # fmt: skip
    assert (found.nearest, found.differs) == ("status-quo", "")


def test_the_released_scheme_comes_before_those_that_look_alike() -> None:
    found = identify({name: Found("5") for name in BAR0 + BAR2}, True)
    assert found.scheme == "vma-allow-any-uncached"
    assert {"normal-nc-all", "vma-pci-io", "pgprot-maybe-wc", "pgprot-device"} < {*found.alike}


def test_the_hosts_own_mapping_tells_them_apart() -> None:
    """pgprot_maybewritecombine maps GRE to users, pgprot_device nGnRE (both with Normal-NC in stage 2)."""
    for host, scheme in ((GRE, "pgprot-maybe-wc"), (NGNRE, "pgprot-device")):
        found = identify({name: Found("5", host) for name in BAR0 + BAR2}, False)
        assert (found.scheme, found.alike) == (scheme, ())


def test_a_prefetchable_bar_alone() -> None:
    found = identify({name: Found("1") for name in BAR0} | {name: Found("5") for name in BAR2}, False)
    assert (found.scheme, found.alike) == ("prefetchable-wc", ())


def test_what_no_scheme_does_is_told_by_what_differs() -> None:
    seen = {name: Found("5", NGNRNE) for name in BAR0 + BAR2} | {"strict": Found("f", NORMAL_NC)}
    found = identify(seen, False)
    assert (found.scheme, found.alike) == (None, ())
    assert found.nearest == "normal-nc-all", "the first of those with two differences"
    assert found.differs == (
        "strict has stage 2 f, not 5; strict is mapped Normal Non-cacheable by the host, not Device-nGnRnE"
    )


def test_several_descriptors_are_no_scheme() -> None:
    seen = {name: Found("1") for name in BAR0 + BAR2} | {"msix": Found("1 (page 0), none (page 2)")}
    found = identify(seen, True)
    assert found.scheme is None
    assert found.differs == "msix has stage 2 1 (page 0), none (page 2), not 1"


def test_all_ranges_of_the_layout_can_be_found() -> None:
    assert {where.name for where in LAYOUT.ranges} - {"platform"} == {*BAR0, *BAR2}
