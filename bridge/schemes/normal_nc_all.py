"""`normal-nc-all`: KVM maps every device page Normal-NC, its own GICv2 mapping included. PATCH v2 1/1, superseded."""

from __future__ import annotations

from dataclasses import replace

from ..attributes import NORMAL_NC
from .base import Scheme, device
from .inputs import Range, Situation
from .outputs import Choice


class NormalNcAll(Scheme):
    """The guest's stage 1 decides everywhere. Platform devices change too, and what kvm_phys_addr_ioremap() maps."""

    id = "normal-nc-all"
    title = "PATCH v2 1/1"
    decider = "KVM: all device PFNs, kvm_phys_addr_ioremap (GICv2 VCPUIF) included"
    granularity = "guest page"
    opt_in = "automatic, for everyone"
    status = "superseded"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Stage 2 Normal-NC everywhere; the user mapping stays Device."""
        return replace(device(where), stage2=NORMAL_NC)
