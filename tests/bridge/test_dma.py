"""Guest memory: what may be mapped, what can be reached, and copies."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.dma import DmaError, GuestMemory, SegmentList
from pyvfio_user.bridge.wire import MAX_DMA_MAPS

PAGE = 4096


@pytest.fixture
def ram() -> Iterator[int]:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, 16 * PAGE)
    yield fd
    os.close(fd)


@pytest.fixture
def memory() -> GuestMemory:
    found = GuestMemory()
    found.bus_master = True
    return found


def errno_of(caught: pytest.ExceptionInfo[OSError]) -> int | None:
    return caught.value.errno


def test_the_offset_in_the_file_counts(memory: GuestMemory, ram: int) -> None:
    memory.map(0x10000, 2 * PAGE, 3, ram, PAGE)
    memory.write_mapped(0x10FFE, b"over the edge")
    assert os.pread(ram, 13, 2 * PAGE - 2) == b"over the edge"
    assert memory.read_mapped(0x10FFE, 13) == b"over the edge"
    buffer = bytearray(4)
    memory.read_into(0x11003, buffer)
    assert buffer == b"the "


@pytest.mark.parametrize(
    ("address", "size", "flags", "offset", "error"),
    [
        (0, 0, 3, 0, errno.EINVAL),
        (1, PAGE, 3, 0, errno.EINVAL),
        (0, PAGE + 1, 3, 0, errno.EINVAL),
        (0, PAGE, 3, 8, errno.EINVAL),
        (0, PAGE, 4, 0, errno.EINVAL),
        (2**64 - PAGE, 2 * PAGE, 3, 0, errno.EINVAL),
        (0, 17 * PAGE, 3, 0, errno.EINVAL),
        (0, PAGE, 3, 16 * PAGE, errno.EINVAL),
        (0, PAGE, 3, 2**64 - PAGE, errno.EINVAL),
        (0x200000, 2**63, 3, 0, errno.EINVAL),
        (0x100000, PAGE, 3, 0, errno.EEXIST),
        (0xFF000, 2 * PAGE, 3, 0, errno.EEXIST),
        (0x101000, PAGE, 3, 0, errno.EEXIST),
        (0xFF000, 4 * PAGE, 3, 0, errno.EEXIST),
    ],
)
def test_a_map_that_cannot_be_is_refused(
    memory: GuestMemory, ram: int, address: int, size: int, flags: int, offset: int, error: int
) -> None:
    memory.map(0x100000, 2 * PAGE, 3, ram, 0)
    with pytest.raises(OSError) as caught:
        memory.map(address, size, flags, ram, offset)
    assert (errno_of(caught), memory.maps) == (error, 1)


def test_a_file_is_mapped_as_it_was_opened(memory: GuestMemory, ram: int) -> None:
    readonly = os.open(f"/proc/self/fd/{ram}", os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        memory.map(0, PAGE, 3, readonly, 0)
    assert errno_of(caught) == errno.EACCES
    memory.map(0, PAGE, 1, readonly, 0)
    os.close(readonly)


@pytest.mark.parametrize("path", ["/proc/self/status", "/sys/kernel/uevent_seqnum", "/dev/zero", "/dev/null", "/"])
def test_what_is_neither_memory_nor_on_a_disk_is_refused(memory: GuestMemory, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    name = re.escape(os.readlink(f"/proc/self/fd/{fd}"))
    expected = f"guest memory must be a memfd, or a file on tmpfs, hugetlbfs or a disk, not {name}$"
    with pytest.raises(OSError, match=expected) as caught:
        memory.map(0, PAGE, 1, fd, 0)
    assert (errno_of(caught), memory.maps) == (errno.EOPNOTSUPP, 0)
    os.close(fd)


def test_a_pipe_is_refused(memory: GuestMemory) -> None:
    ends = os.pipe()
    with pytest.raises(OSError, match=r"not pipe:\[") as caught:
        memory.map(0, PAGE, 3, ends[0], 0)
    assert errno_of(caught) == errno.EOPNOTSUPP
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize("folder", ["/dev/shm", "here"])
def test_files_on_tmpfs_and_disks_are_mapped_as_qemu_has_them(memory: GuestMemory, folder: str) -> None:
    """memory-backend-file,mem-path=..."""
    with tempfile.TemporaryFile(dir=Path(__file__).parent if folder == "here" else folder) as file:
        file.truncate(PAGE)
        if folder == "here" and os.major(os.fstat(file.fileno()).st_dev) == 0:  # a container's overlay
            with pytest.raises(OSError, match="guest memory must be a memfd"):
                memory.map(0, PAGE, 3, file.fileno(), 0)
        else:
            memory.map(0, PAGE, 3, file.fileno(), 0)
            memory.write_mapped(0, b"what the device wrote")
            assert file.read(21) == b"what the device wrote"


def test_there_is_an_end_to_maps(memory: GuestMemory) -> None:
    for number in range(MAX_DMA_MAPS):
        memory.map(number * PAGE, PAGE, 3, None, 0)
    with pytest.raises(OSError) as caught:
        memory.map(MAX_DMA_MAPS * PAGE, PAGE, 3, None, 0)
    assert (errno_of(caught), memory.maps) == (errno.ENOSPC, MAX_DMA_MAPS)
    memory.unmap(0, 2**40)
    assert memory.maps == 0


def areas_of(name: str) -> int:
    """How many areas of this process are of a file."""
    return sum(line.endswith(f"/memfd:{name} (deleted)") for line in Path("/proc/self/maps").read_text().splitlines())


def huge_file(size: int) -> int:
    """A file of huge pages; of ordinary ones where the kernel has no others."""
    try:
        fd = os.memfd_create("huge", os.MFD_HUGETLB)
    except OSError:
        fd = os.memfd_create("huge")
    os.ftruncate(fd, size)
    return fd


def test_parts_of_huge_pages_are_mapped_and_nothing_of_them_stays(memory: GuestMemory) -> None:
    """The kernel maps huge pages whole, and refuses to unmap less."""
    fd, huge = huge_file(4 << 20), 2 << 20
    places = ((0, PAGE), (PAGE, PAGE), (huge - PAGE, 2 * PAGE), (4 * PAGE, 2 * huge - 4 * PAGE))
    for number, (offset, size) in enumerate(places):
        memory.map(number * 2 * huge, size, 3, fd, offset)
    assert (memory.maps, areas_of("huge")) == (4, 4)
    with pytest.raises(OSError) as caught:
        memory.map(1 << 30, 2 * PAGE, 3, fd, 2 * huge - PAGE)
    assert errno_of(caught) == errno.EINVAL
    memory.unmap(0, PAGE)
    assert areas_of("huge") == 3
    memory.unmap_all()
    assert areas_of("huge") == 0
    os.close(fd)


FLOOD = """
import os, sys
from pyvfio_user.bridge.dma import GuestMemory
limit = 32768
one, two = GuestMemory(), GuestMemory()
fd = os.memfd_create("scattered")
os.ftruncate(fd, 16384)
def refused(memory):
    try:
        memory.map(1 << 40, 4096, 3, fd, 0)
    except OSError as error:
        print(error.strerror)
        return
    raise SystemExit(f"a map beyond {limit} must be refused")
