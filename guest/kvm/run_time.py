"""How the schemes change pages while a guest uses them: who asks for what, and what stage 2 then is."""

from __future__ import annotations

from ...bridge.attributes import GRE, NGNRE, NORMAL_NC, encode_stage2
from ..lanes.kvm import Backing
from ..plan import Asked
from ..workload import Wish
from .change import State

_BY_VMM = {
    "mmap-writecombine": [(Asked.WRITE_COMBINE, NORMAL_NC)],
    "mmap-writecombine-vetted": [(Asked.WRITE_COMBINE, GRE)],
    "permit-wc": [(Asked.WRITE_COMBINE, GRE), (Asked.WRITE_COMBINE | Asked.SPECULATION, NORMAL_NC)],
}
"""What a VMM asks for pages of `wc-trapped`, and gets; before and after it asks nothing."""
_BY_GUEST = ("trap",)
"""Here the guest asks by itself, for what the VMM has said that it will grant."""


def states(scheme: str, fwb: bool) -> list[State]:
    """What the pages are one after the other, in the scheme's own way; none: it cannot change them."""
    device, normal = (f"{encode_stage2(kind, fwb):x}" for kind in (NGNRE, NORMAL_NC))
    if scheme in _BY_GUEST:
        return [
            State("granted", Backing.DEVICE, normal, ask=Asked.WRITE_COMBINE),
            State("given back", Backing.DEVICE, device, wish=Wish.DEVICE),
            State("granted again", Backing.DEVICE, normal, wish=Wish.NORMAL),
        ]
    asked = [
        State(ask.name or "", Backing.DEVICE, f"{encode_stage2(kind, fwb):x}", ask=ask)
        for ask, kind in _BY_VMM.get(scheme, ())
    ]
    nothing = State("nothing asked", Backing.DEVICE, device)
    return [nothing, *asked, nothing] if asked else []
