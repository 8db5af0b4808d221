"""`prefetchable-wc`: VFIO maps prefetchable BARs write-combining and KVM reads the VMA. RFC of 2021, not merged."""

from __future__ import annotations

from ..attributes import NORMAL_NC
from .base import VFIO_FLAGS, Scheme, device
from .inputs import Range, Situation
from .outputs import Choice


class PrefetchableWc(Scheme):
    """The BAR's prefetchable bit decides, for the whole BAR: strict ranges in it and the MSI-X table included."""

    id = "prefetchable-wc"
    title = "RFC 2021 (Shanker)"
    decider = "VFIO maps prefetchable BARs WC, KVM reads the VMA"
    granularity = "BAR"
    opt_in = "automatic"
    status = "not merged"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Normal-NC on both sides in a prefetchable BAR."""
        if where.bar is not None and situation.layout.bar(where.bar).prefetchable:
            return Choice(NORMAL_NC, NORMAL_NC, VFIO_FLAGS)
        return device(where)
