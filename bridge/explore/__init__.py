"""Exploration: every order of arrival that the architecture permits, on a device, until one breaks what must hold.

    program = Program.of(store(0x40, type=NORMAL_NC), dmb("ishst"), store(0x1000, 4, 1, type=NGNRE))
    found = explore(program, Sender, [arrives_before(Where(0x40, 64), Where(0x1000, 4), "payload before doorbell")])
    found.count                     # legal behaviours; found.complete: all of them were looked at
    found.card                      # the failure with the fewest accesses and the least surprising order, explained
    found.fixes                     # single barriers and type changes with which all hold, the cheapest first
    found.assert_holds()            # in a test: fails with the card

A device is anything with `write(bar, offset, data)` and `read(bar, offset, size)`; a class of such, or for one that is
served `InProcess(device).restarted`, makes them. It raises `RequestFails` for a request that it does not take: a
failed posted write, of which the guest is told nothing, is then on the card. All of this is modelled: what hardware may
do, not what some did.
"""

from __future__ import annotations

from .explore import Explored, LitmusFailure, explore
from .invariants import Arrival, Property, Where, arrives_before, final_image, in_one_block, never_speculated
from .replay import Failed, Outcome, RequestFails, Target

__all__ = [
    "Arrival",
    "Explored",
    "Failed",
    "LitmusFailure",
    "Outcome",
    "Property",
    "RequestFails",
    "Target",
    "Where",
    "arrives_before",
    "explore",
    "final_image",
    "in_one_block",
    "never_speculated",
]
