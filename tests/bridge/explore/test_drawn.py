"""The timeline of a failing order: the order that the card names, and what the device did about it."""

from __future__ import annotations

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.explore import Outcome, Property, Where, arrives_before, explore
from pyvfio_user.bridge.explore.drawn import draw
from pyvfio_user.bridge.explore.replay import RequestFails
from pyvfio_user.bridge.interconnect import (
    DEFAULT_LINK,
    PROFILES,
    Program,
    behaviours,
    burst,
    dma_write,
    dmb,
    load,
    msi,
    ram_load,
    speculative,
    store,
)
from pyvfio_user.bridge.timeline import How, Style, Timeline

from ..timeline.checks import check, in_lane, joined, labels
from .drivers import DOORBELL, WINDOW, Sender, send


def drawn(*arguments: object, **options: object) -> Timeline:
    found = explore(*arguments, **options)  # type: ignore[arg-type]
    assert found.card is not None
    check(found.card.timeline)
    return found.card.timeline


def test_it_is_the_order_of_the_card() -> None:
    timeline = drawn(send(dmb("ishst")), Sender)
    assert timeline.title == "the entry is whole when the doorbell rings"
    assert timeline.subtitle == "a legal order of arrival that breaks it, from all 8 legal behaviours; seed 0"
    assert [(lane.name, lane.how) for lane in timeline.lanes] == [
        ("vCPU 0", How.GIVEN),
        ("waiting 0", How.MODELLED),
        ("waiting 1", How.MODELLED),
        ("to the device", How.MODELLED),
        ("Sender", How.REPLAYED),
    ]
    assert labels(timeline, "vCPU 0") == [
        "0 store bar0+0x40 8",
        "1 store bar0+0x48 8",
        "2 dmb ishst",
        "3 store bar0+0x1000 4",
    ]
    assert labels(timeline, "to the device") == [
        "MWr bar0+0x40 2DW f/f",
        "MWr bar0+0x1000 1DW f/0",
        "MWr bar0+0x48 2DW f/f",
    ]
    # what is late waits while what overtook it goes
    (late,) = [box for box in timeline.boxes if box.style is Style.HELD and box.label == "bar0+0x48"]
    doorbell = in_lane(timeline, "to the device")[1]
    assert late.start < doorbell.start < late.end


def test_the_device_is_fed_until_it_fails() -> None:
    timeline = drawn(send(dmb("ishst")), Sender)
    first, second = in_lane(timeline, "Sender")
    assert (first.label, first.style) == ("write bar0+0x40 8", Style.HANDLER)
    assert (second.label, second.style) == ("write bar0+0x1000 4", Style.FAILED)
    assert second.details["raised"] == "AssertionError: the entry is whole when the doorbell rings"
    assert ("MWr bar0+0x1000 1DW f/0", "write bar0+0x1000 4") in joined(timeline)


def test_what_arrives_as_one_waits_together() -> None:
    timeline = drawn(
        Program.of(burst(WINDOW, 16), store(DOORBELL, 4, 1, type=NGNRE)),
        invariants=[Property("apart", lambda outcome: outcome.device.writes != [16, 4])],
        device=Sizes,
    )
    (held,) = [box for box in in_lane(timeline, "waiting 0") if box.label == "bar0+0x40"]
    assert held.details["had"] == "bar0+0x40 16"
    assert ("bar0+0x40", "MWr bar0+0x40 4DW f/f") in joined(timeline)


class Sizes:
    """Keeps how long each write was."""

    def __init__(self) -> None:
        self.writes: list[int] = []

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        self.writes.append(len(data))

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        return bytes(size)


def test_without_a_device_there_is_no_lane_for_one() -> None:
    timeline = drawn(send(), invariants=[arrives_before(Where(WINDOW, 16), Where(DOORBELL, 4), "in order")])
    assert [lane.name for lane in timeline.lanes][-1] == "to the device"
    assert timeline.title == "in order"


def test_reads_that_nobody_made_are_marked_and_answered() -> None:
    def alone(outcome: Outcome) -> bool:
        return bool(outcome.device.reads < 2)

    timeline = drawn(Program.of(speculative(0x100), load(0x200)), Reads, [Property("one read", alone)])
    speculated, made = in_lane(timeline, "vCPU 0")
    assert (speculated.style, made.style) == (Style.SPECULATIVE, Style.LOAD)
    assert len(labels(timeline, "to the host")) == 2
    assert sorted(labels(timeline, "Reads")) == ["read bar0+0x100 8", "read bar0+0x200 8"]


class Reads:
    """Counts reads."""

    def __init__(self) -> None:
        self.reads = 0

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        pass

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        self.reads += 1
        return bytes(size)


def test_a_load_that_is_answered_is_marked() -> None:
    program = Program.of(store(0x40, type=NORMAL_NC), load(0x40, type=NORMAL_NC))
    timeline = drawn(program, Reads, [Property("it arrives", lambda outcome: outcome.device.reads == 1)])
    box = in_lane(timeline, "vCPU 0")[1]
    assert (box.style, box.details["arrives"]) == (Style.ABSENT, "never: a write buffer answered it")


def test_the_link_is_the_profiles() -> None:
    program = Program.of(store(0x40, type=NORMAL_NC), store(0x1000, 4, 1, type=NGNRE))
    timeline = drawn(
        program, Sizes, [Property("whole", lambda outcome: 8 in outcome.device.writes)], profile=PROFILES["rc-splits-4"]
    )
    assert [label for label in labels(timeline, "to the device") if "+0x4" in label] == [
        "MWr bar0+0x40 1DW f/0",
        "MWr bar0+0x44 1DW f/0",
    ]


def test_what_the_device_sends_arrives_in_memory_and_as_an_interrupt() -> None:
    found = behaviours(Program.of(dma_write(0x4000), msi(3), ram_load(0x4000)))
    behaviour = next(iter(found))
    timeline = draw(found.effects, behaviour, DEFAULT_LINK, None, title="done", subtitle="")
    check(timeline)
    assert labels(timeline, "sent by the device") == ["store ram+0x4000 8", "store msi 4"]
    assert labels(timeline, "RAM, as DMA sees it") == ["ram+0x4000 8"]
    assert labels(timeline, "interrupts") == ["MSI 3"]
    assert ("msi", "MSI 3") in joined(timeline)


class Refuses:
    """Refuses its first request."""

    refused = False

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        if not self.refused:
            self.refused = True
            raise RequestFails

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        return bytes(size)


def test_a_request_that_the_device_refuses_is_marked_and_the_guest_goes_on() -> None:
    effects = behaviours(Program.of(store(0), store(8))).effects
    whole = draw(effects, (1, 2), DEFAULT_LINK, Refuses, title="", subtitle="")
    assert [(box.label, box.style) for box in in_lane(whole, "Refuses")] == [
        ("write bar0+0x0 8", Style.FAILED),
        ("write bar0+0x8 8", Style.HANDLER),
    ]
    assert in_lane(whole, "Refuses")[0].details["raised"] == "RequestFails: UR"
