"""Timelines with a device of the kit: its handlers and interrupts, in process and served."""

from __future__ import annotations

import asyncio

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.explore import Property, explore
from pyvfio_user.bridge.explore.drawn import draw_run
from pyvfio_user.bridge.explore.served import Assumed, Reordered
from pyvfio_user.bridge.explore.watched import Watch
from pyvfio_user.bridge.inprocess import InProcess
from pyvfio_user.bridge.interconnect import Profile, Program, burst, dmb, store
from pyvfio_user.bridge.timeline import How, LaneKind, Style, Timeline
from pyvfio_user.devices import Bar, Device, DmaError, Doorbell, MsiX, PciId, Register, Registers, WriteCombineWindow
from pyvfio_user.devices.upcase import Upcase

from ..bridge.timeline.checks import check, in_lane, joined, labels
from .serving import RAM, attached

WINDOW, BELL = Assumed(2, 0, 4096, NORMAL_NC), Assumed(0, 0, 4, NGNRE)


class Control(Registers):
    """A doorbell for a task, one that is done at once, and one that fails."""

    bell = Doorbell(0x00)
    quick = Register(0x08)
    wrong = Register(0x10)
    seen = Register(0x18)


class Nic(Device):
    """Takes the window when the doorbell rings, and interrupts."""

    identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    bar2 = Bar(WriteCombineWindow(4096), prefetchable=True)
    msix = MsiX(2)
    entry = b""

    @Control.bell.rung
    async def send(self, index: int, value: int) -> None:
        self.entry = bytes(self.bar2.memory[:16])
        await asyncio.sleep(0)
        self.interrupts.fire(1)

    @Control.quick.on_write
    def now(self, value: int) -> None:
        self.interrupts.fire(0)

    @Control.wrong.on_write
    def fail(self, value: int) -> None:
        raise ValueError("no")

    @Control.seen.on_read
    def look(self) -> int:
        return 5

    def on_reset(self) -> None:
        self.entry = b""


def chain(timeline: Timeline, label: str) -> list[str]:
    """What led to a box, the nearest first, as long as it is one thing."""
    (at,) = [number for number, box in enumerate(timeline.boxes) if box.label == label]
    found: list[str] = []
    while sources := [arrow.source for arrow in timeline.arrows if arrow.target == at]:
        (at,) = sources
        found.append(timeline.boxes[at].label)
    return found


def test_a_task_is_drawn_as_the_doing_of_the_write_that_asked_for_it() -> None:
    program = Program.of(burst(0, 16, bar=2), store(0, 4, 1, type=NGNRE))
    with InProcess(Nic()) as device:
        whole = Property("whole", lambda outcome: 0 not in outcome.device.entry)
        card = explore(program, device.restarted, [whole]).card
        assert device.device.endpoint.observer is None
    assert card is not None
    timeline = card.timeline
    check(timeline)
    (handler,) = in_lane(timeline, "Nic")
    assert (handler.label, handler.style) == ("send of Control.bell[0] 0x1", Style.HANDLER)
    assert handler.details == {"handler": "send of Control.bell[0]", "value": "0x1"}
    assert labels(timeline, "interrupts") == ["interrupt 1, not sent"]  # nobody enabled any in process
    assert chain(timeline, "interrupt 1, not sent") == [
        "send of Control.bell[0] 0x1",
        "MWr bar0+0x0 1DW f/0",
        "bar0+0x0",
        "2 store bar0+0x0 4",
    ]


def test_a_profile_s_run_is_drawn_from_the_store_to_the_interrupt() -> None:
    program = Program.of(burst(0, 64, bar=2), dmb("oshst"), store(0, 4, 1, type=NGNRE))
    with InProcess(Nic()) as device:
        timeline = draw_run(program, Profile("exact", drain=0.0), 0, device.restarted, title="push")
        assert device.device.entry == bytes(range(1, 17))  # type: ignore[attr-defined]
    check(timeline)
    assert [(lane.name, lane.how, lane.capacity) for lane in timeline.lanes] == [
        ("vCPU 0", How.GIVEN, 0),
        ("buffer 0", How.MODELLED, 64),
        ("waiting 0", How.MODELLED, 0),
        ("to the device", How.MODELLED, 0),
        ("Nic", How.REPLAYED, 0),
        ("interrupts", How.REPLAYED, 0),
    ]
    assert labels(timeline, "to the device") == ["MWr bar2+0x0 16DW f/f", "MWr bar0+0x0 1DW f/0"]
    assert [fill.bytes for fill in timeline.fills if fill.lane == 1] == [8, 16, 24, 32, 40, 48, 56, 64, 0]
    assert chain(timeline, "interrupt 1, not sent") == [
        "send of Control.bell[0] 0x1",
        "MWr bar0+0x0 1DW f/0",
        "bar0+0x0",
        "store bar0+0x0 4",
    ]


