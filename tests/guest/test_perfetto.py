"""Perfetto traces, parsed back: tracks, slices that nest, counters, and flows that join the right slices.

They are read here by the rules that Perfetto has; `pages/test_perfetto_ui.py` has its own viewer read one.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any, NamedTuple

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackDescriptor, TrackEvent

from pyvfio_user.bridge.timeline import Box, How, Lane, LaneKind, Style, Timeline
from pyvfio_user.guest.errors import missing_extra
from pyvfio_user.guest.report.perfetto import STEP_NS, trace

from .timelines import buffered, failing


class Slice(NamedTuple):
    """One slice: its track's name, and what an event said of it."""

    track: str
    start: int
    end: int
    name: str
    said: dict[str, str]


class Read:
    """What Perfetto makes of a trace: slices by nesting, flows by ids, in the order of timestamps."""

    def __init__(self, data: bytes) -> None:
        self.tracks: dict[int, Any] = {}
        self.slices: list[Slice] = []
        self.counters: dict[str, list[tuple[int, int]]] = defaultdict(list)
        begun: dict[int, int] = {}
        self.flows: list[tuple[int, int]] = []
        """Of each flow, the slices that it joins."""
        stacks: dict[int, list[int]] = defaultdict(list)
        packets = Trace.FromString(data).packet
        assert all(packet.trusted_packet_sequence_id for packet in packets)
        events = [packet for packet in packets if packet.HasField("track_event")]
        for packet in packets:
            if packet.HasField("track_descriptor"):
                self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        assert [packet.timestamp for packet in events] == sorted(packet.timestamp for packet in events)
        for packet in events:
            step, rest = divmod(packet.timestamp, STEP_NS)
            assert rest == 0
            event = packet.track_event
            name = self.tracks[event.track_uuid].name
            stack = stacks[event.track_uuid]
            if event.type == TrackEvent.TYPE_COUNTER:
                self.counters[name].append((step, event.counter_value))
                continue
            if event.type == TrackEvent.TYPE_SLICE_END:
                closed = stack.pop()
                self.slices[closed] = self.slices[closed]._replace(end=step)
                continue
            if event.type == TrackEvent.TYPE_SLICE_BEGIN:
                assert not stack, f"{name}: one thing at a time"
                stack.append(len(self.slices))
                said = {each.name: each.string_value for each in event.debug_annotations}
                self.slices.append(Slice(name, step, -1, event.name, said))
            else:
                assert event.type == TrackEvent.TYPE_INSTANT and event.name in ("joins", "leaves")
            for flow in event.terminating_flow_ids:
                self.flows.append((begun.pop(flow), stack[-1]))
            for flow in event.flow_ids:
                assert flow not in begun
                begun[flow] = stack[-1]
        assert not begun, "every flow ends"
        assert not any(stacks.values()), "every slice ends"

    def path(self, uuid: int) -> list[str]:
        """The names of a track and of those above it."""
        track = self.tracks[uuid]
        return [*(self.path(track.parent_uuid) if track.parent_uuid else []), track.name]


@pytest.fixture(params=[buffered, lambda: buffered(6), lambda: failing().timeline], ids=["short", "long", "failing"])
def timeline(request: pytest.FixtureRequest) -> Timeline:
    made: Timeline = request.param()
    return made


def test_slices_are_the_boxes(timeline: Timeline) -> None:
    found = Read(trace(timeline))
    expected = [
        (f"{lane.name} ({lane.how.value})", box.start, box.end, box.label, box.details)
        for box in timeline.boxes
        for lane in (timeline.lanes[box.lane],)
    ]
    assert sorted(map(tuple, found.slices), key=str) == sorted(expected, key=str)


def test_flows_are_the_arrows(timeline: Timeline) -> None:
    found = Read(trace(timeline))

    lanes = [f"{lane.name} ({lane.how.value})" for lane in timeline.lanes]
    expected = sorted(
        (lanes[one.lane], one.start, lanes[two.lane], two.start)
        for one, two in ((timeline.boxes[arrow.source], timeline.boxes[arrow.target]) for arrow in timeline.arrows)
    )
    slices = found.slices
    assert (
        sorted((slices[a].track, slices[a].start, slices[b].track, slices[b].start) for a, b in found.flows) == expected
    )


