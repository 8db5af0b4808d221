"""SET_IRQS in all its forms, and the interrupts that follow: INTx with automask, MSI, MSI-X, ERR."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .bench import MSI_VECTORS, MSIX_VECTORS, Bench
from .raw import REPLY, RESET, SET_IRQS, Raw, set_irqs

NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER = 1, 2, 4, 8, 0x10, 0x20
INTX, MSI, MSIX, ERR = 0, 1, 2, 3


@contextmanager
def eventfds(count: int) -> Iterator[list[int]]:
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def take(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


async def done(raw: Raw, body: bytes, fds: list[int] | None = None) -> None:
    """Sends a SET_IRQS that must succeed with a header only."""
    reply = await raw.request(SET_IRQS, body, fds or [])
    assert (reply.flags, reply.body, reply.fds) == (REPLY, b"", []), reply


# INTx


@pytest.mark.asyncio
async def test_intx_fires_once_and_again_after_unmask_while_asserted(bench: Bench) -> None:
    with eventfds(1) as (fd,):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, INTX, 0, 1), [fd])
            assert bench.mode() == "intx"
            bench.interrupts.intx_assert()
            assert take(fd) == 1
            bench.interrupts.intx_assert()
            assert take(fd) == 0, "masked by itself until UNMASK"
            await done(raw, set_irqs(NONE | UNMASK, INTX, 0, 1))
            assert take(fd) == 1, "still asserted, so it fires again"
            bench.interrupts.intx_deassert()
            await done(raw, set_irqs(NONE | UNMASK, INTX, 0, 1))
            assert take(fd) == 0
            bench.interrupts.intx_assert()
            assert take(fd) == 1, "unmasked, so it fires at once"


@pytest.mark.asyncio
async def test_intx_asserted_before_the_eventfd_comes_fires_when_it_does(bench: Bench) -> None:
    with eventfds(1) as (fd,):
        async with bench.connect() as raw:
            bench.interrupts.intx_assert()
            await done(raw, set_irqs(EVENTFD | TRIGGER, INTX, 0, 1), [fd])
            assert take(fd) == 1


@pytest.mark.parametrize("mask", [set_irqs(NONE | MASK, INTX, 0, 1), set_irqs(BOOL | MASK, INTX, 0, 1, b"\1")])
@pytest.mark.parametrize("unmask", [set_irqs(NONE | UNMASK, INTX, 0, 1), set_irqs(BOOL | UNMASK, INTX, 0, 1, b"\1")])
@pytest.mark.asyncio
async def test_intx_masked_by_the_client_waits(bench: Bench, mask: bytes, unmask: bytes) -> None:
    with eventfds(1) as (fd,):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, INTX, 0, 1), [fd])
            await done(raw, mask)
            bench.interrupts.intx_assert()
            assert take(fd) == 0
            await done(raw, set_irqs(BOOL | UNMASK, INTX, 0, 1, b"\0"))
            assert take(fd) == 0, "the boolean says: not this one"
            await done(raw, unmask)
            assert take(fd) == 1


@pytest.mark.asyncio
async def test_an_unmask_eventfd_is_accepted_or_refused_but_not_misread(bench: Bench) -> None:
    """KVM's resample fd; QEMU gives one only with KVM. Refused, or it must unmask."""
    with eventfds(2) as (fd, resample):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, INTX, 0, 1), [fd])
            reply = await raw.request(SET_IRQS, set_irqs(EVENTFD | UNMASK, INTX, 0, 1), [resample])
            bench.interrupts.intx_assert()
            assert take(fd) == 1, "the trigger eventfd is still the first"
            if reply.flags == REPLY:
                os.eventfd_write(resample, 1)
                await bench.until(lambda: take(fd) == 1)
            else:
                assert reply.errno > 0


@pytest.mark.asyncio
async def test_intx_disabled_fires_no_more(bench: Bench) -> None:
    with eventfds(1) as (fd,):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, INTX, 0, 1), [fd])
            await done(raw, set_irqs(NONE | TRIGGER, INTX, 0, 0))
            assert bench.mode() == "none"
            bench.interrupts.intx_assert()
            assert take(fd) == 0
            assert bench.interrupts.fire(0) is False


@pytest.mark.asyncio
async def test_reset_deasserts_intx_and_keeps_the_eventfd(bench: Bench) -> None:
    with eventfds(1) as (fd,):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, INTX, 0, 1), [fd])
            bench.interrupts.intx_assert()
            assert take(fd) == 1
            assert (await raw.request(RESET)).flags == REPLY
            await done(raw, set_irqs(NONE | UNMASK, INTX, 0, 1))
            assert take(fd) == 0


