"""Timelines: what a guest did, where its stores waited, what went over the link, and what the device did about it.

    recording(read_trace(path), PROFILES["wc-64x4"], seed=7)    # of a recording, or of a program's events
    explore(...).card.timeline                                  # of a failing order
    draw_run(program, PROFILES["wc-64x4"], 7, factory)           # of a device that is fed with what the buffers send
    Reordered(..., watch=Watch(...))                            # of a device that is served; all in bridge.explore

They are drawn by `guest.report.timeline` (a page) and `guest.report.perfetto`. What a buffer holds and when it goes is
modelled: steps are an order, and each lane says whether it was seen.
"""

from __future__ import annotations

from .builder import Builder, Key, Source
from .model import MOST_EVENTS, Arrow, Box, Fill, How, Lane, LaneKind, Style, Timeline
from .recording import recording

__all__ = [
    "MOST_EVENTS",
    "Arrow",
    "Box",
    "Builder",
    "Fill",
    "How",
    "Key",
    "Lane",
    "LaneKind",
    "Source",
    "Style",
    "Timeline",
    "recording",
]
