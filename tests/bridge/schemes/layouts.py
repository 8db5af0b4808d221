"""A layout with every kind of range, and strategies for random ones."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NORMAL_NC, PAGE
from pyvfio_user.bridge.schemes import (
    Ask,
    Bar,
    Decision,
    Descriptor,
    Driver,
    Host,
    Layout,
    Range,
    Request,
    Situation,
)

LAYOUT = Layout(
    bars=(Bar(0, 0x10000), Bar(2, 0x100000, prefetchable=True)),
    ranges=(
        Range("control", 0, 0x0, 0x4000),
        Range("doorbell", 0, 0x4000, 0x4000),
        Range("fifo", 0, 0x8000, 0x4000, read_side_effects=True),
        Range("window", 2, 0x0, 0x20000, wc_safe=True, speculation_safe=True),
        Range("half-safe", 2, 0x20000, 0x20000, wc_safe=True),
        Range("strict", 2, 0x40000, 0x10000),
        Range("dynamic", 2, 0x50000, 0x10000, speculation_safe=True, dynamic=True),
        Range("msix", 2, 0x60000, 0x10000, msix_table=True),
        Range("platform", None, 0x901_0000, 0x1000),
        Range("gicv", None, 0x801_0000, 0x1000, kvm_internal=True),
    ),
)
REQUEST = Request.knowing(LAYOUT)
DRIVER = Driver.knowing(LAYOUT)
MEMORY = frozenset({2})


def situation(
    *,
    request: Request = REQUEST,
    driver: Driver = DRIVER,
    bits: int = 64,
    fwb: bool = True,
    dic: bool = True,
    layout: Layout = LAYOUT,
) -> Situation:
    """The whole layout with everybody knowing the device, changed as asked."""
    return Situation(layout, request, driver, Host(bits, fwb, dic))


def table(decision: Decision) -> dict[str, str]:
    """Host type and stage-2 nibble of each range, "44/5"; "-" where there is none. Ranges must be of one piece."""
    return {
        piece.range: f"{piece.host or '-'}/{'-' if piece.s2 is None else format(piece.s2, 'x')}"
        for piece in decision.pieces
    }


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Layouts of one to three BARs with gaps, random traits, perhaps a platform range."""
    bars = []
    ranges = []
    for index in draw(st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1, max_size=3, unique=True)):
        pages = draw(st.integers(1, 8))
        bars.append(Bar(index, pages * PAGE, draw(st.booleans())))
        cuts = sorted(draw(st.sets(st.integers(0, pages), max_size=5)))
        for start, end in pairwise(cuts):
            if draw(st.booleans()):
                side_effects = draw(st.booleans())
                ranges.append(
                    Range(
                        f"r{index}.{start}",
                        index,
                        start * PAGE,
                        (end - start) * PAGE,
                        wc_safe=draw(st.booleans()),
                        speculation_safe=draw(st.booleans()) and not side_effects,
                        read_side_effects=side_effects,
                        msix_table=draw(st.booleans()),
                        dynamic=draw(st.booleans()),
                    )
                )
    if draw(st.booleans()):
        ranges.append(Range("soc", None, 0x1000, PAGE, kvm_internal=draw(st.booleans())))
    return Layout(tuple(bars), tuple(ranges))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Random layouts, requests, drivers and hosts."""
    layout = draw(layouts())
    known = [where.name for where in layout.covered]
    asks = draw(
        st.dictionaries(
            st.sampled_from(known),
            st.builds(Ask, *[st.booleans()] * 2, st.sampled_from([False] * 3 + [True]), st.booleans()),
        )
    )
    some = st.frozensets(st.sampled_from(known))
    bars = st.frozensets(st.sampled_from([bar.index for bar in layout.bars]))
    bounds = st.sampled_from([NGNRNE, NGNRE, GRE, NORMAL_NC])
    driver = Driver(
        draw(st.dictionaries(st.sampled_from(known), st.builds(Descriptor, bounds, bounds))),
        draw(some),
        draw(some),
        draw(some),
        draw(bars),
        draw(bars),
    )
    bits = draw(st.sampled_from([32, 64]))
    return Situation(layout, Request(asks), driver, Host(bits, bits == 64 and draw(st.booleans()), draw(st.booleans())))
