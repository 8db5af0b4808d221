"""`trap`: the guest asks the VMM, by a trap or hypercall, to change the type on its behalf. Rejected in the thread."""

from __future__ import annotations

from dataclasses import replace

from ..attributes import NORMAL_NC
from .base import Scheme, device
from .inputs import Range, Situation
from .outputs import Choice


class Trap(Scheme):
    """Device until asked. The guest's driver, which hears from the device, drives; the VMM grants what it likes."""

    id = "trap"
    title = "a generic trap or hypercall"
    decider = "the guest asks, the VMM grants"
    granularity = "page"
    opt_in = "opt-in"
    status = "rejected in the thread"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Stage 2 Normal-NC on the pages that were asked for and granted."""
        if (where.name, page) in situation.granted and not where.kvm_internal:
            return replace(device(where), stage2=NORMAL_NC)
        return device(where)

    def driver_of(self, situation: Situation, where: Range) -> str | None:
        """The guest, where the VMM would grant it."""
        ask = situation.request.ask(where)
        return "guest" if ask.write_combine or ask.dynamic else None
