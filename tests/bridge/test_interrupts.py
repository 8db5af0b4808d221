"""Interrupts: which kind is fired, levels and masks of INTx, pending bits, and every form of SET_IRQS."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator

import pytest

from pyvfio_user.bridge.errors import DefinitionError
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


def test_a_full_or_foreign_descriptor_does_not_stop_the_device(kit: Kit) -> None:
    (full,) = kit.give(IrqIndex.MSIX)
    os.eventfd_write(full, 2**64 - 2)
    assert kit.interrupts.fire(0)
    reader, writer = os.pipe()
    kit.interrupts.set_irqs(EVENTFD | TRIGGER, IrqIndex.MSIX, 0, 1, b"", [os.dup(reader)])
    assert not kit.interrupts.fire(0)
    os.close(reader)
    os.close(writer)


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
