"""A way to map ranges of the probe's BARs into the guest, and the descriptors that the pages of a range have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ...bridge.attributes import MEMORY_TYPES, MemoryType, encode_stage2
from ..lanes.installation import Installation, Patch
from ..lanes.kvm import Backing, KvmLane, Look, mapped_pages
from ..lanes.places import PLACES, Place
from ..layout import LAYOUT
from ..operation import PAGE
from ..plan import Asked, Range
from .stage2 import Descriptor

TYPES = MEMORY_TYPES[:-1]
"""A virtual machine is not given memory tagging, so that the tagged type is reserved there."""
DEVICE_TYPE, NC_TYPE = "04", "44"
CONTROL = "wc-trapped"
"""Where the controls are run."""


class Site(NamedTuple):
    """A way to map ranges. ``installed`` has, by range, the stage 2 and the host's type that it should have."""

    way: str
    role: str
    installed: Installation
    backing: Backing = Backing.DEVICE
    whole: bool = True
    """Each BAR is mapped in one piece; otherwise each range by itself."""


def control(way: str, role: str, kind: MemoryType, backing: Backing, fwb: bool) -> Site:
    """A site of which the stage 2 is known beforehand: ``kind`` on the range of the controls."""
    place = replace(PLACES[CONTROL], silent=backing is Backing.RAM)
    patch = Patch(place, encode_stage2(kind, fwb), None)
    return Site(way, role, Installation({CONTROL: patch}), backing, whole=False)


def ranges(site: Site) -> list[Range]:
    """What the VMM is told: the ranges one by one, or each BAR in one piece; BAR 0 always, for its registers."""
    whole = [Range(bar.index, 0, bar.size // PAGE, Backing.DEVICE, 0, Asked.NOTHING) for bar in LAYOUT.bars]
    if site.whole:
        return whole
    places = [patch.place for patch in site.installed.patches.values()]
    return whole[:1] + [Range(place.bar, place.offset, place.size // PAGE, site.backing, 0) for place in places]


def pages(lane: KvmLane, look: Look, place: Place) -> Sequence[Descriptor | None]:
    """The stage-2 descriptor of each page of a place, in order."""
    return [look.tables.pages[lane.hello.physical(place.bar, offset)] for offset in mapped_pages(place)]


def _kind(page: Descriptor | None) -> str:
    return f"{page.memattr:x} at level {page.level} with S2AP {page.access}" if page else "none"


def common(found: Sequence[Descriptor | None]) -> Descriptor | None:
    """The descriptor that all pages have, but for where it leads; None if they differ or lack one."""
    return found[0] if len({_kind(page) for page in found}) == 1 else None


def several(found: Sequence[Descriptor | None]) -> str:
    """Which descriptors there are, each with the first page that has it."""
    first = {kind: found.index(page) for page in reversed(found) for kind in [_kind(page)]}
    return ", ".join(f"{kind} (page {page})" for kind, page in sorted(first.items(), key=lambda item: item[1]))
