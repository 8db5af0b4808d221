"""What every timeline must be, whatever it shows."""

from __future__ import annotations

from collections import defaultdict

from pyvfio_user.bridge.timeline import Box, LaneKind, Timeline


def in_lane(timeline: Timeline, name: str) -> list[Box]:
    """The boxes of a lane, in order."""
    return [box for box in timeline.boxes if timeline.lanes[box.lane].name == name]


def labels(timeline: Timeline, name: str) -> list[str]:
    """What stands in them."""
    return [box.label for box in in_lane(timeline, name)]


def joined(timeline: Timeline) -> set[tuple[str, str]]:
    """The labels of boxes that an arrow joins."""
    return {(timeline.boxes[arrow.source].label, timeline.boxes[arrow.target].label) for arrow in timeline.arrows}


def check(timeline: Timeline) -> None:
    """Lanes from the guest to the device; one thing at a time in each; arrows forward, from and to what is there."""
    order = list(LaneKind)
    kinds = [order.index(lane.kind) for lane in timeline.lanes]
    assert kinds == sorted(kinds)
    busy: dict[int, int] = defaultdict(int)
    for box in sorted(timeline.boxes, key=lambda each: each.start):
        assert 0 <= box.start < box.end <= timeline.steps
        assert box.start >= busy[box.lane], f"{timeline.lanes[box.lane].name} is used twice at {box.start}"
        busy[box.lane] = box.end
    for source, leaves, target, reaches in timeline.arrows:
        one, two = timeline.boxes[source], timeline.boxes[target]
        assert one.start <= leaves < one.end and two.start <= reaches < two.end
        assert leaves <= reaches
        assert one.lane < two.lane
    fill = dict.fromkeys(range(len(timeline.lanes)), 0)
    last = dict.fromkeys(range(len(timeline.lanes)), 0)
    for lane, step, amount in timeline.fills:
        assert step >= last[lane] and amount >= 0
        if timeline.lanes[lane].capacity:
            assert amount <= timeline.lanes[lane].capacity
        fill[lane], last[lane] = amount, step
    assert not any(fill.values()), "what came in went out"
