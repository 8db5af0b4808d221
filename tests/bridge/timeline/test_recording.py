"""The timeline of a recording under a profile: all that was made, where it waited, and all that was sent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore.drawn import draw
from pyvfio_user.bridge.interconnect import (
    DEFAULT_LINK,
    PROFILES,
    Order,
    Packets,
    Part,
    Profile,
    Program,
    behaviours,
    burst,
    dgh,
    dmb,
    load,
    pair,
    ram_store,
    speculative,
    store,
    windows,
)
from pyvfio_user.bridge.interconnect.profiles import find_profile
from pyvfio_user.bridge.stream import Event, Kind
from pyvfio_user.bridge.timeline import Fill, How, LaneKind, Style, recording

from .checks import check, in_lane, joined, labels

EXACT = Profile("exact", drain=0.0, forward=False)
"""Buffers in which nothing is left to chance, but what is left at the end."""


def test_a_full_line_goes_as_one_and_its_fill_is_drawn() -> None:
    timeline = recording(Program.of(burst(0x40)).events, EXACT)
    check(timeline)
    assert [lane[:2] for lane in timeline.lanes] == [
        (LaneKind.VCPU, "vCPU 0"),
        (LaneKind.BUFFER, "buffer 0"),
        (LaneKind.LINK, "to the device"),
    ]
    assert [lane.how for lane in timeline.lanes] == [How.SEEN, How.MODELLED, How.MODELLED]
    assert timeline.lanes[1].capacity == 64
    assert labels(timeline, "vCPU 0") == [f"store bar0+{at:#x} 8" for at in range(0x40, 0x80, 8)]
    assert {box.tag for box in in_lane(timeline, "vCPU 0")} == {"NC"}
    (held,) = in_lane(timeline, "buffer 0")
    assert (held.label, held.start, held.end) == ("bar0+0x40", 0, 8)
    assert held.details == {"had": "bar0+0x40 64", "left because": "full"}
    assert timeline.fills == [*(Fill(1, step, 8 * step + 8) for step in range(8)), Fill(1, 8, 0)]
    (sent,) = in_lane(timeline, "to the device")
    assert (sent.label, sent.start, sent.end) == ("MWr bar0+0x40 16DW f/f", 8, 9)
    assert sent.details["bytes"] == "64, from bar0+0x40"
    assert sent.details["byte enables"] == "first 1111, last 1111"
    assert sent.details["payload"] == bytes(range(0x41, 0x81)).hex(" ")
    assert sent.details["sent because"] == "full"
    assert joined(timeline) == {(f"store bar0+{at:#x} 8", "bar0+0x40") for at in range(0x40, 0x80, 8)} | {
        ("bar0+0x40", "MWr bar0+0x40 16DW f/f")
    }


def test_a_hint_empties_what_is_partly_full() -> None:
    timeline = recording(Program.of(burst(0x40, 16), dgh(), store(0x80, type=NORMAL_NC)).events, EXACT)
    check(timeline)
    assert labels(timeline, "vCPU 0")[2] == "dgh"
    hint, sent = in_lane(timeline, "vCPU 0")[2], in_lane(timeline, "to the device")[0]
    assert sent.label == "MWr bar0+0x40 4DW f/f"
    assert hint.end <= sent.start
    assert in_lane(timeline, "buffer 0")[0].details["left because"] == "a hint, DGH"


def test_what_no_buffer_takes_waits_beside_them() -> None:
    timeline = recording(Program.of(store(0x1000, 4, 1, type=NGNRE)).events, EXACT)
    check(timeline)
    (waiting,) = in_lane(timeline, "waiting 0")
    assert (waiting.label, timeline.lanes[waiting.lane].capacity) == ("bar0+0x1000", 0)
    assert joined(timeline) == {
        ("store bar0+0x1000 4", "bar0+0x1000"),
        ("bar0+0x1000", "MWr bar0+0x1000 1DW f/0"),
    }


def test_a_read_is_answered_by_a_completion() -> None:
    timeline = recording(Program.of(load(0x30, 16)).events, EXACT)
    check(timeline)
    requests, answers = labels(timeline, "to the device"), labels(timeline, "to the host")
    assert sorted(requests) == ["MRd bar0+0x30 2DW f/f", "MRd bar0+0x38 2DW f/f"] or requests == [
        "MRd bar0+0x30 4DW f/f"
    ]
    assert len(answers) == len(requests)
    assert all(box.style is Style.COMPLETION for box in in_lane(timeline, "to the host"))


def test_a_load_that_a_buffer_answers_never_arrives() -> None:
    program = Program.of(store(0x40, type=NORMAL_NC), load(0x40, type=NORMAL_NC))
    profile = Profile("forwards", drain=0.0)
    drawn = [recording(program.events, profile, seed) for seed in range(20)]
    for timeline in drawn:
        check(timeline)
        box = in_lane(timeline, "vCPU 0")[1]
        arrived = any(label.startswith("MRd") for label in labels(timeline, "to the device"))
        assert box.style is (Style.LOAD if arrived else Style.ABSENT)
        assert box.details.get("arrives") == (None if arrived else "never: a write buffer answered it")
    assert {in_lane(timeline, "vCPU 0")[1].style for timeline in drawn} == {Style.LOAD, Style.ABSENT}


def test_without_a_profile_there_is_only_the_guest() -> None:
    lost = Event(Kind.LOST, size=7, sequence=3)
    named = Event(Kind.STORE, 8, 4, b"\1\0\0\0", 0, type=None, pc=0x1004, sequence=4, vcpu=1, el=1)
    timeline = recording([*Program.of(store(0), dmb()).events, lost, named], by=lambda pc: f"ring+{pc - 0x1000:#x}")
    check(timeline)
    assert [lane.name for lane in timeline.lanes] == ["vCPU 0", "vCPU 1"]
    assert labels(timeline, "vCPU 0") == ["store bar0+0x0 8", "dmb sy", "7 events lost"]
    (box,) = in_lane(timeline, "vCPU 1")
    assert box.details == {
        "event": "4",
        "what": "store",
        "where": "bar0+0x8",
        "size": "4 bytes",
        "data": "01 00 00 00",
        "type": "unknown",
        "by": "ring+0x4",
        "EL": "1",
    }
    assert (timeline.arrows, timeline.fills, timeline.notes) == ([], [], [])


def test_what_is_too_much_is_counted() -> None:
    timeline = recording(Program.of(burst(0, 64)).events, EXACT, most=3)
    check(timeline)
    assert (timeline.events, timeline.left_out) == (3, 5)
    assert len(in_lane(timeline, "vCPU 0")) == 3


def test_windows_are_said() -> None:
    parts = [burst(0, 64), dmb("oshst")] * 8
    timeline = recording(Program.of(*parts).events, EXACT)
    assert timeline.events == 72
    assert timeline.notes[1] == "Nothing waits longer than its window of 48 events: the buffers are emptied at its end."
    assert len(recording(Program.of(*parts[:10]).events, EXACT).notes) == 1


def test_it_says_whose_buffers_they_are() -> None:
    timeline = recording(Program.of(store(0)).events, PROFILES["wc-64x4"], 7, title="boot")
    assert (timeline.title, timeline.subtitle) == ("boot", "profile wc-64x4, seed 7")
    assert timeline.notes[0].startswith("Modelled, not seen: buffers and link are those of profile wc-64x4, by seed 7.")


TYPES = st.sampled_from([MemoryType.parse(text) for text in ("04", "08", "0c", "44", "44")])
SLOTS = st.integers(0, 20).map(lambda slot: 8 * slot)
PARTS = st.one_of(
    st.builds(lambda at, kind: store(at, type=kind), SLOTS, TYPES),
    st.builds(lambda at, kind: load(at, type=kind), SLOTS, TYPES),
    st.builds(lambda at, kind: pair(store(at, type=kind)), SLOTS, TYPES),
    st.builds(lambda at: speculative(at), SLOTS),
    st.builds(lambda at: burst(at, 32), SLOTS),
    st.sampled_from([dmb(), dmb("oshst"), dgh()]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PARTS, max_size=14), st.sampled_from(sorted(PROFILES)), st.integers(0, 99))
def test_all_that_the_profile_sends_is_drawn_and_comes_from_where_it_waited(
    parts: list[Part], name: str, seed: int
) -> None:
    events = Program.of(*parts).events
    timeline = recording(events, PROFILES[name], seed)
    check(timeline)
    chance = random.Random(seed)
    sent: list[str] = []
    for window in windows(events, 48):
        order = Order(window)
        packets = Packets(order.effects, PROFILES[name].link)
        for block in PROFILES[name].run(order, chance):
            sent += map(str, packets.of_block(block))
    assert labels(timeline, "to the device") == sent
    assert len(in_lane(timeline, "vCPU 0")) == len(events)
    for number, box in enumerate(timeline.boxes):
        if box.style is Style.TLP:
            assert any(arrow.target == number for arrow in timeline.arrows)


def test_a_store_to_ram_is_no_tlp() -> None:
    found = behaviours(Program.of(ram_store(0x4000), dmb("oshst"), store(0x1000, 4, 1)))
    (behaviour,) = found
    timeline = draw(found.effects, behaviour, DEFAULT_LINK, None, title="ring", subtitle="")
    check(timeline)
    assert labels(timeline, "RAM, as DMA sees it") == ["ram+0x4000 8"]
    assert labels(timeline, "vCPU 0") == ["store ram+0x4000 8", "dmb oshst", "store bar0+0x1000 4"]


def test_an_unknown_profile_is_named() -> None:
    assert find_profile("wc-64x4") is PROFILES["wc-64x4"]
    with pytest.raises(DefinitionError, match=r"^profile must be one of in-order, .*, rc-splits-4, not fast$"):
        find_profile("fast")
