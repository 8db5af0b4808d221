"""The probe's ranges and a platform device as the schemes see them, and a decision as a lane installs it."""

from __future__ import annotations

from collections import Counter

from ..bridge.schemes import Bar, Decision, Driver, Layout, Range, Request
from ..devices.probe_map import BAR0_SIZE, BAR2_SIZE, RANGES
from .lanes.installation import Installation, Patch
from .lanes.places import PLACES, Place
from .operation import PAGE
from .plan import PLATFORM

_SPECULATION_SAFE = frozenset({"wc-mapped", "dynamic"})
"""Ranges whose reads nobody minds. `wc-trapped` is not one: its reads are recorded, and that is a side effect."""


GAP = "bar"
"""How the names of pages begin that no range claims (`Layout`): the guest can map them, no battery runs there."""


def _layout() -> Layout:
    ranges = [
        Range(
            name,
            each.bar,
            each.offset,
            each.size,
            wc_safe=each.wc_safe,
            speculation_safe=name in _SPECULATION_SAFE,
            read_side_effects=each.read_side_effects,
            msix_table=each.msix,
            dynamic=each.dynamic,
        )
        for name, each in RANGES.items()
    ]
    platform = PLACES["platform"]
    ranges.append(Range(platform.name, None, platform.offset, platform.size))
    return Layout(bars=(Bar(0, BAR0_SIZE), Bar(2, BAR2_SIZE, prefetchable=True)), ranges=tuple(ranges))


LAYOUT = _layout()
"""The device under test and the on-board device that the same VM is given."""

REQUEST = Request.knowing(LAYOUT)
"""What a VMM asks that knows the device: write-combining where it is safe."""

DRIVER = Driver.knowing(LAYOUT, cacheable_bars=frozenset({2}))
"""A variant driver that knows the device too. Its BAR 2 is memory, so `cacheable-follow` maps it cacheable."""


def installation(decision: Decision) -> Installation:
    """What a lane installs for a decision. Pages that the scheme refuses are left out, and so have no mapping.

    A range whose pages differ becomes several patches, named ``dynamic[0]``, ``dynamic[2:16]``. Pages of a BAR that no
    range claims are patches without an arena.
    """
    patches: dict[str, Patch] = {}
    parts = Counter(piece.range for piece in decision.pieces)
    for piece in decision.pieces:
        if piece.s2 is None:
            continue
        bar = PLATFORM if piece.bar is None else piece.bar
        gap = Place(piece.range, bar, piece.offset, piece.size, piece.offset, 0, trapped=True)
        place = PLACES.get(piece.range, gap)
        name = piece.range if parts[piece.range] == 1 else part_name(piece.range, piece.first_page, piece.pages)
        part = place if parts[piece.range] == 1 else place.part(name, piece.offset, piece.pages * PAGE)
        patches[name] = Patch(part, piece.s2, piece.host)
    return Installation(patches)


def part_name(name: str, first: int, pages: int) -> str:
    """Pages of a range by name, as Python would slice them."""
    return f"{name}[{first}]" if pages == 1 else f"{name}[{first}:{first + pages}]"


def base_name(name: str) -> str:
    """The range that a part is of."""
    return name.partition("[")[0]


def part_holding(names: list[str], name: str, page: int) -> str | None:
    """Which of these names is the range, or the part of it, that holds a page."""
    for each in names:
        base, _, rest = each.partition("[")
        if base != name:
            continue
        first, _, end = rest.rstrip("]").partition(":")
        if not rest or int(first) <= page < (int(end) if end else int(first) + 1):
            return each
    return None
