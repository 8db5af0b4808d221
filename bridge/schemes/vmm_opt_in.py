"""`vmm-opt-in`: the VMM flags a memslot and KVM relaxes that one; "a userspace change, fine by me"."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from ..attributes import NORMAL_NC
from .base import Scheme, device
from .inputs import Bar, Range, Situation
from .outputs import Choice


class VmmOptIn(Scheme):
    """The default changes for nobody. Ranges of one BAR can differ only if the VMM cuts the BAR into memslots.

    A slot's flag is fixed when the slot is made: deleting and making slots anew would unmap the neighbours meanwhile.
    """

    id = "vmm-opt-in"
    title = "a buy-in behaviour ... a userspace change, fine by me"
    decider = "the VMM flags the memslot; default unchanged for everyone else"
    granularity = "memslot"
    opt_in = "opt-in"
    status = "idea"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Stage 2 Normal-NC in flagged slots. KVM's own mappings are in no slot."""
        if situation.request.ask(where).write_combine and not where.kvm_internal:
            return replace(device(where), stage2=NORMAL_NC)
        return device(where)

    def memslots(self, situation: Situation, bar: Bar) -> int:
        """One for each run of ranges that are flagged alike."""
        flags = [situation.request.ask(where).write_combine for where in situation.layout.in_bar(bar.index)]
        return 1 + sum(one != other for one, other in pairwise(flags))
