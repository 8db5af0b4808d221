"""`cacheable-follow`: the VFIO driver maps a BAR that is memory cacheable, and KVM follows the VMA. Linux >= 6.17.

KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED tells the VMM whether the host can (FWB and DIC).
"""

from __future__ import annotations

from ..attributes import NORMAL_WB
from .base import VFIO_FLAGS, Scheme
from .inputs import Range, Situation
from .outputs import Choice
from .vma_allow_any_uncached import VmaAllowAnyUncached


class CacheableFollow(Scheme):
    """Write-Back for the whole VMA, forced on the guest under FWB. Elsewhere it is `vma-allow-any-uncached`.

    Without FWB and DIC the memslot is refused (-EINVAL), or the fault fails (-EFAULT): KVM could not keep it coherent.
    """

    id = "cacheable-follow"
    title = "similarly if we need a cacheable mapping"
    decider = "the VFIO driver maps cacheable, KVM reads the VMA"
    granularity = "VMA"
    opt_in = "automatic, a capability to discover it"
    status = "Linux >= 6.17"

    _base = VmaAllowAnyUncached()

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Write-Back on both sides in the BARs that the driver maps cacheable."""
        if where.bar is not None and where.bar in situation.driver.cacheable_bars:
            return Choice(NORMAL_WB, NORMAL_WB, VFIO_FLAGS)
        return self._base.choose(situation, where, page)