def test_counters_are_the_fill(timeline: Timeline) -> None:
    found = Read(trace(timeline))
    expected: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for fill in timeline.fills:
        lane = timeline.lanes[fill.lane]
        of = f" of {lane.capacity}" if lane.capacity else ""
        expected[f"{lane.name}: fill in bytes{of}"].append((fill.step, fill.bytes))
    assert found.counters == expected


def test_tracks_stand_in_groups_from_the_guest_to_the_device() -> None:
    timeline = failing().timeline
    found = Read(trace(timeline))
    top = "whole (a legal order of arrival that breaks it, from all 8 legal behaviours; seed 0)"
    ranked = sorted((uuid for uuid in found.tracks), key=lambda uuid: found.tracks[uuid].sibling_order_rank)
    groups = [found.path(uuid)[1] for uuid in ranked if len(found.path(uuid)) == 2]
    assert groups == ["vCPUs", "write buffers", "link", "device", "interrupts"]
    lanes = [found.path(uuid) for uuid in ranked if len(found.path(uuid)) == 3]
    assert lanes == [
        [top, "vCPUs", "vCPU 0 (given)"],
        [top, "write buffers", "waiting 0 (modelled)"],
        [top, "write buffers", "waiting 0: fill in bytes"],
        [top, "write buffers", "waiting 1 (modelled)"],
        [top, "write buffers", "waiting 1: fill in bytes"],
        [top, "link", "to the device (modelled)"],
        [top, "device", "Nic (replayed)"],
        [top, "interrupts", "interrupts (replayed)"],
    ]
    assert {found.tracks[uuid].child_ordering for uuid in found.tracks if len(found.path(uuid)) < 3} == {
        TrackDescriptor.EXPLICIT
    }
    (top,) = [track for track in found.tracks.values() if not track.parent_uuid]
    assert "the clock counts steps: an order, not durations" in top.description
    assert all(note in top.description for note in timeline.notes)


def test_from_the_store_to_the_interrupt() -> None:
    found = Read(trace(failing().timeline))
    (at,) = [number for number, each in enumerate(found.slices) if each.track.startswith("interrupts")]
    chain = [found.slices[at].name]
    while sources := [source for source, target in found.flows if target == at]:
        (at,) = sources
        chain.append(found.slices[at].name)
    assert chain == [
        "interrupt 0, not sent",
        "send of Control.bell[0] 0x1",
        "MWr bar0+0x0 1DW f/0",
        "bar0+0x0",
        "3 store bar0+0x0 4",
    ]


def test_what_is_left_out_is_said() -> None:
    timeline = buffered()
    timeline.left_out = 1234
    (top,) = [track for track in Read(trace(timeline)).tracks.values() if not track.parent_uuid]
    assert f"1,234 events are left out: only the first {timeline.events} are shown" in top.description


def test_categories_are_the_styles() -> None:
    packets = Trace.FromString(trace(failing().timeline)).packet
    found = {each.track_event.categories[0] for each in packets if each.track_event.categories}
    assert found == {Style.STORE.value, Style.BARRIER.value, Style.HELD.value, "tlp", "handler", "interrupt"}


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "perfetto"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModuleNotFoundError) as caught:
        trace(buffered())
    assert missing_extra(caught.value, "this command") == (
        "this command needs the extra `guest` (No module named 'perfetto'): pip install 'pyvfio-user[guest]'"
    )


def test_each_kind_of_lane_has_a_group() -> None:
    timeline = Timeline("all", "kinds")
    for at, kind in enumerate(LaneKind):
        timeline.lanes.append(Lane(kind, f"a {kind.value}", How.SEEN))
        timeline.boxes.append(Box(at, at, at + 1, kind.value, Style.MEMORY))
    found = Read(trace(timeline)).tracks
    groups = {track.name: found[track.parent_uuid].name for track in found.values() if track.name[:2] == "a "}
    assert [groups[f"a {kind.value} (seen)"] for kind in LaneKind] == [
        "vCPUs", "write buffers", "link", "device", "DMA", "interrupts"
    ]  # fmt: skip