async def served(seed: int, watch: Watch) -> Timeline:
    front = Reordered(Nic(), [WINDOW, BELL], seed=seed, wait=60, watch=watch)
    async with attached(front) as client:
        await client.config.enable_msix()
        await client.bars[2].write(0, 0x0101_0101_0101_0101, 8)
        await client.bars[2].write(8, 0x0202_0202_0202_0202, 8)
        await client.bars[0].write(0, 1, 4)
        front.settle()
        await asyncio.wait_for(client.msix[1].wait(), 5)
        await client.bars[0].write(8, 7, 4)
        await asyncio.wait_for(client.msix[0].wait(), 5)
        assert await client.bars[0].read(0x18, 4) == 5
    timeline = watch.timeline()
    check(timeline)
    return timeline


@pytest.mark.asyncio
async def test_a_served_run_is_drawn_from_the_store_to_the_interrupt() -> None:
    timeline = await served(3, Watch("Nic", "seed 3"))
    assert [(lane.kind, lane.how) for lane in timeline.lanes if lane.kind is not LaneKind.BUFFER] == [
        (LaneKind.VCPU, How.SEEN),
        (LaneKind.LINK, How.MODELLED),
        (LaneKind.LINK, How.MODELLED),
        (LaneKind.DEVICE, How.SEEN),
        (LaneKind.INTERRUPT, How.SEEN),
    ]
    assert labels(timeline, "vCPU 0") == [
        "store bar2+0x0 8",
        "store bar2+0x8 8",
        "store bar0+0x0 4",
        "store bar0+0x8 4",
        "load bar0+0x18 4",
    ]
    assert [box.tag for box in in_lane(timeline, "vCPU 0")] == ["NC", "NC", "nGnRE", "unknown", "unknown"]
    assert chain(timeline, "MSI-X 1") == [
        "send of Control.bell[0] 0x1",
        "MWr bar0+0x0 1DW f/0",
        "bar0+0x0",
        "store bar0+0x0 4",
    ]
    # of the other registers nothing is assumed: past all that waits
    assert chain(timeline, "MSI-X 0") == ["Control.quick 0x7", "MWr bar0+0x8 1DW f/0", "store bar0+0x8 4"]
    assert chain(timeline, "Control.seen") == ["MRd bar0+0x18 1DW f/0", "load bar0+0x18 4"]
    assert ("MRd bar0+0x18 1DW f/0", "CplD bar0+0x18 1DW 4 left") in joined(timeline)


class Copier(Device):
    """Copies in guest memory, at once and in pieces, and reads what is not there; or has a thread write."""

    identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    msix = MsiX(1)

    @Control.quick.on_write
    def copy(self, value: int) -> None:
        self.memory.scatter([(RAM + 0x100, 2), (RAM + 0x200, 6)], self.memory.read_mapped(RAM, 8))
        with pytest.raises(DmaError):
            self.memory.read_mapped(0, 8)

    @Control.bell.rung
    async def elsewhere(self, index: int, value: int) -> None:
        await asyncio.to_thread(self.memory.write_mapped, RAM, b"elsewhere")
        self.memory.write_mapped(RAM + 0x300, b"done")
        self.interrupts.fire()


