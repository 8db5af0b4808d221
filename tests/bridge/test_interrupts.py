"""Interrupts: which kind is fired, levels and masks of INTx, pending bits, and every form of SET_IRQS."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.hotpath._native import lib
from pyvfio_user.bridge.interrupts import Interrupts
from pyvfio_user.bridge.regions import Region
from pyvfio_user.bridge.wire import IrqFlag, IrqIndex, IrqSet

NONE, BOOL, EVENTFD = IrqSet.DATA_NONE, IrqSet.DATA_BOOL, IrqSet.DATA_EVENTFD
MASK, UNMASK, TRIGGER = IrqSet.MASK, IrqSet.UNMASK, IrqSet.TRIGGER
PBA = 0x100


class Kit:
    """A device's interrupts, and the client's ends of the eventfds."""

    def __init__(self) -> None:
        self.region = Region(4096)
        self.interrupts = Interrupts(intx=True, msi=4, msix=70, pba=(self.region, PBA))
        self.eventfds: list[int] = []

    def eventfd(self) -> int:
        """One for the device: it takes over a duplicate."""
        self.eventfds.append(os.eventfd(0, os.EFD_NONBLOCK))
        return os.dup(self.eventfds[-1])

    def give(self, index: IrqIndex, count: int = 1, start: int = 0) -> list[int]:
        before = len(self.eventfds)
        self.interrupts.set_irqs(EVENTFD | TRIGGER, index, start, count, b"", [self.eventfd() for _ in range(count)])
        return self.eventfds[before:]

    def unmask(self) -> None:
        self.interrupts.set_irqs(NONE | UNMASK, IrqIndex.INTX, 0, 1, b"", [])

    def pba(self) -> int:
        return int.from_bytes(self.region.memory[PBA : PBA + 16], "little")


def taken(eventfd: int) -> int:
    try:
        return os.eventfd_read(eventfd)
    except BlockingIOError:
        return 0


@pytest.fixture
def kit() -> Iterator[Kit]:
    found = Kit()
    yield found
    found.interrupts.drop()
    for fd in found.eventfds:
        os.close(fd)


def test_what_the_guest_enabled_decides_what_is_fired(kit: Kit) -> None:
    interrupts = kit.interrupts
    assert (interrupts.mode, interrupts.fire(1)) == ("none", False)
    (intx,) = kit.give(IrqIndex.INTX)
    assert (interrupts.mode, interrupts.fire(), taken(intx)) == ("intx", True, 1)
    msi = kit.give(IrqIndex.MSI, 4)
    assert (interrupts.mode, interrupts.fire(2), [taken(fd) for fd in msi]) == ("msi", True, [0, 0, 1, 0])
    msix = kit.give(IrqIndex.MSIX, 16, 54)
    assert (interrupts.mode, interrupts.fire(69), taken(msix[15])) == ("msix", True, 1)
    interrupts.set_irqs(NONE | TRIGGER, IrqIndex.MSIX, 0, 0, b"", [])
    interrupts.set_irqs(NONE | TRIGGER, IrqIndex.MSI, 0, 0, b"", [])
    assert interrupts.mode == "intx"
    with pytest.raises(IndexError, match=r"^vector must be 0 to 69, not 70$"):
        interrupts.fire(70)


def test_flags_are_those_that_qemu_needs(kit: Kit) -> None:
    interrupts = kit.interrupts
    assert interrupts.flags(IrqIndex.INTX) == IrqFlag.EVENTFD | IrqFlag.MASKABLE | IrqFlag.AUTOMASKED
    assert interrupts.flags(IrqIndex.MSIX) == IrqFlag.EVENTFD, "NORESIZE makes QEMU send all vectors for each"
    assert interrupts.counts == {0: 1, 1: 4, 2: 70, 3: 1, 4: 0}


def test_intx_is_a_level_that_comes_again_after_the_end_of_the_interrupt(kit: Kit) -> None:
    status: list[bool] = []
    kit.interrupts.on_intx_status = status.append
    (intx,) = kit.give(IrqIndex.INTX)
    kit.interrupts.intx_assert()
    kit.interrupts.intx_assert()
    assert taken(intx) == 1
    kit.unmask()
    assert taken(intx) == 1
    kit.interrupts.intx_deassert()
    kit.unmask()
    assert taken(intx) == 0
    assert status == [True, False]


def test_intx_asserted_before_the_client_listens_is_told_when_it_does(kit: Kit) -> None:
    kit.interrupts.intx_assert()
    (intx,) = kit.give(IrqIndex.INTX)
    assert taken(intx) == 1


def test_fired_intx_lasts_until_the_end_of_the_interrupt_and_is_not_lost(kit: Kit) -> None:
    (intx,) = kit.give(IrqIndex.INTX)
    kit.interrupts.fire()
    assert (taken(intx), kit.interrupts.intx_asserted) == (1, True)
    kit.interrupts.fire()
    kit.interrupts.fire()
    assert taken(intx) == 0
    kit.unmask()
    assert (taken(intx), kit.interrupts.intx_asserted) == (1, True)
    kit.unmask()
    assert (taken(intx), kit.interrupts.intx_asserted) == (0, False)


def test_interrupt_disable_holds_the_line_but_not_its_status(kit: Kit) -> None:
    (intx,) = kit.give(IrqIndex.INTX)
    kit.interrupts.intx_disabled = True
    kit.interrupts.intx_assert()
    assert (taken(intx), kit.interrupts.intx_asserted) == (0, True)
    kit.interrupts.intx_disabled = False
    assert taken(intx) == 1


@pytest.mark.parametrize(("form", "data"), [(NONE, b""), (BOOL, b"\1")])
def test_a_masked_intx_waits(kit: Kit, form: IrqSet, data: bytes) -> None:
    (intx,) = kit.give(IrqIndex.INTX)
    kit.interrupts.set_irqs(form | MASK, IrqIndex.INTX, 0, 1, data, [])
    kit.interrupts.intx_assert()
    assert taken(intx) == 0
    kit.interrupts.set_irqs(BOOL | UNMASK, IrqIndex.INTX, 0, 1, b"\0", [])
    assert taken(intx) == 0
    kit.interrupts.set_irqs(form | UNMASK, IrqIndex.INTX, 0, 1, data, [])
    assert taken(intx) == 1


@pytest.mark.asyncio
async def test_an_eventfd_can_unmask_and_mask(kit: Kit) -> None:
    (intx,) = kit.give(IrqIndex.INTX)
    for action in (UNMASK, MASK):
        kit.interrupts.set_irqs(EVENTFD | action, IrqIndex.INTX, 0, 1, b"", [kit.eventfd()])
    resample, mask = kit.eventfds[1:]
    kit.interrupts.intx_assert()
    assert taken(intx) == 1
    os.eventfd_write(resample, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert taken(intx) == 1
    os.eventfd_write(mask, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    kit.unmask()
    assert taken(intx) == 1
    kit.interrupts.set_irqs(EVENTFD | UNMASK, IrqIndex.INTX, 0, 1, b"", [])
    os.eventfd_write(resample, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert taken(intx) == 0
    kit.interrupts.drop()


def test_a_vector_without_eventfd_is_pending_until_it_has_one(kit: Kit) -> None:
    interrupts = kit.interrupts
    interrupts.set_irqs(EVENTFD | TRIGGER, IrqIndex.MSIX, 0, 1, b"", [])
    assert interrupts.mode == "msix", "QEMU enables MSI-X with no descriptor at all"
    assert interrupts.fire(0)
    assert interrupts.fire(65)
    assert kit.pba() == 1 | 1 << 65
    (late,) = kit.give(IrqIndex.MSIX, start=65)
    assert (taken(late), kit.pba()) == (1, 1)
    interrupts.set_irqs(EVENTFD | TRIGGER, IrqIndex.MSIX, 65, 1, b"", [])
    interrupts.fire(65)
    assert (taken(late), kit.pba()) == (0, 1 | 1 << 65)
    interrupts.reset()
    assert kit.pba() == 0


def test_a_guest_with_fewer_msi_vectors_gets_the_higher_as_its_last(kit: Kit) -> None:
    msi = kit.give(IrqIndex.MSI, 2)
    for vector in (0, 1, 3, 69):
        assert kit.interrupts.fire(vector)
    assert [taken(fd) for fd in msi] == [1, 3]


def test_messages_need_bus_mastering_and_intx_does_not(kit: Kit) -> None:
    (intx,) = kit.give(IrqIndex.INTX)
    kit.interrupts.bus_master = False
    assert (kit.interrupts.fire(), taken(intx)) == (True, 1)
    (msi,) = kit.give(IrqIndex.MSI)
    assert (kit.interrupts.fire(), taken(msi)) == (False, 0)
    kit.interrupts.bus_master = True
    assert (kit.interrupts.fire(), taken(msi)) == (True, 1)


@pytest.mark.parametrize(("form", "data", "expected"), [(NONE, b"", [1, 1]), (BOOL, b"\0\1", [0, 1])])
def test_the_client_can_trigger_vectors_itself(kit: Kit, form: IrqSet, data: bytes, expected: list[int]) -> None:
    msix = kit.give(IrqIndex.MSIX, 2)
    kit.interrupts.set_irqs(form | TRIGGER, IrqIndex.MSIX, 0, 2, data, [])
    assert [taken(fd) for fd in msix] == expected


def test_an_error_is_told_to_a_client_that_listens(kit: Kit) -> None:
    assert not kit.interrupts.error()
    (listener,) = kit.give(IrqIndex.ERR)
    assert (kit.interrupts.error(), taken(listener)) == (True, 1)


@pytest.mark.parametrize(
    ("flags", "index", "start", "count", "data", "fds"),
    [
        (0, 2, 0, 1, b"", 0),
        (TRIGGER, 2, 0, 1, b"", 0),
        (EVENTFD, 2, 0, 1, b"", 1),
        (EVENTFD | NONE | TRIGGER, 2, 0, 1, b"", 1),
        (EVENTFD | TRIGGER | MASK, 2, 0, 1, b"", 1),
        (EVENTFD | TRIGGER | 0x40, 2, 0, 1, b"", 1),
        (EVENTFD | TRIGGER, 5, 0, 1, b"", 1),
        (EVENTFD | TRIGGER, 2**32 - 1, 0, 1, b"", 1),
        (EVENTFD | TRIGGER, 4, 0, 1, b"", 1),
        (EVENTFD | TRIGGER, 2, 70, 1, b"", 1),
        (EVENTFD | TRIGGER, 2, 0, 71, b"", 0),
        (EVENTFD | TRIGGER, 2, 2**32 - 1, 2**32 - 1, b"", 0),
        (EVENTFD | TRIGGER, 2, 0, 2, b"", 1),
        (EVENTFD | TRIGGER, 2, 0, 1, b"", 2),
        (EVENTFD | TRIGGER, 2, 0, 0, b"", 0),
        (NONE | TRIGGER, 2, 0, 1, b"", 1),
        (BOOL | TRIGGER, 2, 0, 2, b"\1", 0),
        (BOOL | TRIGGER, 2, 0, 0, b"", 0),
        (NONE | MASK, 2, 0, 1, b"", 0),
        (NONE | UNMASK, 0, 0, 0, b"", 0),
    ],
)
def test_what_set_irqs_cannot_mean_is_refused(
    kit: Kit, flags: int, index: int, start: int, count: int, data: bytes, fds: int
) -> None:
    given = [kit.eventfd() for _ in range(fds)]
    with pytest.raises(OSError, match="SET_IRQS must be of") as caught:
        kit.interrupts.set_irqs(flags, index, start, count, data, given)
    assert caught.value.errno == errno.EINVAL
    assert len(given) == fds, "they stay the caller's to close"
    for fd in given:
        os.close(fd)


@pytest.mark.parametrize("index", [IrqIndex.INTX, IrqIndex.MSI, IrqIndex.MSIX])
def test_a_full_eventfd_that_the_client_made_block_stops_nothing(kit: Kit, index: IrqIndex) -> None:
    (full,) = kit.give(index)
    os.eventfd_write(full, 2**64 - 2)
    os.set_blocking(full, True)  # the flag is that of the server's end, too
    assert kit.interrupts.fire(0)
    assert taken(full) >= 2**64 - 2


def test_eventfds_are_signalled_by_the_hundred(kit: Kit) -> None:
    (eventfd,) = kit.give(IrqIndex.MSIX)
    assert all(kit.interrupts.fire(0) for _ in range(1000))
    assert taken(eventfd) == 1000


def test_a_child_that_was_forked_off_signals_too(kit: Kit) -> None:
    (eventfd,) = kit.give(IrqIndex.MSIX)
    assert kit.interrupts.fire(0)
    child = os.fork()
    if not child:
        os._exit(0 if kit.interrupts.fire(0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert taken(eventfd) == 2


def without_requests() -> None:
    """Has the kernel know no io_setup from now on, as containers have it (seccomp(2), a filter of four steps)."""
    number = {"x86_64": 206, "aarch64": 0}[platform.machine()]
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("=HxxxxxxQ", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
    assert libc.prctl(22, 2, program) == 0, "PR_SET_SECCOMP, a filter"


def test_where_containers_forbid_requests_eventfds_are_written(kit: Kit) -> None:
    (eventfd, full) = kit.give(IrqIndex.MSIX, 2)
    os.eventfd_write(full, 2**64 - 2)
    os.set_blocking(full, True)
    child = os.fork()
    if not child:
        without_requests()
        os._exit(0 if kit.interrupts.fire(0) and kit.interrupts.fire(1) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (taken(eventfd), taken(full)) == (1, 2**64 - 2), "it would be one more, were it a request"


def test_what_is_signalled_must_be_an_eventfd() -> None:
    reader, writer = os.pipe()
    assert lib.pvu_signal(writer) == -errno.EINVAL
    os.close(writer)
    assert os.read(reader, 8) == b""
    assert lib.pvu_signal(writer) == -errno.EBADF
    os.close(reader)


def _not_eventfds() -> dict[str, Callable[[], int]]:
    def pipe() -> int:
        reader, writer = os.pipe()
        os.close(reader)
        return writer

    libc = ctypes.CDLL(None)
    return {
        "pipe:[": pipe,
        "socket:[": lambda: socket.socket().detach(),
        "/memfd:ram (deleted)": lambda: os.memfd_create("ram"),
        "/dev/null": lambda: os.open("/dev/null", os.O_RDWR),
        "anon_inode:[timerfd]": lambda: int(libc.timerfd_create(time.CLOCK_MONOTONIC, 0)),
        "/memfd:anon_inode:[eventfd] (deleted)": lambda: os.memfd_create("anon_inode:[eventfd]"),
    }


@pytest.mark.parametrize("action", [TRIGGER, UNMASK])
@pytest.mark.parametrize("kind", _not_eventfds())
def test_only_eventfds_are_taken(kit: Kit, kind: str, action: IrqSet) -> None:
    other = _not_eventfds()[kind]()
    good = kit.eventfd()
    given = [other] if action == UNMASK else [good, other]
    with pytest.raises(OSError, match=r"SET_IRQS must carry eventfds, not " + re.escape(kind)) as caught:
        index = IrqIndex.INTX if action == UNMASK else IrqIndex.MSIX
        kit.interrupts.set_irqs(EVENTFD | action, index, 0, len(given), b"", given)
    assert caught.value.errno == errno.EINVAL
    assert given[-1] == other, "they stay the caller's to close"
    assert kit.interrupts.mode == "none", "nothing of the message is done"
    os.close(other)
    os.close(good)


@pytest.mark.asyncio
async def test_an_unmask_eventfd_that_the_client_empties_and_made_block_stops_nothing(kit: Kit) -> None:
    (intx,) = kit.give(IrqIndex.INTX)
    unmask = kit.eventfd()
    kit.interrupts.set_irqs(EVENTFD | UNMASK, IrqIndex.INTX, 0, 1, b"", [unmask])
    kit.interrupts.intx_assert()
    assert taken(intx) == 1
    client = kit.eventfds[-1]
    os.set_blocking(client, True)
    loop = asyncio.get_running_loop()
    loop.call_soon(os.eventfd_read, client)  # comes before the server's reader, which was told that there is something
    os.eventfd_write(client, 1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert taken(intx) == 0
    os.eventfd_write(client, 1)
    async with asyncio.timeout(5):
        while not taken(intx):
            await asyncio.sleep(0)
    kit.interrupts.drop()


def test_a_client_that_leaves_takes_its_eventfds_along(kit: Kit) -> None:
    before = len(os.listdir("/proc/self/fd"))
    kit.give(IrqIndex.INTX)
    kit.give(IrqIndex.MSIX, 16)
    kit.give(IrqIndex.MSIX, 16)
    kit.interrupts.drop()
    assert kit.interrupts.mode == "none"
    assert len(os.listdir("/proc/self/fd")) == before + len(kit.eventfds)


def test_a_device_has_no_more_vectors_than_pcie_allows() -> None:
    with pytest.raises(DefinitionError, match=r"^msi must be 0 to 32 vectors, not 33$"):
        Interrupts(msi=33)
    with pytest.raises(DefinitionError, match=r"^msix must be 0 to 2048 vectors, not 2049$"):
        Interrupts(msix=2049, pba=(Region(4096), 0))
    with pytest.raises(DefinitionError, match=r"^pba must be given for 1 MSI-X vectors, not None$"):
        Interrupts(msix=1)