for number in range(limit):  # none continues the one before
    (one, two)[number % 2].map(number * 4096, 4096, 3, fd, number % 2 * 8192)
refused(one)
refused(two)
one.map(1 << 41, 4096, 3, None, 0)
one.unmap(0, 4096)
two.map(1 << 40, 4096, 3, fd, 0)
refused(one)
one.unmap_all()
two.unmap_all()
print(open("/proc/self/maps").read().count("scattered"))
"""


def test_mapped_files_leave_the_process_areas_of_memory() -> None:
    """Half of the usual 65,530: without any it could neither allocate nor start threads. All devices share them."""
    ran = subprocess.run([sys.executable, "-c", FLOOD], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("No space left on device\n" * 3 + "0\n", "")


def test_unmapping_takes_whole_maps(memory: GuestMemory, ram: int) -> None:
    for page in (0, 1, 4):
        memory.map(page * PAGE, PAGE, 3, ram, page * PAGE)
    memory.map(0x10000, 2 * PAGE, 3, ram, 0)
    for address, size, error in (
        (2 * PAGE, PAGE, errno.ENOENT),
        (0x10000, PAGE, errno.EINVAL),
        (0x11000, PAGE, errno.EINVAL),
        (0, 0, errno.EINVAL),
        (2**64 - 1, 2, errno.EINVAL),
    ):
        with pytest.raises(OSError) as caught:
            memory.unmap(address, size)
        assert (errno_of(caught), memory.maps) == (error, 4)
    memory.unmap(0, 3 * PAGE)
    assert memory.maps == 2
    with pytest.raises(DmaError):
        memory.read_mapped(0, 1)
    assert memory.read_mapped(4 * PAGE, 1) == b"\0"
    memory.unmap_all()
    assert memory.maps == 0


def test_the_last_page_of_the_address_space_can_be_mapped(memory: GuestMemory, ram: int) -> None:
    memory.map(2**64 - PAGE, PAGE, 3, ram, 0)
    memory.write_mapped(2**64 - 2, b"!!")
    assert memory.read_mapped(2**64 - 2, 2) == b"!!"
    memory.map(0, PAGE, 3, ram, 0)
    with pytest.raises(DmaError) as caught:
        memory.read_mapped(2**64 - 2, 4)
    assert errno_of(caught) == errno.EFAULT
    memory.unmap(2**64 - PAGE, PAGE)
    assert memory.maps == 1


def test_each_refusal_says_why(memory: GuestMemory, ram: int) -> None:
    memory.map(0, PAGE, 1, ram, 0)
    memory.map(PAGE, PAGE, 2, ram, 0)
    memory.map(2 * PAGE, PAGE, 3, None, 0)
    outside = "must lie within memory the guest mapped, not outside it"
    message_only = "must lie within memory mapped with a file descriptor, not be reachable by message only"
    cases: list[tuple[int, int | bytes, int, str]] = [
        (0x3000, 64, errno.EFAULT, f"DMA read of 64 bytes at 0x3000 {outside}"),
        (-1, 1, errno.EFAULT, f"DMA read of 1 bytes at -0x1 {outside}"),
        (0xFFF, 2, errno.EACCES, "DMA read of 2 bytes at 0xfff must lie within memory mapped readable, not otherwise"),
        (
            0xFFF,
            b"ab",
            errno.EACCES,
            "DMA write of 2 bytes at 0xfff must lie within memory mapped writable, not otherwise",
        ),
        (0x2000, b"a", errno.ENXIO, f"DMA write of 1 bytes at 0x2000 {message_only}"),
    ]
    for address, what, error, text in cases:
        with pytest.raises(DmaError) as caught:
            memory.read_mapped(address, what) if isinstance(what, int) else memory.write_mapped(address, what)
        assert (errno_of(caught), str(caught.value)) == (error, text)
    memory.bus_master = False
    with pytest.raises(DmaError) as caught:
        memory.read_mapped(0, 4)
    assert (errno_of(caught), str(caught.value)) == (
        errno.EPERM,
        "DMA read of 4 bytes at 0x0 must wait until the guest enables bus mastering",
    )


def test_scatter_and_gather_are_all_or_nothing(memory: GuestMemory, ram: int) -> None:
    memory.map(0, 4 * PAGE, 3, ram, 0)
    memory.scatter([(0x10, 3), (0xFFF, 2), (0x20, 0)], b"abcde")
    assert memory.gather([(0xFFF, 2), (0x10, 3)]) == b"deabc"
    with pytest.raises(DmaError, match=r"^DMA write of 2 bytes at 0x3fff must lie within") as caught:
        memory.scatter([(0x10, 3), (0x3FFF, 2)], b"?????")
    assert errno_of(caught) == errno.EFAULT
    assert memory.read_mapped(0x10, 3) == b"abc"
    with pytest.raises(ValueError, match=r"^data must be 3 bytes as the segments are, not 2$"):
        memory.scatter([(0, 3)], b"ab")
    assert memory.gather([]) == b""


def test_a_ring_is_read_past_its_end(memory: GuestMemory, ram: int) -> None:
    memory.map(0, PAGE, 3, ram, 0)
    memory.write_mapped(0x100, bytes(range(32)))
    assert memory.read_ring(0x100, 8, 4, 3, 2) == bytes(range(24, 32)) + bytes(range(8))
    assert memory.read_ring(0x100, 8, 4, 1, 0) == b""
    for entry_size, first, count in ((0, 0, 1), (8, 4, 1), (8, 0, 5), (8, -1, 1), (8, 0, -1)):
        with pytest.raises(ValueError, match=r"^ring entries must be within 4 of at least 1 byte, not "):
            memory.read_ring(0x100, entry_size, 4, first, count)


CRASH = """
import faulthandler, mmap, os, sys
from pyvfio_user.bridge.dma import DmaError, GuestMemory
fd = os.memfd_create("ram")
memory = GuestMemory()
memory.bus_master = True
def enable():
    faulthandler.enable()