# MSI and MSI-X


@pytest.mark.asyncio
async def test_msi_with_all_descriptors_at_once(bench: Bench) -> None:
    with eventfds(MSI_VECTORS) as fds:
        async with bench.connect() as raw:
            await done(raw, set_irqs(NONE | TRIGGER, INTX, 0, 0))
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSI, 0, MSI_VECTORS), fds)
            assert bench.mode() == "msi"
            for number, fd in enumerate(fds):
                assert bench.interrupts.fire(number) is True
                assert [take(each) for each in fds] == [int(each == fd) for each in fds]
            await done(raw, set_irqs(NONE | TRIGGER, MSI, 0, 0))
            assert bench.interrupts.fire(0) is False
            assert take(fds[0]) == 0


@pytest.mark.asyncio
async def test_msix_as_qemu_enables_it(bench: Bench) -> None:
    with eventfds(MSIX_VECTORS) as fds:
        async with bench.connect() as raw:
            await done(raw, set_irqs(NONE | TRIGGER, INTX, 0, 0))
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 0, 1))
            assert bench.mode() == "msix"
            for number in (0, 3, MSIX_VECTORS - 1):
                await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, number, 1), [fds[number]])
            assert bench.interrupts.fire(3) is True
            assert bench.interrupts.fire(MSIX_VECTORS - 1) is True
            assert [number for number, fd in enumerate(fds) if take(fd)] == [3, MSIX_VECTORS - 1]
            assert bench.interrupts.fire(1) is True
            assert await raw.read(4, 0x800, 4) == b"\2\0\0\0", "no eventfd: pending, as QEMU's reads of the PBA show"
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 1, 1), [fds[1]])
            assert take(fds[1]) == 1, "fired when it got one"
            assert await raw.read(4, 0x800, 4) == bytes(4)
            await done(raw, set_irqs(NONE | TRIGGER, MSIX, 0, 0))
            assert bench.mode() == "none"
            assert bench.interrupts.fire(3) is False


@pytest.mark.asyncio
async def test_msix_descriptors_in_chunks(bench: Bench) -> None:
    """Clients send up to 16 descriptors a message, whatever was negotiated."""
    with eventfds(MSIX_VECTORS) as fds:
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 0, 16), fds[:16])
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 16, MSIX_VECTORS - 16), fds[16:])
            for number in range(MSIX_VECTORS):
                assert bench.interrupts.fire(number) is True
            assert [take(fd) for fd in fds] == [1] * MSIX_VECTORS


@pytest.mark.asyncio
async def test_a_vector_given_twice_fires_the_newer_and_drops_the_older(bench: Bench) -> None:
    with eventfds(2) as (old, new):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 2, 1), [old])
            before = bench.descriptors()
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 2, 1), [new])
            assert bench.leaked(before) == []
            assert bench.interrupts.fire(2) is True
            assert (take(old), take(new)) == (0, 1)


@pytest.mark.asyncio
async def test_a_vector_without_a_descriptor_is_taken_away(bench: Bench) -> None:
    with eventfds(2) as (first, second):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 0, 2), [first, second])
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 1, 1))
            bench.interrupts.fire(1)
            assert bench.interrupts.fire(0) is True
            assert (take(first), take(second)) == (1, 0)


@pytest.mark.asyncio
async def test_the_client_can_trigger_a_vector_itself(bench: Bench) -> None:
    with eventfds(3) as fds:
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 0, 3), fds)
            await done(raw, set_irqs(NONE | TRIGGER, MSIX, 1, 2))
            assert [take(fd) for fd in fds] == [0, 1, 1]
            await done(raw, set_irqs(BOOL | TRIGGER, MSIX, 0, 3, b"\1\0\1"))
            assert [take(fd) for fd in fds] == [1, 0, 1]


@pytest.mark.asyncio
async def test_err_takes_an_eventfd(bench: Bench) -> None:
    with eventfds(1) as (fd,):
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, ERR, 0, 1), [fd])
            await done(raw, set_irqs(NONE | TRIGGER, ERR, 0, 1))
            assert take(fd) == 1
            await done(raw, set_irqs(NONE | TRIGGER, ERR, 0, 0))


# What is refused


