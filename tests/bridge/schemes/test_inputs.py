"""Layouts, requests, drivers: what they refuse and what they fill in."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NORMAL_NC
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.schemes import Ask, Bar, Descriptor, Driver, Host, Layout, Range, Request

from .layouts import LAYOUT


def test_gaps_become_ranges_without_traits() -> None:
    assert [where.name for where in LAYOUT.in_bar(0)] == ["control", "doorbell", "fifo", "bar0+0xc000"]
    gap = LAYOUT.find("bar2+0x70000")
    assert (gap.offset, gap.size, gap.wc_safe, gap.dynamic) == (0x70000, 0x90000, False, False)
    assert LAYOUT.find("window").pages == 32
    assert LAYOUT.bar(2).prefetchable
    with pytest.raises(KeyError):
        LAYOUT.find("nowhere")
    with pytest.raises(KeyError):
        LAYOUT.bar(1)


BAR = Bar(0, 0x4000)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([("a", 1, 0, 0x1000)], "BAR of a must be one of [0], not 1"),
        ([("a", 0, 0, 0x2000), ("b", 0, 0x1000, 0x1000)], "b must not overlap the range before it, at 0x1000"),
        ([("a", 0, 0x3000, 0x2000)], "a must end within BAR 0, not at 0x5000"),
        ([("a", 0, 0, 0x1000), ("a", 0, 0x1000, 0x1000)], "range names must be unique, not a twice"),
    ],
)
def test_layouts_that_cannot_be(ranges: list[tuple[str, int, int, int]], message: str) -> None:
    with pytest.raises(DefinitionError) as error:
        Layout((BAR,), tuple(Range(*where) for where in ranges))
    assert str(error.value) == message


def test_ranges_bars_and_hosts_that_cannot_be() -> None:
    for build, message in (
        (lambda: Bar(6, 0x1000), "BAR index must be 0 to 5, not 6"),
        (lambda: Bar(1, 0x1800), "BAR 1 size must be a multiple of 4096 bytes, not 6144"),
        (lambda: Range("r", 0, 0x800, 0x1000), "offset of r must be a multiple of 4096, not 0x800"),
        (lambda: Range("r", 0, 0, 0), "size of r must be a multiple of 4096 bytes, not 0x0"),
        (
            lambda: Range("r", 0, 0, 0x1000, kvm_internal=True),
            "r must be a platform range to be KVM's own, not in BAR 0",
        ),
        (
            lambda: Range("r", 0, 0, 0x1000, speculation_safe=True, read_side_effects=True),
            "r must not be speculation-safe and have read side effects",
        ),
        (lambda: Host(16), "bits must be 32 or 64, not 16"),
        (
            lambda: Host(32),
            "fwb must be False on a 32-bit host, whose HCR and HCR2 have no such bit, not True",
        ),
    ):
        with pytest.raises(DefinitionError) as error:
            build()
        assert str(error.value) == message


def test_a_vmm_that_knows_the_device() -> None:
    assert dict(Request.knowing(LAYOUT).asks) == {
        "window": Ask(write_combine=True, speculation=True),
        "half-safe": Ask(write_combine=True),
        "dynamic": Ask(speculation=True, dynamic=True),
    }
    assert Request().ask(LAYOUT.find("window")) == Ask()


def test_a_driver_that_knows_the_device() -> None:
    driver = Driver.knowing(LAYOUT, cacheable_bars=frozenset({2}))
    assert dict(driver.descriptors) == {
        "window": Descriptor(NORMAL_NC, NORMAL_NC),
        "half-safe": Descriptor(GRE, GRE),
    }
    assert driver.safe_wc == {"window", "half-safe"}
    assert driver.safe_speculation == {"window", "dynamic"}
    assert driver.tracks == {"dynamic"}
    assert driver.cacheable_bars == {2}
