"""`status-quo`: KVM maps every page that is not RAM as Device-nGnRE. Linux up to 6.8."""

from __future__ import annotations

from .base import Scheme, device
from .inputs import Range, Situation
from .outputs import Choice


class StatusQuo(Scheme):
    """Nobody is asked and nobody can change it: stage 2 is Device for whatever `pfn_is_map_memory()` denies."""

    id = "status-quo"
    title = "before the patch"
    decider = "KVM: every PFN that is not RAM is Device"
    granularity = "whole BAR"
    opt_in = "automatic"
    status = "Linux <= 6.8"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Device everywhere."""
        return device(where)
