"""`permit-wc`: the VMM (or VFIO) only permits write-combining, and speculation; the guest decides."""

from __future__ import annotations

from dataclasses import replace

from ..attributes import GRE, NORMAL_NC
from .base import Scheme, device
from .inputs import Range, Situation
from .outputs import Choice


class PermitWc(Scheme):
    """Two permissions per range. Write-combining without speculation is Device-GRE, the only Arm type that is both.

    Speculation without write-combining is nothing that Arm has: it permits nothing more.
    """

    id = "permit-wc"
    title = "the VMM or the VFIO could only state write-combine and speculation allowed"
    decider = "VMM or VFIO permits, per range, write-combining and speculation; the guest decides"
    granularity = "range"
    opt_in = "opt-in"
    status = "idea"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Both: Normal-NC. Write-combining alone: Device-GRE (our inference). The user mapping stays Device."""
        ask = situation.request.ask(where)
        combining = ask.write_combine or (where.name, page) in situation.granted
        if not combining or where.kvm_internal:
            return device(where)
        return replace(device(where), stage2=NORMAL_NC if ask.speculation else GRE)

    def driver_of(self, situation: Situation, where: Range) -> str | None:
        """The VMM, where it follows the device: it permits the page."""
        return "vmm" if situation.request.ask(where).dynamic else None
