"""`mmap-writecombine-vetted`: as `mmap-writecombine`, and the VFIO driver sanitises what is asked."""

from __future__ import annotations

import errno
from dataclasses import replace

from ..attributes import GRE, NORMAL_NC, NORMAL_WB
from .base import VFIO_FLAGS, Scheme, Slice, device
from .inputs import Bar, Range, Situation
from .mmap_writecombine import asked_slices
from .outputs import Choice, Refusal


class MmapWritecombineVetted(Scheme):
    """The driver's knowledge bounds the VMM's wish: refused, or narrowed to Device-GRE where only speculation hurts.

    A refused piece stays as the first mapping made it. A driver that knows nothing (vfio-pci) refuses everything.
    """

    id = "mmap-writecombine-vetted"
    title = "whether the VFIO driver still needs to have the knowledge and sanitise the requests"
    decider = "the VMM asks as in mmap-writecombine; VFIO refuses or narrows what the device cannot stand"
    granularity = "page"
    opt_in = "opt-in, with a veto"
    status = "idea"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """What is asked, as far as the driver lets it pass."""
        ask = situation.request.ask(where)
        opened = (where.name, page) in situation.granted
        if where.kvm_internal or not (ask.cacheable or ask.write_combine or opened):
            return device(where)
        if ask.cacheable:
            if where.bar is not None and where.bar in situation.driver.cacheable_bars:
                return Choice(NORMAL_WB, NORMAL_WB, VFIO_FLAGS)
            return _refused(where, "cacheable", "memory")
        return self._write_combine(situation, where, opened)

    def _write_combine(self, situation: Situation, where: Range, opened: bool) -> Choice:
        driver = situation.driver
        if where.msix_table:
            return _refused(where, "write-combining", "free of the MSI-X table")
        if where.read_side_effects:
            return _refused(where, "write-combining", "free of read side effects")
        known = where.name in driver.safe_wc or (opened and where.name in driver.tracks)
        if where.bar is None or not known:  # vfio-platform knows nothing of any device
            return _refused(where, "write-combining", "known to be write-combining-safe")
        if where.name in driver.safe_speculation:
            return Choice(NORMAL_NC, NORMAL_NC, VFIO_FLAGS)
        veto = Refusal(
            errno.EPERM,
            f"{where.name} must be known to be speculation-safe to be mapped Normal-NC, so it is mapped Device-GRE",
        )
        return Choice(GRE, GRE, VFIO_FLAGS, veto)

    def calls(self, situation: Situation, bar: Bar) -> list[Slice]:
        """The whole BAR, then the pieces that passed."""
        return [(0, bar.size), *asked_slices(self, situation, bar)]

    def driver_of(self, situation: Situation, where: Range) -> str | None:
        """The VMM, where it follows the device and the driver can check what it says."""
        follows = situation.request.ask(where).dynamic and where.name in situation.driver.tracks
        return "vmm" if follows else None


def _refused(where: Range, kind: str, condition: str) -> Choice:
    veto = Refusal(errno.EPERM, f"{where.name} must be {condition} to be mapped {kind}")
    return replace(device(where), veto=veto)
