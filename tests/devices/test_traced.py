"""A served device behind an interconnect that reorders by labels: what is done with each kind of them, and without."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC, MemoryType
from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.explore.labels import Labels
from pyvfio_user.bridge.explore.traced import Traced
from pyvfio_user.bridge.interconnect import dmb
from pyvfio_user.bridge.ring import Ring
from pyvfio_user.bridge.stream import EVENT, Event, Flag, Kind, pack
from pyvfio_user.devices import Bar, Device, KiB, Memory, PciId, WriteCombineWindow

from .serving import attached

FUNCTION = 16 << 3


class Witness(Device):
    """Says what it saw: writes as (offset, first byte), reads as (offset, None)."""

    identity = PciId(vendor=0x1234, device=0x0002, class_code=0xFF0000)
    bar0 = Bar(WriteCombineWindow(8 * KiB))
    bar2 = Bar(Memory(4 * KiB, mapped=True), prefetchable=True)


class Tracer:
    """Writes events as the plugin does."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._sequence = 0
        descriptor = os.open(ring.path, os.O_RDWR)
        self._map = mmap.mmap(descriptor, 0)
        os.close(descriptor)

    def tell(self, *events: Event) -> None:
        for event in events:
            at = 7 * 4096 + self._sequence * EVENT.size
            self._sequence += 1
            self._map[at : at + EVENT.size] = pack(event._replace(sequence=self._sequence))

    def lose(self) -> None:
        self.tell(Event(Kind.LOST, size=1))


@dataclass
class Bench:
    """A device, its client, the tracer of what the client does, and what the device saw."""

    front: Traced
    client: Client
    tracer: Tracer
    seen: list[tuple[int, int | None]]

    async def store(self, offset: int, value: int, kind: MemoryType | None = NORMAL_NC, *, vcpu: int = 0) -> None:
        """QEMU sends the access, then the tracer has its label."""
        await self.client.bars[0].write(offset, value, 8)
        self.label(offset, value, kind, vcpu=vcpu)

    def label(
        self, offset: int, value: int, kind: MemoryType | None = NORMAL_NC, *, vcpu: int = 0, what: Kind = Kind.STORE
    ) -> None:
        data = value.to_bytes(8, "little") if what is not Kind.LOAD else b""
        flags = Flag.NO_DATA if what is Kind.LOAD else Flag.NONE
        event = Event(what, offset, 8, data, bar=0, type=kind, peripheral=FUNCTION, vcpu=vcpu, flags=flags)
        self.tracer.tell(event)

    async def load(self, offset: int, kind: MemoryType | None = NORMAL_NC) -> int:
        value = await self.client.bars[0].read(offset, 8)
        self.label(offset, 0, kind, what=Kind.LOAD)
        return value


@contextlib.asynccontextmanager
async def bench(seed: int, *, wait: float = 60, speculate: float = 0.0) -> AsyncIterator[Bench]:
    seen: list[tuple[int, int | None]] = []
    with Ring(1 << 10) as ring:
        front = Traced(Witness(), Labels(ring), FUNCTION, seed=seed, wait=wait, speculate=speculate)
        write, read = front._direct.write, front._direct.read

        def noted_write(bar: int, offset: int, data: bytes) -> None:
            seen.append((offset, data[0]))
            write(bar, offset, data)

        def noted_read(bar: int, offset: int, size: int) -> bytes:
            seen.append((offset, None))
            return read(bar, offset, size)

        front._direct.write, front._direct.read = noted_write, noted_read  # type: ignore[method-assign]
        async with attached(front) as client:
            yield Bench(front, client, Tracer(ring), seen)


WRITES = [(8 * at, at + 1) for at in range(6)]


async def six(on: Bench, *between: Event, kind: MemoryType | None = NORMAL_NC) -> list[tuple[int, int | None]]:
    """Six stores, the events between the third and the fourth; what the device saw when all has arrived."""
    for offset, value in WRITES:
        if offset == 24:
            on.tracer.tell(*between)
        await on.store(offset, value, kind)
    await on.client.bars[0].read(0x1000, 8)  # all that was sent is received
    on.front.settle()
    return [each for each in on.seen if each[0] != 0x1000]


SEEDS = range(12)
SYNC = dmb("oshst")


