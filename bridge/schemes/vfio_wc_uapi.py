"""`vfio-wc-uapi`: userspace asks VFIO for a write-combining user mapping. Under review (2024-2026), not in 7.3."""

from __future__ import annotations

from dataclasses import replace

from ..attributes import NORMAL_NC
from .base import Scheme, Slice
from .inputs import Bar, Range, Situation
from .mmap_writecombine import asked_slices
from .outputs import Choice
from .vma_allow_any_uncached import VmaAllowAnyUncached


class VfioWcUapi(Scheme):
    """For host processes (DPDK): region flags, mmap attributes, alias regions, dma-buf MEMATTR. Stage 2: as merged."""

    id = "vfio-wc-uapi"
    title = "VFIO region WC flags, mmap attributes, alias regions, dma-buf MEMATTR"
    decider = "userspace asks VFIO for a WC user mapping; KVM is unchanged by it"
    granularity = "alias or mmap slice"
    opt_in = "opt-in"
    status = "under review; not in 7.3"

    _base = VmaAllowAnyUncached()

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Host Normal-NC where asked, in PCI BARs; stage 2 by VM_ALLOW_ANY_UNCACHED."""
        choice = self._base.choose(situation, where, page)
        asked = situation.request.ask(where).write_combine or (where.name, page) in situation.granted
        if where.bar is None or not asked:
            return choice
        return replace(choice, host=NORMAL_NC)

    def calls(self, situation: Situation, bar: Bar) -> list[Slice]:
        """The whole BAR, then each slice that is mapped write-combining over it."""
        return [(0, bar.size), *asked_slices(self, situation, bar)]

    def driver_of(self, situation: Situation, where: Range) -> str | None:
        """The VMM maps its own slice anew; the guest's side needs nobody."""
        return "vmm" if situation.request.ask(where).dynamic else None