@pytest.mark.parametrize("shared", [True, False], ids=["mapped", "by messages"])
@pytest.mark.asyncio
async def test_what_a_served_device_reads_and_writes_in_ram_is_drawn(shared: bool) -> None:
    watch = Watch("Upcase", "")
    front = Reordered(Upcase(), [Assumed(0, 0, 4096, NGNRE)], seed=1, wait=60, watch=watch)
    async with attached(front, shared=shared) as client:
        await client.config.enable_msix()
        for offset, value, size in ((0x00, RAM, 8), (0x08, 5, 2), (0x10, 1, 4)):
            await client.bars[0].write(offset, value, size)
        front.settle()
        await asyncio.wait_for(client.msix[0].wait(), 5)
    timeline = watch.timeline()
    check(timeline)
    assert labels(timeline, "DMA") == ["read ram+0x40000000 5", "write ram+0x40000000 5"]
    assert [box.style for box in in_lane(timeline, "DMA")] == [Style.LOAD, Style.MEMORY]
    assert [(lane.kind, lane.how) for lane in timeline.lanes][-3:] == [
        (LaneKind.DEVICE, How.SEEN), (LaneKind.DMA, How.SEEN), (LaneKind.INTERRUPT, How.SEEN)
    ]  # fmt: skip
    handler = ["capitalise of Control.ring[0] 0x1", "MWr bar0+0x10 1DW f/0", "bar0+0x10", "store bar0+0x10 4"]
    assert chain(timeline, "write ram+0x40000000 5") == chain(timeline, "MSI-X 0") == handler


@pytest.mark.asyncio
async def test_dma_in_pieces_is_one_and_what_fails_or_another_thread_does_is_none() -> None:
    watch = Watch("Copier", "")
    front = Reordered(Copier(), [], seed=1, wait=60, watch=watch)
    async with attached(front) as client:
        await client.config.enable_msix()
        await client.bars[0].write(0x08, 1, 4)
        await client.bars[0].write(0x00, 1, 4)
        await asyncio.wait_for(client.msix[0].wait(), 5)
    timeline = watch.timeline()
    check(timeline)
    found = [(box.label, box.details) for box in in_lane(timeline, "DMA")]
    assert found == [
        ("read ram+0x40000000 8", {}),
        ("write ram+0x40000100 8 in 2 pieces", {"pieces": "0x40000100 2, 0x40000200 6"}),
        ("write ram+0x40000300 4", {}),
    ]


@pytest.mark.asyncio
async def test_the_seed_decides_what_is_drawn() -> None:
    def sent(timeline: Timeline) -> tuple[str, ...]:
        return tuple(labels(timeline, "to the device")[:-2])

    found = [sent(await served(seed, Watch("Nic", ""))) for seed in range(12)]
    assert found == [sent(await served(seed, Watch("Nic", ""))) for seed in range(12)]
    assert len(set(found)) > 3
    assert ("MWr bar2+0x0 4DW f/f", "MWr bar0+0x0 1DW f/0") in found


@pytest.mark.asyncio
async def test_what_is_too_much_is_counted_with_all_that_comes_of_it() -> None:
    timeline = await served(3, Watch("Nic", "", most=2))
    assert (timeline.events, timeline.left_out) == (2, 3)
    assert labels(timeline, "vCPU 0") == ["store bar2+0x0 8", "store bar2+0x8 8"]
    assert all("bar2" in label for label in labels(timeline, "to the device"))
    assert {lane.kind for lane in timeline.lanes} & {LaneKind.DEVICE, LaneKind.INTERRUPT} == set()


@pytest.mark.asyncio
async def test_a_handler_that_raises_is_marked() -> None:
    watch = Watch("Nic", "")
    async with attached(Reordered(Nic(), [], seed=0, watch=watch)) as client:
        with pytest.raises(OSError):
            await client.bars[0].write(0x10, 1, 4)
    timeline = watch.timeline()
    check(timeline)
    (box,) = in_lane(timeline, "Nic")
    assert (box.label, box.style, box.details["raised"]) == ("Control.wrong 0x1", Style.FAILED, "ValueError: no")


@pytest.mark.asyncio
async def test_a_reset_ends_what_waits() -> None:
    for seed in range(6):
        watch = Watch("Nic", "")
        front = Reordered(Nic(), [WINDOW], seed=seed, wait=60, watch=watch)
        async with attached(front) as client:
            await client.bars[2].write(0, 7, 8)
            waited = front.live.waiting
            await client.reset()
        timeline = watch.timeline()
        check(timeline)
        (box,) = [each for each in timeline.boxes if each.style is Style.HELD]
        assert box.details["left because"] == (
            "the device was reset: it never arrives" if waited else "the seed chose it"
        )
