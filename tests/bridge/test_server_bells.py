"""Doorbells in mapped pages: the hot path looks at them, and tells what it found together."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from pyvfio_user.bridge.bells import MappedBells
from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.loop import Poller
from pyvfio_user.bridge.regions import Region

from .bench import MEMORY, Bench

OFTEN = 0.0001
ROUNDS = 3000


@asynccontextmanager
async def watched(
    width: int, offsets: list[int], rung: Callable[[int, int], None], *, interval: float = OFTEN
) -> AsyncIterator[tuple[memoryview, MappedBells]]:
    """A page's doorbells, which the running loop's poller looks at."""
    region = Region(4096, mapped=[(0, 4096)])
    bells = MappedBells(region, offsets, width, rung)
    bells.watch(Poller.of(asyncio.get_running_loop()), interval)
    try:
        yield region.memory, bells
    finally:
        bells.unwatch()


@pytest.mark.parametrize(("width", "form"), [(1, "B"), (2, "H"), (4, "I"), (8, "Q")])
@pytest.mark.asyncio
async def test_a_store_of_each_width_rings(width: int, form: str) -> None:
    rings: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    ones = (1 << 8 * width) - 1
    watching = watched(width, [0, 4096 - width], lambda *ring: rings.put_nowait(ring))
    async with watching as (memory, _), asyncio.timeout(9):
        cells = memory.cast(form)  # type: ignore[call-overload]
        cells[-1] = ones
        assert await rings.get() == (1, ones)
        cells[0] = 1
        assert await rings.get() == (0, 1)
        cells[0] = 0
        assert await rings.get() == (0, 0)
        cells[1] = 7  # no doorbell, but for the neighbour of the last
        cells[-1] = 1
        assert await rings.get() == (1, 1)
        assert rings.empty()


@pytest.mark.asyncio
async def test_what_one_look_finds_rings_in_order_without_another_turn_of_the_loop() -> None:
    turns = 0
    found: list[tuple[int, int, int]] = []
    all_found = asyncio.Event()

    def rung(number: int, value: int) -> None:
        found.append((number, value, turns))
        if len(found) == 40:
            all_found.set()

    async with watched(4, [*range(0, 160, 4)], rung) as (memory, _), asyncio.timeout(9):
        cells = memory.cast("I")
        for number in reversed(range(40)):
            cells[number] = number + 1
        while not all_found.is_set():
            turns += 1
            await asyncio.sleep(0)
    assert [ring[:2] for ring in found] == [(number, number + 1) for number in range(40)]
    assert len({turn for *_, turn in found}) == 1


@pytest.mark.asyncio
async def test_many_doorbells_all_get_their_turn_while_each_is_rung_again_at_once() -> None:
    """200 of them, of which 64 at most are told at a time."""
    counts = [0] * 200
    done = asyncio.Event()

    def rung(number: int, value: int) -> None:
        counts[number] += 1
        cells[number] = value + 1
        if min(counts) >= 3:
            done.set()

    async with watched(4, [*range(0, 800, 4)], rung) as (memory, _), asyncio.timeout(9):
        cells = memory.cast("I")
        for number in range(200):
            cells[number] = 1
        await done.wait()
    assert max(counts) - min(counts) <= 64


@pytest.mark.asyncio
async def test_doorbells_of_two_devices_take_turns() -> None:
    counts = [0, 0]
    done = asyncio.Event()

    def again(which: int) -> Callable[[int, int], None]:
        def rung(number: int, value: int) -> None:
            counts[which] += 1
            cells[which][0] = value % 100 + 1
            if min(counts) >= 100:
                done.set()

        return rung

    async with watched(4, [0], again(0)) as (one, _), watched(4, [0], again(1)) as (two, _), asyncio.timeout(9):
        cells = [one.cast("I"), two.cast("I")]
        cells[0][0] = cells[1][0] = 1
        await done.wait()
    assert max(counts) <= 2 * min(counts)


@pytest.mark.asyncio
async def test_a_bell_that_rings_all_the_time_holds_up_neither_clients_nor_timers(bench: Bench) -> None:
    count = most = before = 0

    def rung(number: int, value: int) -> None:
        nonlocal count
        count += 1
        cells[0] = value % 100 + 1

    async with watched(4, [0], rung) as (memory, _), Client.connect(bench.path) as client, asyncio.timeout(30):
        cells = memory.cast("I")
        cells[0] = 1
        for turn in range(20):
            await client.bars[0].write(MEMORY, turn, 4)
            assert await client.bars[0].read(MEMORY, 4) == turn
            before = count
            await asyncio.sleep(0.001)
            most = max(most, count - before)
    assert count > 20
    assert most < ROUNDS


@pytest.mark.asyncio
async def test_a_reset_is_no_ring_and_forgets_one() -> None:
    rings: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    async with watched(4, [0, 4], lambda *ring: rings.put_nowait(ring)) as (memory, bells), asyncio.timeout(9):
        cells = memory.cast("I")
        cells[0] = 5
        assert await rings.get() == (0, 5)
        cells[1] = 6
        bells.reset()
        assert (cells[0], cells[1]) == (0, 0)
        cells[0] = 5  # the value of before is another one than 0
        assert await rings.get() == (0, 5)
        bells.unwatch()
        cells[1] = 7
        bells.watch(Poller.of(asyncio.get_running_loop()), OFTEN)
        assert await rings.get() == (1, 7)
        assert rings.empty()


@pytest.mark.parametrize(
    ("size", "offsets", "width"),
    [
        (4096, [0, 2], 4),
        (4096, [4096], 4),
        (4094, [4092], 4),
        (3, [0], 4),
        (4096, [(1 << 64) - 4], 4),
        (4096, [], 4),
        (4096, [0], 3),
    ],
)
@pytest.mark.asyncio
async def test_doorbells_must_lie_in_their_region(size: int, offsets: list[int], width: int) -> None:
    bells = MappedBells(Region(size), offsets, width, lambda *_: None)
    with pytest.raises(OSError) as caught:
        bells.watch(Poller.of(asyncio.get_running_loop()), OFTEN)
    assert caught.value.errno == errno.EINVAL
    bells.unwatch()


def test_the_poller_may_go_first() -> None:
    bells = MappedBells(Region(4096), [0], 4, lambda *_: None)
    poller = Poller()
    poller.watch_bells(bells, bells.native, OFTEN)
    del poller  # nothing else refers to it
    bells.reset()
    bells.watch(Poller(), OFTEN)
    bells.unwatch()
