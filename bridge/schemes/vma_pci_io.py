"""`vma-pci-io`: vfio-pci sets the VMA flag VM_PCI_IO and KVM relaxes stage 2 for PCI alone. Superseded."""

from __future__ import annotations

from ..attributes import NGNRE, NGNRNE, NORMAL_NC
from .base import Scheme, device, high_flag
from .inputs import Range, Situation
from .outputs import Choice


class VmaPciIo(Scheme):
    """The flag lies above bit 31: a 32-bit kernel has none, and nothing changes there."""

    id = "vma-pci-io"
    title = "VM_PCI_IO"
    decider = "vfio_pci_core_mmap() sets a high VMA flag; KVM relaxes for PCI only"
    granularity = "guest page"
    opt_in = "automatic for vfio-pci"
    status = "superseded"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """Stage 2 Normal-NC where the flag is; the user mapping stays Device."""
        if where.bar is None:
            return device(where)
        flagged = situation.host.bits == 64
        return Choice(NGNRNE, NORMAL_NC if flagged else NGNRE, high_flag(situation, "VM_PCI_IO"))
