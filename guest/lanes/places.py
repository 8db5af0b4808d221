"""Where batteries run: the probe's ranges, and an on-board device of QEMU's virt machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...devices.probe_map import RANGES
from ..operation import PAGE, SLOT
from ..plan import PLATFORM

RTC_ADDRESS = 0x0901_0000
"""Physical address of the virt machine's PL031 real-time clock: a platform device, 4 KiB, no PCIe."""


@dataclass(frozen=True, slots=True)
class Place:
    """A range as a lane uses it: pages to map, and an arena whose bytes are plain memory at the device.

    ``bar`` is `plan.PLATFORM` for an on-board device, whose offsets are physical addresses and whose accesses leave no
    record. A range that is not ``trapped`` is memory shared with the guest: its final bytes are all that can be seen.
    """

    name: str
    bar: int
    offset: int
    size: int
    arena_offset: int
    arena_size: int
    trapped: bool
    silent: bool = False
    """Something other than the device lies there: it must get no access."""

    @property
    def unrecorded(self) -> bool:
        """Whether accesses leave no record: faults are all that can be seen."""
        return self.platform or self.silent

    @property
    def platform(self) -> bool:
        """Whether it is no part of a PCIe device."""
        return self.bar == PLATFORM

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.size

    @property
    def crossable(self) -> bool:
        """Whether the arena reaches the range's end, so that an operation can start in it and end in the next range."""
        return not self.platform and self.arena_size > 0 and self.arena_offset + self.arena_size == self.end

    @property
    def slots(self) -> list[int]:
        """Offsets of the arena's slots, without those that an operation uses which crosses into a page or a range."""
        kept = range(SLOT, PAGE - SLOT, SLOT)
        return [at for at in range(self.arena_offset, self.arena_offset + self.arena_size, SLOT) if at % PAGE in kept]

    @property
    def page_ends(self) -> range:
        """Offsets of the last slot of each page of the arena that another page of it follows."""
        return range(self.arena_offset + PAGE - SLOT, self.arena_offset + self.arena_size - SLOT, PAGE)

    @property
    def edge(self) -> int:
        """Offset of the last slot of the range."""
        return self.end - SLOT

    def part(self, name: str, offset: int, size: int) -> Place:
        """Pages of it, as a range of their own; the arena is what of it lies there, perhaps nothing."""
        start = max(offset, self.arena_offset)
        arena = max(0, min(offset + size, self.arena_offset + self.arena_size) - start)
        return replace(self, name=name, offset=offset, size=size, arena_offset=start, arena_size=arena)


PLACES: dict[str, Place] = {
    **{
        name: Place(name, each.bar, each.offset, each.size, each.arena_offset, each.arena_size, each.trapped)
        for name, each in RANGES.items()
    },
    "platform": Place("platform", PLATFORM, RTC_ADDRESS, PAGE, RTC_ADDRESS, PAGE, trapped=True),
}
"""Every range of the layout by name: the probe's in address order, then the platform device's."""
