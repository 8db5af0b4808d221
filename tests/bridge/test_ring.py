"""The ring of labelled events, seen from its reader: what a writer in shared memory can and cannot do to it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from pyvfio_user.bridge.attributes import MEMORY_TYPES, Controls, MemoryType, combine
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.ring import Ring, effective_types
from pyvfio_user.bridge.stream import EVENT, NO_STAGE_2, Event, Kind, pack, unpack_all

EVENTS_AT = 7 * 4096
HEAD_AT, TAIL_AT, DROPPED_AT = 64, 128, 192


class Writer:
    """What the tracer is to the ring: another mapping of the same file."""

    def __init__(self, ring: Ring, capacity: int) -> None:
        self.capacity = capacity
        descriptor = os.open(ring.path, os.O_RDWR)
        self.map = mmap.mmap(descriptor, 0)
        os.close(descriptor)

    def put(self, sequence: int) -> None:
        at = EVENTS_AT + (sequence - 1) % self.capacity * EVENT.size
        self.map[at : at + EVENT.size] = pack(Event(Kind.DGH, sequence=sequence))

    def word(self, at: int) -> int:
        return int.from_bytes(self.map[at : at + 8], "little")


@pytest.fixture
def ring() -> Iterator[Ring]:
    with Ring(16) as ring:
        yield ring


def taken(ring: Ring) -> list[int]:
    return [event.sequence for event in unpack_all(ring.take())]


def test_the_file_says_what_it_is(ring: Ring) -> None:
    writer = Writer(ring, 16)
    assert writer.map[:8] == b"\0PVURING"
    assert struct.unpack_from("<IIQ", writer.map, 8) == (1, 64, 16)
    assert len(writer.map) == EVENTS_AT + 16 * 64


def test_events_are_taken_in_order_and_their_room_is_free(ring: Ring) -> None:
    writer = Writer(ring, 16)
    assert taken(ring) == []
    writer.put(1)
    writer.put(2)
    assert taken(ring) == [1, 2]
    assert writer.word(TAIL_AT) == 2
    assert taken(ring) == []


def test_an_event_whose_number_is_not_written_yet_ends_the_batch(ring: Ring) -> None:
    writer = Writer(ring, 16)
    writer.put(1)
    writer.put(3)
    assert taken(ring) == [1]
    writer.put(2)
    assert taken(ring) == [2, 3]


def test_the_ring_goes_round(ring: Ring) -> None:
    writer = Writer(ring, 16)
    for first in range(1, 100, 10):
        for sequence in range(first, first + 10):
            writer.put(sequence)
        assert taken(ring) == list(range(first, first + 10))


def test_a_writer_that_scribbles_is_not_believed(ring: Ring) -> None:
    writer = Writer(ring, 16)
    writer.map[:] = b"\xff" * len(writer.map)
    assert taken(ring) == []
    writer.put(1)
    assert taken(ring) == [1]
    assert ring.dropped == (1 << 64) - 1


def test_a_writer_cannot_change_its_size(ring: Ring) -> None:
    for size in (0, EVENTS_AT, EVENTS_AT + 32 * 64):
        with pytest.raises(PermissionError):
            os.truncate(ring.path, size)
    assert os.stat(ring.path).st_size == EVENTS_AT + 16 * 64
    assert taken(ring) == []


def test_what_found_no_room_is_counted(ring: Ring) -> None:
    writer = Writer(ring, 16)
    writer.map[DROPPED_AT : DROPPED_AT + 8] = (5).to_bytes(8, "little")
    assert ring.dropped == 5


@pytest.mark.parametrize("capacity", [0, 8, 17, 1 << 27])
def test_a_capacity_that_is_none(capacity: int) -> None:
    with pytest.raises(
        DefinitionError, match=rf"^capacity must be a power of two, 16 to 67108864 events, not {capacity}$"
    ):
        Ring(capacity)


def test_the_types_are_those_of_the_rules() -> None:
    types = effective_types()
    assert len(types) == 2 * 2 * 17 * 256
    for cd in (False, True):
        for fwb in (False, True):
            for stage2 in (*((0, 1, 2, 3, 5, 6, 7) if fwb else (0, 1, 2, 3, 5, 10, 15)), NO_STAGE_2):
                for stage1 in MEMORY_TYPES:
                    expected = combine(stage1, None if stage2 == NO_STAGE_2 else stage2, fwb, controls=Controls(cd=cd))
                    assert MemoryType(types[((cd * 2 + fwb) * 17 + stage2) * 256 + stage1.byte]) == expected


def test_what_the_rules_leave_open_has_no_type() -> None:
    types = effective_types()
    assert types[8 * 256 + 0xFF] == 0x02, "MemAttr 8 is reserved without FWB"
    assert types[5 * 256 + 0x02] == 0x02, "0x02 is reserved in MAIR_ELx"
