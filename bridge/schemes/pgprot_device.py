"""`pgprot-device`: vfio-pci maps pgprot_device and KVM senses it in the user mapping; "very hacky"."""

from __future__ import annotations

from ..attributes import NGNRE, NGNRNE, NORMAL_NC
from .base import VFIO_FLAGS, Scheme, device
from .inputs import Range, Situation
from .outputs import Choice


class PgprotDevice(Scheme):
    """Two user types carry one bit to KVM. What is still pgprot_noncached (vfio-platform) becomes stricter than before.

    KVM's own mappings have no user mapping to sense, and stay as they were.
    """

    id = "pgprot-device"
    title = "pgprot_device sensed"
    decider = "vfio-pci maps pgprot_device; KVM senses it in the user mapping"
    granularity = "VMA"
    opt_in = "driver"
    status = "idea"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """pgprot_device: stage 2 Normal-NC. pgprot_noncached: Device-nGnRnE."""
        if where.kvm_internal:
            return device(where)
        if where.bar is None:
            return Choice(NGNRNE, NGNRNE, VFIO_FLAGS)
        return Choice(NGNRE, NORMAL_NC, VFIO_FLAGS)
