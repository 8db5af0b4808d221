"""What each scheme is said to make of the probe's ranges, written down by hand from the proposals and from Linux.

`bridge.schemes` computes the same by rules. The matrix compares the two before it believes either: a scheme that
installs another stage 2 than its author described is a disagreement that names the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..bridge.attributes import GRE, NGNRE, NGNRNE, NORMAL_NC, NORMAL_WB, MemoryType


@dataclass(frozen=True)
class Claim:
    """Stage 2 of a VM whose VMM asks for what the device stands: of PCI ranges, of the platform device, of others.

    ``pci`` holds for every range of the PCI device that is in neither ``bars`` nor ``ranges``. ``opened`` is what a
    page of `dynamic` gets when the device says at run time that it is safe; None: the mapping does not change.
    ``opt_in``: a VMM that asks for nothing gets Device-nGnRE everywhere.
    """

    pci: MemoryType = NGNRE
    platform: MemoryType = NGNRE
    bars: Mapping[int, MemoryType] = field(default_factory=dict)
    ranges: Mapping[str, MemoryType] = field(default_factory=dict)
    opened: MemoryType | None = None
    opt_in: bool = False

    def stage2(self, name: str, bar: int | None, page: int, case: str) -> MemoryType:
        """What stage 2 must allow at most on a page of a range, in a case ("asking", "nothing", "changed")."""
        if bar is None:
            return NGNRE if self.opt_in and case == "nothing" else self.platform
        if self.opt_in and case == "nothing":
            return NGNRE
        if case == "changed" and name == "dynamic" and page == 1 and self.opened is not None:
            return self.opened
        return self.ranges.get(name, self.bars.get(bar, self.pci))


_ASKED = {"wc-mapped": NORMAL_NC, "wc-trapped": NORMAL_NC}
_DESCRIBED = {"wc-mapped": NORMAL_NC, "wc-trapped": GRE}
"""Where write-combining is safe but a read nobody made is not, the only Arm type that combines and never speculates."""

CLAIMS: Mapping[str, Claim] = {
    "status-quo": Claim(),
    "prefetchable-wc": Claim(bars={2: NORMAL_NC}),
    "normal-nc-all": Claim(pci=NORMAL_NC, platform=NORMAL_NC),
    "vma-pci-io": Claim(pci=NORMAL_NC),
    "vma-allow-any-uncached": Claim(pci=NORMAL_NC),
    "vfio-descriptor": Claim(ranges=_DESCRIBED),
    "vmm-opt-in": Claim(ranges=_ASKED, opt_in=True),
    "pgprot-maybe-wc": Claim(pci=NORMAL_NC),
    "pgprot-device": Claim(pci=NORMAL_NC, platform=NGNRNE),
    "mmap-writecombine": Claim(ranges=_ASKED, opened=NORMAL_NC, opt_in=True),
    "mmap-writecombine-vetted": Claim(ranges=_DESCRIBED, opened=NORMAL_NC, opt_in=True),
    "permit-wc": Claim(ranges=_DESCRIBED, opened=NORMAL_NC, opt_in=True),
    "cacheable-follow": Claim(pci=NORMAL_NC, bars={2: NORMAL_WB}),
    "vfio-wc-uapi": Claim(pci=NORMAL_NC),
    "trap": Claim(ranges=_ASKED, opened=NORMAL_NC, opt_in=True),
}
"""By scheme: the column "KVM stage 2" of the proposals, for the probe's ranges."""
