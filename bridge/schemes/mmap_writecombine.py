"""`mmap-writecombine`: the VMM maps pieces of the BAR as it likes (MAP_WRITECOMBINE), and KVM just follows the VMAs."""

from __future__ import annotations

from ..attributes import NORMAL_NC, NORMAL_WB, PAGE
from .base import VFIO_FLAGS, Scheme, Slice, device
from .inputs import Bar, Range, Situation
from .outputs import Choice


class MmapWritecombine(Scheme):
    """Any piece, any type, MAP_FIXED into one contiguous range under one memslot; nobody checks what the device stands.

    Of a BAR: vfio-platform, which knows nothing of the flag, maps as ever, and must refuse it (-EOPNOTSUPP).
    A page that changes at run time is mapped again: the MMU notifier zaps that page, the next fault takes the new VMA.
    """

    id = "mmap-writecombine"
    title = "MAP_WRITECOMBINE / PROT_WRITECOMBINE (precedent PROT_MTE)"
    decider = "the VMM maps pieces noncached, write-combine or cacheable, MAP_FIXED; KVM follows"
    granularity = "page"
    opt_in = "opt-in"
    status = "idea"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """As the piece is mapped, on both sides."""
        ask = situation.request.ask(where)
        if where.bar is None:
            return device(where)
        if ask.cacheable:
            return Choice(NORMAL_WB, NORMAL_WB, VFIO_FLAGS)
        if ask.write_combine or (where.name, page) in situation.granted:
            return Choice(NORMAL_NC, NORMAL_NC, VFIO_FLAGS)
        return device(where)

    def calls(self, situation: Situation, bar: Bar) -> list[Slice]:
        """The whole BAR, then each piece over it: asked ranges in address order, then the pages opened at run time."""
        return [(0, bar.size), *asked_slices(self, situation, bar)]

    def driver_of(self, situation: Situation, where: Range) -> str | None:
        """The VMM, where it follows the device."""
        return "vmm" if situation.request.ask(where).dynamic else None


def asked_slices(scheme: Scheme, situation: Situation, bar: Bar) -> list[Slice]:
    """One slice for each range whose user mapping is asked to differ and does, then one for each page opened later."""
    ranges: list[Slice] = []
    pages: list[Slice] = []
    for where in situation.layout.in_bar(bar.index):
        plain = device(where).host
        ask = situation.request.ask(where)
        if (ask.write_combine or ask.cacheable) and scheme.choose(situation, where, 0).host != plain:
            ranges.append((where.offset, where.end))
            continue
        for page in range(where.pages):
            if (where.name, page) in situation.granted and scheme.choose(situation, where, page).host != plain:
                start = where.offset + page * PAGE
                pages.append((start, start + PAGE))
    return ranges + pages
