"""`pgprot-maybe-wc`: a new pgprot (maybewritecombine, writecombinenospec): Device for the user, the guest's choice."""

from __future__ import annotations

from ..attributes import GRE, NORMAL_NC
from .base import VFIO_FLAGS, Scheme, device
from .inputs import Range, Situation
from .outputs import Choice


class PgprotMaybeWc(Scheme):
    """The user mapping is Device-GRE: it gathers, and cannot be speculated upon, for a host process too.

    Arm has no Normal type without speculation, so a user mapping that must not speculate cannot be Normal at all.
    """

    id = "pgprot-maybe-wc"
    title = "pgprot_maybewritecombine / pgprot_writecombinenospec"
    decider = "VFIO uses a new pgprot: user mapping Device-GRE, stage 2 left to the guest"
    granularity = "VMA"
    opt_in = "driver"
    status = "idea"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Host Device-GRE, stage 2 Normal-NC on what vfio-pci maps."""
        if where.bar is None:
            return device(where)
        return Choice(GRE, NORMAL_NC, VFIO_FLAGS)
