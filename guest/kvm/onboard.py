"""The platform case where the kernel has vfio-platform: registers of the machine's own that are no PCI device's."""

from __future__ import annotations

from ...bridge.schemes import Decision
from ..lanes.installation import Installation
from ..layout import installation
from .identify import decide
from .site import Site

NAME = "platform"
"""The range, in `lanes.places` and `layout`."""
WAY = "vfio-platform"


def site(decision: Decision, way: str = WAY) -> Site:
    """What a decision makes of it."""
    return Site(way, "platform", Installation({NAME: installation(decision).patches[NAME]}), whole=False)


def stage2(scheme: str, fwb: bool) -> int:
    """The MemAttr that a scheme gives it for a VMM that asks for nothing."""
    return installation(decide(scheme, fwb)).patches[NAME].stage2