@pytest.mark.asyncio
async def test_what_the_label_permits_happens_with_some_seed() -> None:
    orders = []
    for seed in SEEDS:
        async with bench(seed) as on:
            orders.append(await six(on))
            assert bytes(on.front.device.bar0.memory[:48:8]) == bytes(range(1, 7))  # type: ignore[attr-defined]
            assert (on.front.tally.accesses, on.front.tally.in_order) == (6, 1)
    assert any(order != WRITES for order in orders)
    assert any(len(order) < 6 for order in orders)  # some were gathered


@pytest.mark.asyncio
async def test_barriers_are_labels_too() -> None:
    for seed in SEEDS:
        async with bench(seed) as on:
            seen = await six(on, *SYNC)
            first = [offset < 24 for offset, _ in seen]
            assert first == sorted(first, reverse=True)
            assert 24 in [offset for offset, _ in seen]  # nothing is gathered across


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [NGNRE, None])
async def test_strong_and_unknown_types_keep_the_order(kind: MemoryType | None) -> None:
    for seed in SEEDS:
        async with bench(seed) as on:
            assert await six(on, kind=kind) == WRITES


@pytest.mark.asyncio
async def test_what_has_no_label_is_done_in_order() -> None:
    async with bench(1) as on:
        for offset, value in WRITES:
            await on.client.bars[0].write(offset, value, 8)
        await on.client.bars[0].read(0x1000, 8)
        assert on.seen == [*WRITES, (0x1000, None)]
        assert (on.front.tally.accesses, on.front.tally.in_order) == (0, 7)


@pytest.mark.asyncio
async def test_what_gets_no_label_in_time_arrives_without() -> None:
    async with bench(1, wait=0.01) as on:
        await on.client.bars[0].write(0, 7, 8)
        while not on.seen:
            await asyncio.sleep(0)
        assert (on.seen, on.front.tally.in_order) == ([(0, 7)], 1)


@pytest.mark.asyncio
async def test_a_label_may_come_late() -> None:
    orders = []
    for seed in SEEDS:
        async with bench(seed) as on:
            for offset, value in WRITES:
                await on.client.bars[0].write(offset, value, 8)
            while len(on.front._posted) < 6:
                await asyncio.sleep(0)
            assert on.seen == []
            for offset, value in WRITES:
                on.label(offset, value)
            while on.front._posted:
                await asyncio.sleep(0)
            on.front.settle()
            orders.append(on.seen)
    assert any(order != WRITES for order in orders)


@pytest.mark.asyncio
async def test_a_store_that_qemu_keeps_holds_nothing_up() -> None:
    """As to the table of MSI-X: it has a label, and no message."""
    async with bench(1) as on:
        on.label(0x800, 1)
        await six(on)
        assert (on.front.tally.accesses, on.front.tally.in_order) == (6, 1)


@pytest.mark.asyncio
async def test_writes_arrive_in_finite_time() -> None:
    async with bench(1, wait=0.001) as on:
        for seed in range(1, 256):
            on.front.live._seed = seed
            await on.store(0, seed)
            if seed % 19:
                continue
            while on.front._posted or on.front.live.waiting:
                await asyncio.sleep(0)
            assert on.front.device.bar0.memory[0] == seed  # type: ignore[attr-defined]
            if on.front.tally.pauses:  # on a slow machine labels can be late, and what waited arrives with them
                return
        raise AssertionError("a store must wait for a pause, of 247")