def map(address=iter((0, 4096, 8192))):
    os.ftruncate(fd, 4096)
    memory.map(next(address), 4096, 3, fd, 0)
for step in sys.argv[1:]:
    dict(enable=enable, map=map)[step]()
view = mmap.mmap(fd, 4096)
os.ftruncate(fd, 0)
for access in (lambda: memory.read_mapped(0, 4096), lambda: memory.write_mapped(8, b"x")):
    try:
        access()
    except DmaError as error:
        print(error, flush=True)
view[0]
"""


@pytest.mark.parametrize("order", [("enable", "map"), ("map", "enable"), ("map", "enable", "map")])
def test_memory_that_vanished_is_an_error_and_other_bus_errors_are_as_before(order: tuple[str, ...]) -> None:
    """Python's faulthandler tells its tale once; where it came last, of the fault that it then leaves to the guard."""
    ran = subprocess.run([sys.executable, "-c", CRASH, *order], capture_output=True, text=True, timeout=30)
    assert ran.stdout.splitlines() == [
        "DMA read of 4096 bytes at 0x0 must lie within memory the guest mapped, not outside it",
        "DMA write of 1 bytes at 0x8 must lie within memory the guest mapped, not outside it",
    ]
    assert (ran.returncode, ran.stderr.count("Fatal Python error: Bus error")) == (-signal.SIGBUS, 1)


