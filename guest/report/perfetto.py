"""A timeline as a Perfetto trace, for ui.perfetto.dev or a copy of it: tracks, slices, counters of fill, and flows.

Its clock counts steps: one is drawn as a microsecond, and says only what came before what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...bridge.timeline import Box, LaneKind, Timeline

if TYPE_CHECKING:
    from perfetto.trace_builder.proto_builder import TraceProtoBuilder

STEP_NS = 1_000
"""Nanoseconds of the trace's clock that a step is drawn as."""
_SEQUENCE = 1
_TOP = 1
_FIRST_LANE = 10
_GROUPS = {
    LaneKind.VCPU: "vCPUs",
    LaneKind.BUFFER: "write buffers",
    LaneKind.LINK: "link",
    LaneKind.DEVICE: "device",
    LaneKind.DMA: "DMA",
    LaneKind.INTERRUPT: "interrupts",
}
_END, _COUNTER, _LEAVE, _BEGIN, _JOIN = range(5)
"""In this order at one moment: a slice ends before the next one begins, and a flow begins before it ends."""


def trace(timeline: Timeline) -> bytes:
    """The trace, as a file has it. Raises ModuleNotFoundError without the package `perfetto`."""
    from perfetto.trace_builder.proto_builder import TraceProtoBuilder

    builder = TraceProtoBuilder()
    _Writer(timeline, builder).write()
    return bytes(builder.serialize())


class _Writer:
    def __init__(self, timeline: Timeline, builder: TraceProtoBuilder) -> None:
        self._timeline = timeline
        self._builder = builder
        self._groups = {kind: _TOP + 1 + at for at, kind in enumerate(LaneKind)}
        self._into: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._out: dict[tuple[int, int], list[int]] = defaultdict(list)
        for flow, arrow in enumerate(timeline.arrows, 1):
            self._out[arrow.source, arrow.leaves].append(flow)
            self._into[arrow.target, arrow.reaches].append(flow)

    def write(self) -> None:
        self._describe()
        events = sorted(self._events(), key=lambda each: each[:2])
        for step, _, fill in events:
            packet = self._builder.add_packet()
            packet.timestamp = step * STEP_NS
            packet.trusted_packet_sequence_id = _SEQUENCE
            fill(packet.track_event)

    def _describe(self) -> None:
        """The tracks: the timeline's, below it a group for each kind of lane, a track a lane, a counter a buffer."""
        timeline = self._timeline
        notes = [timeline.subtitle, *timeline.notes, "the clock counts steps: an order, not durations"]
        if timeline.left_out:
            notes.append(f"{timeline.left_out:,} events are left out: only the first {timeline.events:,} are shown")
        # No process's track: of one, Perfetto orders the tracks below by their names.
        top = self._track(_TOP, name=f"{timeline.title} ({timeline.subtitle})")
        top.description = "\n".join(notes)
        top.child_ordering = top.EXPLICIT
        for rank, (kind, name) in enumerate(_GROUPS.items()):
            if any(lane.kind is kind for lane in timeline.lanes):
                group = self._track(self._groups[kind], _TOP, name, rank)
                group.child_ordering = group.EXPLICIT
        for number, lane in enumerate(timeline.lanes):
            name = f"{lane.name} ({lane.how.value})"
            self._track(self._lane(number), self._groups[lane.kind], name, 2 * number)
            if lane.kind is LaneKind.BUFFER:
                most = f" of {lane.capacity}" if lane.capacity else ""
                counter = self._track(
                    self._counter(number), self._groups[lane.kind], f"{lane.name}: fill in bytes{most}", 2 * number + 1
                )
                counter.counter.unit = counter.counter.UNIT_SIZE_BYTES

    def _track(self, uuid: int, parent: int = 0, name: str = "", rank: int = 0) -> Any:
        packet = self._builder.add_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        track = packet.track_descriptor
        track.uuid = uuid
        track.name = name
        if parent:
            track.parent_uuid = parent
            track.sibling_order_rank = rank
        return track

    @staticmethod
    def _lane(number: int) -> int:
        return _FIRST_LANE + 2 * number

    @staticmethod
    def _counter(number: int) -> int:
        return _FIRST_LANE + 2 * number + 1

    def _events(self) -> Iterator[tuple[int, int, Any]]:
        """Step, place among those of the step, and what fills the event."""
        for number, box in enumerate(self._timeline.boxes):
            track = self._lane(box.lane)
            yield box.start, _BEGIN, self._begin(number, box, track)
            yield box.end, _END, _ended(track)
        for place, moments, name in ((_LEAVE, self._out, "leaves"), (_JOIN, self._into, "joins")):
            for (number, step), flows in moments.items():
                box = self._timeline.boxes[number]
                if step != box.start:
                    leaves = place == _LEAVE
                    yield step, place, _instant(self._lane(box.lane), name, flows, leaves)
        for fill in self._timeline.fills:
            yield fill.step, _COUNTER, _counted(self._counter(fill.lane), fill.bytes)

    def _begin(self, number: int, box: Box, track: int) -> Any:
        def fill(event: Any) -> None:
            event.type = event.TYPE_SLICE_BEGIN
            event.track_uuid = track
            event.name = box.label
            event.categories.append(box.style.value)
            for name, value in box.details.items():
                annotation = event.debug_annotations.add()
                annotation.name = name
                annotation.string_value = value
            event.flow_ids.extend(self._out.get((number, box.start), ()))
            event.terminating_flow_ids.extend(self._into.get((number, box.start), ()))

        return fill


def _instant(track: int, name: str, flows: list[int], leaves: bool) -> Any:
    """Where arrows meet a slice that began earlier: a flow begins and ends at an event, not at a time."""

    def fill(event: Any) -> None:
        event.type = event.TYPE_INSTANT
        event.track_uuid = track
        event.name = name
        (event.flow_ids if leaves else event.terminating_flow_ids).extend(flows)

    return fill


def _ended(track: int) -> Any:
    def fill(event: Any) -> None:
        event.type = event.TYPE_SLICE_END
        event.track_uuid = track

    return fill


def _counted(track: int, value: int) -> Any:
    def fill(event: Any) -> None:
        event.type = event.TYPE_COUNTER
        event.track_uuid = track
        event.counter_value = value

    return fill
