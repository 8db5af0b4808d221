"""What a timeline has: lanes, boxes in them, arrows between boxes, and how full the buffers are.

Places on it are steps: whole numbers that say what came before what. No step has a duration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

MOST_EVENTS = 10_000
"""Accesses and barriers in one timeline, if not told otherwise; what comes after them is left out, and counted."""


class LaneKind(Enum):
    """What happens in a lane. The values are in the order from the guest to the device and back."""

    VCPU = "vCPU"
    BUFFER = "buffer"
    LINK = "link"
    DEVICE = "device"
    DMA = "DMA"
    INTERRUPT = "interrupts"


class How(Enum):
    """Where what a lane shows comes from."""

    SEEN = "seen"
    """A guest, or another client, or a device that served it, did it."""
    MODELLED = "modelled"
    """The specifications permit it."""
    GIVEN = "given"
    """Somebody wrote it: a program in a test."""
    REPLAYED = "replayed"
    """A device did it, fed with what is modelled."""


class Style(Enum):
    """What a box stands for."""

    STORE = "store"
    LOAD = "load"
    BARRIER = "barrier"
    LOST = "lost"
    SPECULATIVE = "speculative"
    ABSENT = "absent"
    """An access of which nothing arrives: a load that a write buffer answered, or a read that was not made."""
    HELD = "held"
    TLP = "tlp"
    COMPLETION = "completion"
    MEMORY = "memory"
    HANDLER = "handler"
    FAILED = "failed"
    INTERRUPT = "interrupt"


class Lane(NamedTuple):
    """A lane. `capacity`: bytes that it can hold, of a buffer with lines."""

    kind: LaneKind
    name: str
    how: How
    capacity: int = 0


@dataclass
class Box:
    """Something that goes on in a lane from one step to another, `end` not included.

    `details`: names and values, for who asks; `tag`: a word beside the label, such as an access's memory type.
    """

    lane: int
    start: int
    end: int
    label: str
    style: Style
    details: dict[str, str] = field(default_factory=dict)
    tag: str = ""


class Arrow(NamedTuple):
    """What came of what: from one box, at a step in it, to another, at a step in that. Boxes are by number."""

    source: int
    leaves: int
    target: int
    reaches: int


class Fill(NamedTuple):
    """How many bytes a lane holds from a step on."""

    lane: int
    step: int
    bytes: int


@dataclass
class Timeline:
    """Everything that is drawn. `subtitle` says whose run it is: device, profile, seed; `notes` what was assumed."""

    title: str
    subtitle: str
    lanes: list[Lane] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    events: int = 0
    """Accesses and barriers that are shown."""
    left_out: int = 0
    """Those that are not, because there are too many."""

    @property
    def steps(self) -> int:
        """The step behind the last one."""
        return max((box.end for box in self.boxes), default=0)
