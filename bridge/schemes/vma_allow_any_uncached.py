"""`vma-allow-any-uncached`: what was merged. vfio-pci sets VM_ALLOW_ANY_UNCACHED (VMA bit 39), KVM installs Normal-NC.

Linux commits c034ec84e879, 5c656fcdd6c6, 8c47ce3e1d2c and a39d3a966a09, in v6.9. vfio-platform, fsl-mc and cdx do not
set the flag.
"""

from __future__ import annotations

from ..attributes import NGNRE, NGNRNE, NORMAL_NC
from .base import Scheme, device, high_flag
from .inputs import Range, Situation
from .outputs import Choice


class VmaAllowAnyUncached(Scheme):
    """Generic in name, vfio-pci in fact. A variant driver may also map a BAR write-combining to users (nvgrace)."""

    id = "vma-allow-any-uncached"
    title = "what was merged"
    decider = "vfio_pci_core_mmap() sets VM_ALLOW_ANY_UNCACHED, a generic high VMA flag; KVM reads it"
    granularity = "guest page"
    opt_in = "automatic for vfio-pci"
    status = "Linux >= 6.9"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Stage 2 Normal-NC where the flag is, on 64-bit hosts; the user mapping Device unless the driver says WC."""
        if where.bar is None:
            return device(where)
        host = NORMAL_NC if where.bar in situation.driver.wc_bars else NGNRNE
        stage2 = NORMAL_NC if situation.host.bits == 64 else NGNRE
        return Choice(host, stage2, high_flag(situation, "VM_ALLOW_ANY_UNCACHED"))
