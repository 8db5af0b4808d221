"""TLPs: what one block becomes, byte enables, boundaries, completions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NORMAL_NC, NORMAL_WB
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect.effects import Effects, effects
from pyvfio_user.bridge.interconnect.program import Part, Program, atomic, burst, load, ram_store, st64b, store
from pyvfio_user.bridge.interconnect.tlp import Link, Tlp, TlpKind, completions, tlps
from pyvfio_user.bridge.stream import BAR_CONFIG, BAR_ROM, Flag


def of(*parts: Part) -> Effects:
    return effects(Program.of(*parts))


def together(*parts: Part, link: Link = Link()) -> list[Tlp]:  # noqa: B008
    """The TLPs when all arrives as one block."""
    found = of(*parts)
    return tlps(found, ((1 << len(found)) - 1,), link)


def texts(*parts: Part, link: Link = Link()) -> list[str]:  # noqa: B008
    return [str(tlp) for tlp in together(*parts, link=link)]


def test_a_burst_is_one_tlp_or_eight() -> None:
    found = of(burst(0x40))
    (whole,) = tlps(found, (0xFF,))
    assert (str(whole), whole.data, whole.effects) == ("MWr bar0+0x40 16DW f/f", bytes(range(0x41, 0x81)), 0xFF)
    apart = tlps(found, tuple(1 << n for n in range(8)))
    assert [str(tlp) for tlp in apart] == [f"MWr bar0+{at:#x} 2DW f/f" for at in range(0x40, 0x80, 8)]
    assert [tlp.effects for tlp in apart] == [1 << n for n in range(8)]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([store(0x43, 1)], ["MWr bar0+0x40 1DW 8/0"]),
        ([store(0x42, 2), store(0x44, 4), store(0x48, 1)], ["MWr bar0+0x40 3DW c/1"]),
        ([store(0x40, 1), store(0x42, 1)], ["MWr bar0+0x40 1DW 5/0"]),
        ([store(0x40, 1), store(0x47, 1)], ["MWr bar0+0x40 2DW 1/8"]),
        ([store(0x44, 1), store(0x4B, 1)], ["MWr bar0+0x44 1DW 1/0", "MWr bar0+0x48 1DW 8/0"]),
        ([store(0x40), store(0x50)], ["MWr bar0+0x40 2DW f/f", "MWr bar0+0x50 2DW f/f"]),
        ([load(0x40, 4)], ["MRd bar0+0x40 1DW f/0"]),
        ([load(0x40, type=GRE), load(0x44, type=GRE, size=4)], ["MRd bar0+0x40 2DW f/f"]),
        ([store(0x40, bar=BAR_ROM)], ["MWr rom+0x40 2DW f/f"]),
        ([store(4, 2, bar=BAR_CONFIG)], ["CfgWr0 config+0x4 1DW 3/0"]),
        ([load(4, bar=BAR_CONFIG)], ["CfgRd0 config+0x4 1DW f/0", "CfgRd0 config+0x8 1DW f/0"]),
        ([st64b(0x40)], ["MWr bar0+0x40 16DW f/f"]),
        ([atomic(0x40)], ["AtomicOp bar0+0x40 2DW f/f"]),
        ([store(0x40, bar=None, type=NGNRE)], ["MWr ?+0x40 2DW f/f"]),
        ([ram_store(0x40)], []),
    ],
)
def test_blocks(parts: list[Part], expected: list[str]) -> None:
    assert texts(*parts) == expected


def test_boundaries() -> None:
    line = burst(0xFC0, 128, 16, type=NORMAL_NC)
    assert texts(line) == ["MWr bar0+0xfc0 16DW f/f", "MWr bar0+0x1000 16DW f/f"]
    long = burst(0x40, 256, 16, type=NORMAL_NC)
    assert texts(long, link=Link(max_payload=128)) == [
        "MWr bar0+0x40 16DW f/f",
        "MWr bar0+0x80 32DW f/f",
        "MWr bar0+0x100 16DW f/f",
    ]
    assert texts(burst(0x40, 16), link=Link(atom=4)) == [f"MWr bar0+{at:#x} 1DW f/0" for at in range(0x40, 0x50, 4)]


def test_the_later_store_wins_in_a_block() -> None:
    (tlp,) = together(store(0x40, 8, 0, type=GRE), store(0x42, 2, 0xFFFF, type=GRE))
    assert (tlp.data, tlp.effects) == (bytes([0, 0, 0xFF, 0xFF, 0, 0, 0, 0]), 0b11)
    (unknown,) = together(store(0x40, 8, flags=Flag.NO_DATA))
    assert unknown.data is None


def legal(tlp: Tlp) -> bool:
    """2.2.5, in its own words: which byte enables a memory request may have."""
    if tlp.length == 1:
        return tlp.first_be != 0 and tlp.last_be == 0
    if tlp.length == 2 and tlp.address % 8 == 0:
        return tlp.first_be != 0 and tlp.last_be != 0
    return tlp.first_be in (0xF, 0xE, 0xC, 0x8) and tlp.last_be in (0xF, 0x7, 0x3, 0x1)


@given(
    st.lists(st.tuples(st.integers(0xFE0, 0x1020), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=12),
    st.sampled_from([Link(max_payload=128), Link(max_payload=4096), Link(atom=4)]),
)
def test_any_block_becomes_legal_tlps_with_each_byte_once(stores: list[tuple[int, int]], link: Link) -> None:
    parts = [store(at // size * size, size, type=NORMAL_NC) for at, size in stores]
    found = together(*parts, link=link)
    assert all(map(legal, found))
    assert all(tlp.span.start // link.max_payload == (tlp.span.stop - 1) // link.max_payload for tlp in found)
    carried = [tlp.address + at for tlp in found for at in range(4 * tlp.length) if tlp.enabled >> at & 1]
    written = {at for part in parts for event in part for at in range(event.offset, event.offset + event.size)}
    assert sorted(carried) == sorted(written)
    if link.atom == 8:
        for effect in of(*parts):
            assert sum(effect.offset in tlp.span and effect.end - 1 in tlp.span for tlp in found) == 1


def test_completions_are_cut_at_the_read_completion_boundary() -> None:
    (read,) = together(*[load(at, 16, type=NORMAL_NC) for at in range(0x30, 0x90, 16)])
    assert [str(each) for each in completions(read)] == [
        "CplD bar0+0x30 4DW 96 left",
        "CplD bar0+0x40 16DW 80 left",
        "CplD bar0+0x80 4DW 16 left",
    ]
    data = bytes(range(96))
    found = completions(read, Link(completion_boundary=128), data)
    assert [(str(each), each.data) for each in found] == [
        ("CplD bar0+0x30 20DW 96 left", data[:80]),
        ("CplD bar0+0x80 4DW 16 left", data[80:]),
    ]
    (byte,) = completions(together(load(0x43, 1))[0], data=b"\x05")
    assert (str(byte), byte.data) == ("CplD bar0+0x43 1DW 1 left", b"\x05")
    (written,) = completions(together(store(4, 2, bar=BAR_CONFIG))[0])
    assert (written.kind, str(written)) == (TlpKind.COMPLETION, "Cpl config+0x4 0DW 4 left")


def test_what_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^a request must not be posted to be completed, not MWr$"):
        completions(together(store(0))[0])
    with pytest.raises(DefinitionError, match=r"^data must be 8 bytes, not 1$"):
        completions(together(load(0))[0], data=b"x")
    with pytest.raises(DefinitionError, match=r"^max_payload must be a power of two from 128 to 4096, not 64$"):
        Link(max_payload=64)
    with pytest.raises(DefinitionError, match=r"^atom must be 4 or 8, not 2$"):
        Link(atom=2)
    with pytest.raises(DefinitionError, match=r"^completion_boundary must be 64 or 128, not 32$"):
        Link(completion_boundary=32)


def test_a_host_bridge_may_merge_writes_to_a_prefetchable_bar_whatever_their_type() -> None:
    one_by_one = tuple(1 << n for n in range(8))

    def merged(*parts: Part, payload: int = 256) -> list[str]:
        link = Link(max_payload=payload, merging=frozenset({2}))
        return [str(tlp) for tlp in tlps(of(*parts), one_by_one, link)]

    assert merged(burst(0x40, type=NGNRE, bar=2)) == ["MWr bar2+0x40 16DW f/f"]
    assert len(merged(burst(0x40, type=NGNRE, bar=0))) == 8
    assert merged(burst(0x60, type=NGNRE, bar=2), payload=128) == ["MWr bar2+0x60 8DW f/f", "MWr bar2+0x80 8DW f/f"]
    backwards = [store(at, bar=2) for at in range(0x78, 0x38, -8)]
    assert len(merged(*backwards)) == 8
    bytes_at = [store(at, 1, bar=2) for at in (3, 4, 5, 6, 0x10, 0x14, 0x18, 0x1C)]
    assert merged(*bytes_at) == [
        "MWr bar2+0x0 2DW 8/7",
        *(f"MWr bar2+{at:#x} 1DW 1/0" for at in (0x10, 0x14, 0x18, 0x1C)),
    ]
    reads = [load(at, bar=2) for at in range(0, 64, 8)]
    assert len(merged(*reads)) == 8
    found = of(burst(0x40, bar=2))
    (tlp,) = tlps(found, one_by_one, Link(merging=frozenset({2})))
    assert (tlp.data, tlp.effects) == (bytes(range(0x41, 0x81)), 0xFF)


def test_relaxed_ordering_shows() -> None:
    assert texts(store(0x40, type=NGNRNE), link=Link(relaxed=True)) == ["MWr bar0+0x40 2DW f/f RO"]
    assert texts(store(0x40, type=NORMAL_WB)) == ["MWr bar0+0x40 2DW f/f"]
