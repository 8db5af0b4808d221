"""The labelled stream: its layout byte by byte, what is refused, and that what was packed comes back."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import MEMORY_TYPES, NGNRE, NORMAL_NC, NORMAL_WB
from pyvfio_user.bridge.errors import DefinitionError, StreamError
from pyvfio_user.bridge.stream import (
    BAR_CONFIG,
    NO_STAGE_2,
    Barrier,
    BarrierKind,
    Domain,
    Event,
    Flag,
    Kind,
    file_header,
    lost_events,
    pack,
    read_trace,
    unpack,
    unpack_all,
    write_trace,
)

STORE = Event(
    Kind.STORE,
    offset=0x1000,
    size=4,
    data=b"\x01\x02\x03\x04",
    bar=2,
    stage1=NORMAL_WB,
    stage2=1,
    type=NGNRE,
    peripheral=8,
    flags=Flag.RELEASE | Flag.SIMD,
    vcpu=3,
    sequence=7,
    pc=0xFFFF_8000_1234_5678,
    instruction=0xB9000020,
    element=1,
    el=1,
    fwb=True,
)


def test_a_store_byte_by_byte() -> None:
    assert pack(STORE) == b"".join(
        [
            (7).to_bytes(8, "little"),
            bytes.fromhex("7856341200 80ffff"),
            (0x1000).to_bytes(8, "little"),
            bytes([1, 2, 3, 4]) + bytes(12),
            (4).to_bytes(4, "little"),
            bytes.fromhex("200000b9"),
            bytes([3, 0, 8, 0]),
            bytes([2, 2, 1, 0]),
            (4 | 32 | 1 << 14).to_bytes(2, "little"),
            bytes([0xFF, 1, 0x04, 7, 1, 0]),
        ]
    )
    assert unpack(pack(STORE)) == STORE


def test_what_is_unknown_is_none() -> None:
    packed = pack(Event(Kind.LOAD, offset=0x1000_0000, size=8, data=bytes(8)))
    assert packed[50:52] == b"\xff\xff"
    assert (packed[53], packed[61], packed[62]) == (0xFF, 0, 0xFF)
    event = unpack(packed)
    assert (event.bar, event.peripheral, event.el) == (None, None, None)
    assert (event.stage1, event.stage2, event.type) == (None, None, None)


def test_no_stage_2_is_not_an_unknown_one() -> None:
    assert unpack(pack(STORE._replace(stage2=NO_STAGE_2, fwb=False))).stage2 == NO_STAGE_2


def test_a_reserved_encoding_is_no_type() -> None:
    packed = bytearray(pack(STORE))
    packed[58] = 0x02
    assert unpack(bytes(packed)).stage1 is None


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (Event(Kind.ZERO, size=64, data=b"\0", flags=Flag.REPEATED), b"\0"),
        (Event(Kind.STORE, size=4096, flags=Flag.NO_DATA | Flag.MOPS), b""),
        (Event(Kind.STORE, size=2, data=b"\1\2\3\4"), b"\1\2"),
        (Event(Kind.LOST, size=12), b""),
        (Event(Kind.DGH), b""),
    ],
)
def test_how_many_bytes_are_known(event: Event, data: bytes) -> None:
    assert unpack(pack(event)).data == data


@pytest.mark.parametrize(
    ("barrier", "text", "domain", "loads", "stores"),
    [
        (Barrier(BarrierKind.DMB, 0b0010), "dmb oshst", Domain.OSH, False, True),
        (Barrier(BarrierKind.DMB, 0b1001), "dmb ishld", Domain.ISH, True, False),
        (Barrier(BarrierKind.DSB, 0b1110), "dsb st", Domain.SY, False, True),
        (Barrier(BarrierKind.DSB, 0b1111), "dsb sy", Domain.SY, True, True),
        (Barrier(BarrierKind.DSB, 0b0111), "dsb nsh", Domain.NSH, True, True),
        (Barrier(BarrierKind.DMB, 0b0000), "dmb sy", Domain.SY, True, True),
        (Barrier(BarrierKind.DSB_NXS, 0b1010), "dsb ishnxs", Domain.ISH, True, True),
        (Barrier(BarrierKind.ISB), "isb", Domain.SY, True, True),
        (Barrier(BarrierKind.SB), "sb", Domain.SY, True, True),
    ],
)
def test_a_barrier_says_what_it_orders(barrier: Barrier, text: str, domain: Domain, loads: bool, stores: bool) -> None:
    event = unpack(pack(Event(Kind.BARRIER, barrier=barrier)))
    assert event.barrier == barrier
    assert str(event.barrier) == text
    assert (barrier.domain, barrier.loads, barrier.stores) == (domain, loads, stores)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset": -1}, "offset must be 0 to 0xffffffffffffffff, not -0x1"),
        ({"size": 1 << 32}, "size must be 0 to 0xffffffff, not 0x100000000"),
        ({"vcpu": 65536}, "vcpu must be 0 to 0xffff, not 0x10000"),
        ({"peripheral": 0xFFFF}, "peripheral must be 0 to 0xfffe, not 0xffff"),
        ({"bar": 7}, "bar must be 0 to 6, 0xfe or None, not 0x7"),
        ({"stage2": 17}, "stage 2 must be 0 to 0x10, not 0x11"),
        ({"el": 4}, "exception level must be 0 to 0x3, not 0x4"),
        ({"data": bytes(17)}, "data must be 0 to 0x10, not 0x11"),
        ({"kind": Kind.BARRIER}, "barrier must be given for a BARRIER and for nothing else, not for BARRIER"),
        (
            {"barrier": Barrier(BarrierKind.DMB)},
            "barrier must be given for a BARRIER and for nothing else, not for STORE",
        ),
        (
            {"kind": Kind.BARRIER, "barrier": Barrier(BarrierKind.DMB, 16)},
            "option of a barrier must be 0 to 0xf, not 0x10",
        ),
    ],
)
def test_what_cannot_be_packed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        pack(STORE._replace(**fields))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (52, 0, "kind must be 1 to 10, not 0"),
        (52, 11, "kind must be 1 to 10, not 11"),
        (52, Kind.BARRIER, "barrier must be one's encoding, or 0 where there is none, not 0x00"),
        (55, 0x1F, "barrier must be one's encoding, or 0 where there is none, not 0x1f"),
        (55, 0x60, "barrier must be one's encoding, or 0 where there is none, not 0x60"),
        (53, 7, "bar must be 0 to 6, 0xfe or 0xff, not 0x7"),
        (59, 17, "stage 2 must be 0 to 16, not 17"),
        (62, 4, "exception level must be 0 to 3 or 0xff, not 0x4"),
        (57, 0xC0, "flags must be of 15 bits, not 0xc024"),
    ],
)
def test_bytes_that_no_event_has(at: int, value: int, message: str) -> None:
    packed = bytearray(pack(STORE))
    packed[at] = value
    with pytest.raises(StreamError) as caught:
        unpack(bytes(packed))
    assert str(caught.value) == message


def test_an_event_of_the_wrong_length() -> None:
    with pytest.raises(StreamError, match=r"^event must be 64 bytes, not 63$"):
        unpack(bytes(63))
    with pytest.raises(StreamError, match=r"^trace must be whole events of 64 bytes, not end with 1$"):
        unpack_all(bytes(65))


def events() -> Iterator[Event]:
    """Two of each kind."""
    for kind in Kind:
        barrier = Barrier(BarrierKind.DSB, 3) if kind is Kind.BARRIER else None
        yield Event(kind, barrier=barrier, sequence=2 * kind, size=3 if kind is Kind.LOST else 0)
        yield Event(kind, barrier=barrier, sequence=2 * kind + 1, bar=BAR_CONFIG)


def test_a_file_gives_back_its_events(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    write_trace(path, events())
    assert path.stat().st_size == 64 + 64 * 2 * len(Kind)
    assert path.read_bytes()[:16] == b"PVUTRACE" + struct.pack("<II", 1, 64)
    assert list(read_trace(path)) == list(events())
    assert lost_events(path) == 3


def test_a_file_says_how_many_events_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    write_trace(path, [Event(Kind.LOST, size=3), Event(Kind.DGH), Event(Kind.LOST, size=4)])
    assert lost_events(path) == 7
    assert path.read_bytes()[16:24] == (7).to_bytes(8, "little")
    assert len(list(read_trace(path))) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path} must be a trace of version 1, not a file that starts with b''"),
        (b"#!/bin/sh\n" + bytes(80), "{path} must be a trace of version 1, not a file that starts with "
                                     "b'#!/bin/sh\\n\\x00\\x00\\x00\\x00\\x00\\x00'"),
        (b"PVUTRACE\2\0\0\0\x40\0\0\0" + bytes(48), "{path} must be a trace of version 1, not a file that starts with "
                                                  "b'PVUTRACE\\x02\\x00\\x00\\x00@\\x00\\x00\\x00'"),
        (file_header() + bytes(10), "{path}: trace must be whole events of 64 bytes, not end with 10"),
        (file_header() + bytes(64), "{path}: kind must be 1 to 10, not 0"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_trace(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(StreamError) as caught:
        list(read_trace(path))
    assert str(caught.value) == message.format(path=path)


@given(
    st.builds(
        Event,
        kind=st.sampled_from([kind for kind in Kind if kind not in (Kind.BARRIER, Kind.DGH, Kind.LOST)]),
        offset=st.integers(0, (1 << 64) - 1),
        bar=st.sampled_from([None, BAR_CONFIG, *range(7)]),
        stage1=st.sampled_from([None, *MEMORY_TYPES]),
        stage2=st.sampled_from([None, *range(17)]),
        type=st.sampled_from([None, NORMAL_NC, NGNRE]),
        peripheral=st.none() | st.integers(0, 0xFFFE),
        flags=st.integers(0, 0x7FF).map(Flag),
        vcpu=st.integers(0, 0xFFFF),
        sequence=st.integers(0, (1 << 64) - 1),
        pc=st.integers(0, (1 << 64) - 1),
        instruction=st.integers(0, (1 << 32) - 1),
        element=st.integers(0, 255),
        el=st.sampled_from([None, 0, 1, 2, 3]),
        fwb=st.booleans(),
        barrier=st.none(),
    ),
    st.binary(max_size=16),
)
def test_what_was_packed_comes_back(event: Event, data: bytes) -> None:
    event = event._replace(data=data, size=len(data))
    assert unpack(pack(event)) == event


@given(st.binary(min_size=52, max_size=52), st.sampled_from(Kind), st.binary(min_size=11, max_size=11))
def test_any_bytes_are_an_event_or_refused(front: bytes, kind: Kind, back: bytes) -> None:
    try:
        event = unpack(front + bytes([kind]) + back)
    except StreamError:
        return
    assert unpack(pack(event)) == event