@pytest.mark.asyncio
async def test_one_cpu_s_accesses_let_another_s_arrive_first() -> None:
    for seed in SEEDS:
        async with bench(seed) as on:
            for offset, value in WRITES:
                await on.store(offset, value, vcpu=offset // 24)
            await on.client.bars[0].read(0, 8)
            assert {offset for offset, _ in on.seen[: _until(on.seen, 24)]} <= {0, 8, 16}
            assert on.seen[-1] == (0, None)  # whose load it is is not known


def _until(seen: list[tuple[int, int | None]], offset: int) -> int:
    return next(at for at, (each, _) in enumerate(seen) if each >= offset)


@pytest.mark.asyncio
async def test_a_load_goes_by_the_type_that_its_page_had() -> None:
    async def orders(kind: MemoryType, *, known: bool) -> set[int]:
        """The place that the load has, of eight seeds' runs."""
        found = set()
        for seed in range(30):
            async with bench(seed) as on:
                if known:
                    await on.load(0x1000, kind)
                await on.store(0, 1)
                await on.load(0x1000, kind)
                assert on.front.tally.mistaken == 0
                reads = [at for at, (offset, _) in enumerate(on.seen) if offset == 0x1000]
                writes = [at for at, (offset, _) in enumerate(on.seen) if offset == 0]
                found.add(reads[-1] - (writes[0] if writes else len(on.seen)))
        return found

    assert await orders(NORMAL_NC, known=True) == {-1, 1}
    assert await orders(NGNRE, known=True) == {-1, 1}  # nR orders nothing against R
    assert await orders(NGNRE, known=False) == {1}


@pytest.mark.asyncio
async def test_a_load_of_another_type_than_before_is_counted() -> None:
    async with bench(1) as on:
        await on.load(0, NORMAL_NC)
        await on.load(0, NGNRE)
        await on.load(0, NGNRE)
        on.front.settle()
        assert on.front.tally.mistaken == 1
        assert on.front.tally.in_order == 2  # the first, and the last: the type is not always the same


@pytest.mark.asyncio
async def test_where_labels_are_missing_all_arrives() -> None:
    for seed in SEEDS:
        async with bench(seed) as on:
            seen = await six(on, Event(Kind.LOST, size=3))
            first = [offset < 24 for offset, _ in seen]
            assert first == sorted(first, reverse=True)


@pytest.mark.asyncio
@pytest.mark.parametrize(("kind", "any_read"), [(NORMAL_NC, True), (NGNRE, False)])
async def test_reads_that_nobody_made(kind: MemoryType, any_read: bool) -> None:
    async with bench(1, speculate=0.5) as on:
        for offset, value in WRITES * 4:
            await on.store(offset, value, kind)
        await on.client.bars[0].read(0x1000, 8)
        reads = [offset for offset, value in on.seen[:-1] if value is None]
        assert bool(reads) is any_read is bool(on.front.tally.speculated)
        assert all(offset < 0x1000 for offset in reads)


@pytest.mark.asyncio
async def test_data_that_no_label_has_are_the_messages_own() -> None:
    """As of CPY*: one label for all of it."""
    async with bench(1) as on:
        for offset, value in WRITES:
            await on.client.bars[0].write(offset, value, 8)
        flags = Flag.NO_DATA | Flag.MOPS
        on.tracer.tell(Event(Kind.STORE, 0, 48, bar=0, type=NORMAL_NC, peripheral=FUNCTION, flags=flags))
        await on.client.bars[0].read(0x1000, 8)
        assert bytes(on.front.device.bar0.memory[:48:8]) == bytes(range(1, 7))  # type: ignore[attr-defined]
        assert on.front.tally.accesses == 6


@pytest.mark.asyncio
async def test_a_reset_loses_what_waits() -> None:
    for seed in SEEDS:
        async with bench(seed) as on:
            await on.store(0, 7)
            await on.client.bars[2].read(0, 8)
            waited = on.front.live.waiting or bool(on.front._posted)
            await on.client.reset()
            on.front.settle()
            assert on.front.device.bar0.memory[0] == (0 if waited else 7)  # type: ignore[attr-defined]


@pytest.mark.asyncio
@pytest.mark.parametrize("labelled", [True, False])
async def test_a_client_that_leaves_loses_nothing_that_it_posted(labelled: bool) -> None:
    """Its last doorbell too, be there a label or not."""
    for seed in SEEDS:
        async with bench(seed) as on:
            for offset, value in WRITES:
                await on.store(offset, value) if labelled else await on.client.bars[0].write(offset, value, 8)
        assert bytes(on.front.device.bar0.memory[:48:8]) == bytes(range(1, 7))  # type: ignore[attr-defined]
        assert (on.front.tally.accesses, on.front.tally.in_order) == ((6, 0) if labelled else (0, 6))


@pytest.mark.asyncio
async def test_the_same_seed_and_accesses_are_the_same_run() -> None:
    async def digests(seed: int, *between: Event) -> tuple[str, str]:
        async with bench(seed) as on:
            await six(on, *between)
            return on.front.tally.made, on.front.tally.arrived

    first, again, other = await digests(3), await digests(3), await digests(4)
    assert first == again
    assert first[1] != other[1]
    assert (await digests(3, *SYNC))[0] != first[0]


@pytest.mark.asyncio
async def test_mapped_regions_stay_mapped() -> None:
    async with bench(1) as on:
        assert on.front.endpoint.regions[2] is on.front.device.endpoint.regions[2]
