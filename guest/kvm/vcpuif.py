"""The platform case: a GICv2's virtual CPU interface, which KVM maps into a guest by itself (kvm_phys_addr_ioremap)."""

from __future__ import annotations

from ...bridge.schemes import SCHEMES, Driver, Host, Layout, Range, Situation, settled
from ..battery import named
from ..lanes.places import Place
from ..operation import PAGE
from ..plan import PLATFORM
from .proof import LOAD_WITNESS

NAME = "vcpuif"
WAY = "gicv2"
MACHINE = "kvm-gicv2"
ADDRESS = 0x0801_0000
"""Where the VMM has it in the guest: `CPU_INTERFACE` of guest/linux/vgic.c."""
PLACE = Place(NAME, PLATFORM, ADDRESS, PAGE, ADDRESS, PAGE, trapped=True)
"""Its first page: the second, with GICV_DIR alone, is trapped by newer kernels (seen on 7.3)."""
OPS = named("ldr-w", LOAD_WITNESS)
"""Reads alone: aligned, and not."""

_LAYOUT = Layout((), (Range(NAME, None, ADDRESS, PAGE, kvm_internal=True),))


def stage2(scheme: str, fwb: bool) -> int:
    """The MemAttr that a scheme gives it, for any VMM: none maps it, so that none can ask for anything."""
    host = Host(fwb=fwb)
    (piece,) = settled(SCHEMES[scheme], Situation(_LAYOUT, driver=Driver(), host=host)).of(NAME)
    assert piece.s2 is not None, f"{scheme} must map what is KVM's own"
    return piece.s2
