"""The attribute schemes: who decides which memory type a guest's accesses to a BAR really have, one module each.

A scheme turns a Situation (layout, request, driver, host) into a Decision (pieces with a host type, VMA flags and a
stage-2 MemAttr). It knows no device, no emulator and no lane.
"""

from __future__ import annotations

from .base import VFIO_FLAGS, Scheme, settled, surviving_vmas
from .cacheable_follow import CacheableFollow
from .inputs import NOTHING, Ask, Bar, Descriptor, Driver, Host, Layout, Range, Request, Situation
from .mmap_writecombine import MmapWritecombine
from .mmap_writecombine_vetted import MmapWritecombineVetted
from .normal_nc_all import NormalNcAll
from .outputs import Adaptation, BarMapping, Change, Choice, Decision, Piece, Refusal
from .permit_wc import PermitWc
from .pgprot_device import PgprotDevice
from .pgprot_maybe_wc import PgprotMaybeWc
from .prefetchable_wc import PrefetchableWc
from .status_quo import StatusQuo
from .trap import Trap
from .vfio_descriptor import VfioDescriptor
from .vfio_wc_uapi import VfioWcUapi
from .vma_allow_any_uncached import VmaAllowAnyUncached
from .vma_pci_io import VmaPciIo
from .vmm_opt_in import VmmOptIn

#: Every scheme by its id, in the order in which they were proposed.
SCHEMES: dict[str, Scheme] = {
    scheme.id: scheme
    for scheme in (
        StatusQuo(),
        PrefetchableWc(),
        NormalNcAll(),
        VmaPciIo(),
        VmaAllowAnyUncached(),
        VfioDescriptor(),
        VmmOptIn(),
        PgprotMaybeWc(),
        PgprotDevice(),
        MmapWritecombine(),
        MmapWritecombineVetted(),
        PermitWc(),
        CacheableFollow(),
        VfioWcUapi(),
        Trap(),
    )
}

__all__ = [
    "NOTHING",
    "SCHEMES",
    "VFIO_FLAGS",
    "Adaptation",
    "Ask",
    "Bar",
    "BarMapping",
    "Change",
    "Choice",
    "Decision",
    "Descriptor",
    "Driver",
    "Host",
    "Layout",
    "Piece",
    "Range",
    "Refusal",
    "Request",
    "Scheme",
    "Situation",
    "settled",
    "surviving_vmas",
]