@pytest.mark.parametrize("body", [
    b"", bytes(19), struct.pack("<5I", 19, NONE | TRIGGER, MSIX, 0, 0),
    struct.pack("<5I", 0, NONE | TRIGGER, MSIX, 0, 0), struct.pack("<5I", 23, BOOL | TRIGGER, MSIX, 0, 3) + b"\1\1",
    struct.pack("<5I", 22, BOOL | TRIGGER, MSIX, 0, 3) + b"\1\1\1",
    set_irqs(EVENTFD | TRIGGER, 4 << 24, 0, 1), set_irqs(EVENTFD | TRIGGER, 0xFFFF_FFFF, 0, 1),
    set_irqs(EVENTFD | TRIGGER, MSIX, MSIX_VECTORS, 1), set_irqs(EVENTFD | TRIGGER, MSIX, 0, MSIX_VECTORS + 1),
    set_irqs(EVENTFD | TRIGGER, MSIX, 0xFFFF_FFFF, 2), set_irqs(EVENTFD | TRIGGER, MSIX, 1, 0xFFFF_FFFF),
    set_irqs(0, INTX, 0, 1), set_irqs(NONE, INTX, 0, 1), set_irqs(TRIGGER, INTX, 0, 1),
    set_irqs(NONE | BOOL | TRIGGER, INTX, 0, 1, b"\1"), set_irqs(NONE | MASK | UNMASK, INTX, 0, 1),
    set_irqs(0x40 | NONE | TRIGGER, INTX, 0, 1), set_irqs(BOOL | TRIGGER, MSIX, 0, 3, b"\1\1"),
    set_irqs(BOOL | TRIGGER, MSIX, 0, 3), set_irqs(NONE | MASK, INTX, 1, 1),
])  # fmt: skip
@pytest.mark.asyncio
async def test_a_request_that_makes_no_sense_is_refused(bench: Bench, body: bytes) -> None:
    async with bench.connect() as raw:
        assert await raw.refused(SET_IRQS, body) == errno.EINVAL
        await raw.alive()


@pytest.mark.parametrize(("sent", "count"), [(2, 1), (1, 2), (3, 0)])
@pytest.mark.asyncio
async def test_descriptors_that_do_not_match_the_count_are_refused_and_closed(
    bench: Bench, sent: int, count: int
) -> None:
    with eventfds(sent) as fds:
        async with bench.connect() as raw:
            before = bench.descriptors()
            assert await raw.refused(SET_IRQS, set_irqs(EVENTFD | TRIGGER, MSIX, 0, count), fds) == errno.EINVAL
            assert bench.leaked(before) == []


@pytest.mark.asyncio
async def test_descriptors_beside_data_none_are_refused_or_ignored_but_closed(bench: Bench) -> None:
    with eventfds(1) as fds:
        async with bench.connect() as raw:
            before = bench.descriptors()
            await raw.request(SET_IRQS, set_irqs(NONE | TRIGGER, MSIX, 0, 0), fds)
            assert bench.leaked(before) == []
            await raw.alive()


@pytest.mark.parametrize("kind", [INTX, MSI, MSIX, ERR])
@pytest.mark.asyncio
async def test_an_eventfd_that_is_full_and_made_to_block_stops_nobody(bench: Bench, kind: int) -> None:
    with eventfds(1) as (fd,):
        os.eventfd_write(fd, 0xFFFF_FFFF_FFFF_FFFE)
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, kind, 0, 1), [fd])
            os.set_blocking(fd, True)  # the client's: it shares the flag
            assert bench.interrupts.error() if kind == ERR else bench.interrupts.fire(0)
            await done(raw, set_irqs(NONE | TRIGGER, kind, 0, 1))
            await raw.alive()
        assert take(fd) >= 0xFFFF_FFFF_FFFF_FFFE


@pytest.mark.asyncio
async def test_a_descriptor_that_is_no_eventfd_is_refused_and_closed(bench: Bench) -> None:
    reading, writing = os.pipe()
    with eventfds(1) as (fd,):
        before = bench.descriptors()
        async with bench.connect() as raw:
            for given in ([writing, fd], [fd, writing]):
                assert await raw.refused(SET_IRQS, set_irqs(EVENTFD | TRIGGER, MSIX, 0, 2), given) == errno.EINVAL
                assert bench.leaked(before) == []
            assert bench.mode() == "none"
            await raw.alive()
    os.close(writing)
    os.close(reading)


@pytest.mark.asyncio
async def test_a_client_that_leaves_takes_its_eventfds_along(bench: Bench) -> None:
    with eventfds(2) as (intx, msix):
        before = bench.descriptors()
        async with bench.connect() as raw:
            await done(raw, set_irqs(EVENTFD | TRIGGER, INTX, 0, 1), [intx])
            await done(raw, set_irqs(EVENTFD | TRIGGER, MSIX, 0, 1), [msix])
        await bench.until(lambda: not bench.leaked(before))
        assert bench.mode() == "none"
        assert bench.interrupts.fire(0) is False
        bench.interrupts.intx_assert()
        assert (take(intx), take(msix)) == (0, 0)
