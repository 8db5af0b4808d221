"""Regions as a device's author builds them; the access rules are tested where they are applied, in test_hotpath."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.recorder import Recorder
from pyvfio_user.bridge.regions import Region, Rules


def rules(length: int = 4, reset: bytes | None = None) -> Rules:
    ones, none = b"\xff" * length, bytes(length)
    return Rules(reset=reset or none, writable=ones, w1c=none, rc=none, once=none)


def test_registers_have_their_reset_value_at_once_and_after_a_reset() -> None:
    region = Region(0x1000)
    region.add_memory(0, 16)
    region.add_registers(0x10, rules(reset=b"\1\2\3\4"))
    region.add_doorbell(0x20, 4, lambda value: None)
    assert bytes(region.memory[0x10:0x14]) == b"\1\2\3\4"
    for start in (0, 0x10, 0x20):
        region.memory[start : start + 4] = b"\xee" * 4
    region.reset()
    assert (bytes(region.memory[0:4]), bytes(region.memory[0x10:0x14])) == (b"\xee" * 4, b"\1\2\3\4")
    assert bytes(region.memory[0x20:0x24]) == bytes(4)


def test_mapped_areas_make_the_whole_region_one_sealed_file() -> None:
    region = Region(0x4000, mapped=[(0x2000, 0x1000), (0, 0x1000)])
    assert region.mapped == ((0, 0x1000), (0x2000, 0x1000))
    assert region.fd is not None
    assert os.fstat(region.fd).st_size == 0x4000
    with mmap.mmap(region.fd, 0x1000, offset=0x2000) as view:
        view[0:2] = b"hi"
    assert bytes(region.memory[0x2000:0x2002]) == b"hi"
    with pytest.raises(PermissionError):
        os.ftruncate(region.fd, 0)
    with pytest.raises(PermissionError):
        fcntl.fcntl(region.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_region_closes_its_file() -> None:
    region = Region(0x1000, mapped=[(0, 0x1000)])
    fd = region.fd
    assert fd is not None
    del region
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_region_without_mapped_areas_has_no_file() -> None:
    assert Region(0x1000).fd is None


@pytest.mark.parametrize(
    ("areas", "named"),
    [
        ([(0x800, 0x1000)], "0x1000 bytes at 0x800"),
        ([(0, 0x800)], "0x800 bytes at 0x0"),
        ([(0, 0)], "0x0 bytes at 0x0"),
        ([(0x2000, 0x1000)], "0x1000 bytes at 0x2000"),
        ([(0, 0x2000), (0x1000, 0x1000)], "0x1000 bytes at 0x1000"),
        ([(-0x1000, 0x1000)], "0x1000 bytes at -0x1000"),
    ],
)
def test_a_mapped_area_that_qemu_would_choke_on_is_refused(areas: list[tuple[int, int]], named: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Region(0x2000, mapped=areas)
    assert str(caught.value) == (
        f"mapped areas must be whole pages of 4096 bytes within 0x2000 bytes, without overlap, not {named}"
    )


def test_a_region_must_have_a_size() -> None:
    with pytest.raises(DefinitionError, match=r"^size must be at least 1 byte, not 0$"):
        Region(0)


def test_spans_must_not_overlap_nor_leave_the_region() -> None:
    region = Region(0x100)
    region.add_memory(0x10, 0x10)
    for offset, length in ((0, 0x11), (0x1F, 1), (0x10, 0x10), (0x18, 4), (0, 0x100)):
        with pytest.raises(DefinitionError, match=r"^a span must not overlap the 0x10 bytes at 0x10, not be"):
            region.add_memory(offset, length)
    region.add_memory(0, 0x10)
    region.add_memory(0x20, 0xE0)
    for offset, length in ((0x100, 1), (-1, 1), (0, 0), (0x20, 0xE1)):
        with pytest.raises(DefinitionError, match=r"^a span must lie in the region's 0x100 bytes, not "):
            region.add_memory(offset, length)


def test_a_span_cannot_be_added_once_the_region_is_served() -> None:
    region = Region(0x100)
    assert region.native is region.native
    with pytest.raises(DefinitionError, match=r"^spans must be added before the device is served, not after$"):
        region.add_memory(0, 4)


def test_a_doorbell_has_a_width_that_an_access_can_have() -> None:
    with pytest.raises(DefinitionError, match=r"^width must be 1, 2, 4 or 8 bytes, not 3$"):
        Region(16).add_doorbell(0, 3, lambda value: None)


def test_rules_are_as_long_as_the_span() -> None:
    with pytest.raises(DefinitionError, match=r"^w1c must be 4 bytes as reset is, not b'\\x00'$"):
        Rules(reset=bytes(4), writable=bytes(4), w1c=b"\0", rc=bytes(4), once=bytes(4))


def test_a_recorder_has_room() -> None:
    with pytest.raises(DefinitionError, match=r"^capacity must be 1 to 268435456 transactions, not 0$"):
        Recorder(0)
    assert Recorder().drain() == []


def test_counters_lie_in_the_region() -> None:
    region = Region(0x1000)
    with pytest.raises(DefinitionError, match="a counter must lie in the region's 0x1000 bytes, not at 0xffd"):
        region.count_accesses(reads_at=0, writes_at=0xFFD)
    region.count_accesses(reads_at=0, writes_at=0xFFC)


def test_only_registers_with_a_handler_signal() -> None:
    region = Region(0x1000)
    region.add_registers(0, rules())
    region.add_registers(4, rules(), on_write=lambda offset, size, value: None)
    with pytest.raises(DefinitionError, match="registers that signal must have an on_write, not those at 0x0"):
        region.signal(0, [-1])