THREADS = """
import os, threading
from pyvfio_user.bridge.dma import DmaError, GuestMemory
size = 1 << 20
fd = os.memfd_create("ram")
os.ftruncate(fd, size)
memory = GuestMemory()
memory.bus_master = True
stop, copied, refused = threading.Event(), 0, 0
def copy():
    global copied, refused
    buffer = bytearray(b"x" * size)
    while not stop.is_set():
        try:
            memory.write_mapped(0, buffer)
            copied += 1
        except DmaError:
            refused += 1
thread = threading.Thread(target=copy)
thread.start()
while copied < 50 or refused < 50:
    memory.map(0, size, 3, fd, 0)
    memory.map(size, size, 3, None, 0)
    memory.unmap(0, 2 * size)
stop.set()
thread.join()
print("done")
"""


def test_memory_is_unmapped_when_no_thread_copies_it() -> None:
    ran = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 9 * PAGE), st.integers(0, 9 * PAGE))
def test_a_copy_reaches_over_adjacent_maps_and_no_further(address: int, length: int) -> None:
    memory = GuestMemory()
    memory.bus_master = True
    fd = os.memfd_create("ram")
    content = bytes(n * 7 & 0xFF for n in range(8 * PAGE))
    os.pwrite(fd, content, 0)
    for page in (5, 1, 2, 0, 6, 4):  # a hole at 3
        memory.map(page * PAGE, PAGE, 1, fd, (page + 1) * PAGE)
    os.close(fd)
    pages = range(address // PAGE, -(-(address + length) // PAGE)) if length else ()
    if all(page in (0, 1, 2, 4, 5, 6) for page in pages):
        assert memory.read_mapped(address, length) == content[address + PAGE : address + PAGE + length]
    else:
        with pytest.raises(DmaError):
            memory.read_mapped(address, length)


@pytest.mark.asyncio
async def test_memory_without_a_descriptor_needs_a_client(memory: GuestMemory) -> None:
    memory.map(0, 2 * PAGE, 3, None, 0)
    buffer = bytearray(8)
    with pytest.raises(DmaError, match=r"^DMA read of 3 bytes at 0x10 must have a client that answers it$") as caught:
        await memory.read_segments([(0x10, 3), (0x20, 5)], buffer)
    assert errno_of(caught) == errno.ENOTCONN
    buffer.clear()  # nobody holds on to it
    with pytest.raises(DmaError, match=r"^DMA write of 1 bytes at 0x2000 must lie within memory the guest mapped"):
        await memory.write_segments([(0x10, 1), (2 * PAGE, 1)], b"12")
    with pytest.raises(ValueError, match=r"^buffer must be 3 bytes as the segments are, not 2$"):
        await memory.read_segments([(0x10, 3)], bytearray(2))
    await memory.read_segments([], bytearray())
    await memory.write(0x10, b"")


@pytest.mark.asyncio
async def test_mapped_memory_is_reached_without_a_client(memory: GuestMemory, ram: int) -> None:
    memory.map(0x10000, PAGE, 3, ram, 0)
    await memory.write_segments([(0x10008, 2), (0x10001, 3)], b"abcde")
    buffer = bytearray(5)
    await memory.read_segments(SegmentList([(0x10001, 3), (0x10008, 2)]), buffer)
    assert buffer == b"cdeab"
    assert await memory.read(0x10001, 3) == b"cde"


def test_gather_into_fills_the_buffer_it_is_given(memory: GuestMemory, ram: int) -> None:
    memory.map(0x10000, PAGE, 3, ram, 0)
    memory.write_mapped(0x10000, b"0123456789")
    buffer = bytearray(6)
    memory.gather_into([(0x10008, 2), (0x10001, 3)], memoryview(buffer)[:5])
    assert buffer == b"89123\0"
    with pytest.raises(ValueError, match="buffer must be 5 bytes as the segments are, not 6"):
        memory.gather_into([(0x10008, 2), (0x10001, 3)], buffer)
    with pytest.raises(DmaError, match="DMA read of 3 bytes at 0x20000 must lie within memory the guest mapped"):
        memory.gather_into([(0x10000, 2), (0x20000, 3)], memoryview(buffer)[:5])


def test_a_segment_list_is_used_again_and_again(memory: GuestMemory, ram: int) -> None:
    memory.map(0x10000, PAGE, 3, ram, 0)
    pieces = SegmentList([(0x10008, 2), (0x10001, 3)])
    assert (len(pieces), pieces[1], pieces == ((0x10008, 2), (0x10001, 3))) == (2, (0x10001, 3), True)
    memory.scatter(pieces, b"abcde")
    assert memory.gather(pieces) == b"abcde"
    assert memory.read_mapped(0x10000, 10) == b"\0cde\0\0\0\0ab"
    with pytest.raises(ValueError, match="data must be 5 bytes as the segments are, not 4"):
        memory.scatter(pieces, b"abcd")
    memory.unmap(0x10000, PAGE)
    with pytest.raises(DmaError, match="DMA write of 2 bytes at 0x10008 must lie within memory the guest mapped"):
        memory.scatter(pieces, b"abcde")


@pytest.mark.parametrize("segment", [(1 << 64, 1), (-1, 1), (0, 1 << 64), (0, -1)])
def test_a_segment_list_is_of_64_bits(segment: tuple[int, int]) -> None:
    with pytest.raises(OverflowError):
        SegmentList([(0, 1), segment])


@pytest.mark.parametrize("address", [0x20000, 1 << 64])
def test_a_failed_copy_lets_go_of_the_buffer(memory: GuestMemory, address: int) -> None:
    buffer = bytearray(8)
    with pytest.raises(DmaError) as caught:
        memory.gather_into([(address, 8)], buffer)
    buffer.clear()
    assert caught.value.errno == errno.EFAULT
