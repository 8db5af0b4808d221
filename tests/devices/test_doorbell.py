"""Doorbells: trapped and mapped, with and without a handler."""

from __future__ import annotations

import asyncio

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.devices import Bar, Device, Doorbell, KiB, PciId, Registers

from .serving import attached

IDENTITY = PciId(vendor=0x1234, device=0x5678, class_code=0xFF0000)


@pytest.mark.parametrize(
    ("doorbell", "message"),
    [
        (Doorbell(0, count=0), "count of Block.bell must be at least 1, not 0"),
        (Doorbell(0, count=2, stride=2), "stride of Block.bell must be a multiple of its 4 bytes, not 2"),
        (Doorbell(0, count=2, stride=0), "stride of Block.bell must be a multiple of its 4 bytes, not 0"),
        (Doorbell(4, count=2, stride=-4), "stride of Block.bell must be a multiple of its 4 bytes, not -4"),
        (Doorbell(0, count=2, stride=6), "stride of Block.bell must be a multiple of its 4 bytes, not 6"),
        (Doorbell(0, width=5), "width of Block.bell must be 1, 2, 4 or 8 bytes, not 5"),
        (Doorbell(2), "offset of Block.bell must be a multiple of its 4 bytes, not 0x2"),
        (Doorbell(0, mapped=True, poll=0), "poll of Block.bell must be more than 0 seconds, not 0"),
        (
            Doorbell(0, mapped=True, record=True),
            "Block.bell must be trapped to be recorded, not mapped: its rings are no messages",
        ),
        (Doorbell(0x800, mapped=True), "offset of the mapped Block.bell must be a multiple of 4096, not 0x800"),
        (
            Doorbell(0, mapped=True, count=2, stride=64),
            "offset of the mapped Block.bell[1] must be a multiple of 4096, not 0x40",
        ),
    ],
)
def test_definition_errors(doorbell: Doorbell, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        type("Block", (Registers,), {"bell": doorbell, "__module__": __name__})
    assert str(caught.value) == message


class Plain(Registers):
    """Doorbells that nobody handles."""

    bell = Doorbell(0x10, count=2, stride=8, width=2, record=True)


class Silent(Device):
    """Only looks."""

    identity = IDENTITY
    bar0 = Bar(Plain, size=4 * KiB)


@pytest.mark.asyncio
async def test_a_doorbell_without_a_handler_keeps_its_value() -> None:
    device = Silent()
    async with attached(device) as client:
        await client.bars[0].write(0x18, 0x1234, 2)
        assert device.bar0.bell == (0, 0x1234)
        assert [(each.offset, each.data) for each in device.endpoint.recorder.drain()] == [(0x18, b"\x34\x12")]
        await client.reset()
        assert device.bar0.bell == (0, 0)


class Polled(Registers):
    """Doorbells in pages."""

    tail = Doorbell(0x0000, count=2, mapped=True, width=8)


class Poller(Device):
    """Looks at its doorbells; the second one's handler fails."""

    identity = IDENTITY
    bar0 = Bar(Polled, size=8 * KiB)

    def __init__(self) -> None:
        super().__init__()
        self.rings: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    @Polled.tail.rung
    def ring(self, index: int, value: int) -> None:
        self.rings.put_nowait((index, value))
        if index == 1:
            raise RuntimeError("cracked")


@pytest.mark.asyncio
async def test_mapped_doorbells_ring(caplog: pytest.LogCaptureFixture) -> None:
    device = Poller()
    async with attached(device) as client:
        page = client.mapped(0).cast("Q")
        page[512] = 0x1_0000_0001
        assert await asyncio.wait_for(device.rings.get(), 5) == (1, 0x1_0000_0001)
        page[0] = 5
        assert await asyncio.wait_for(device.rings.get(), 5) == (0, 5)
        assert device.bar0.tail == (5, 0x1_0000_0001)
        await client.reset()
        assert device.bar0.tail == (0, 0)
        page[0] = 6
        await client.config.set_memory_space(True)
        assert await asyncio.wait_for(device.rings.get(), 5) == (0, 6)
        page.release()
    assert [record.getMessage() for record in caplog.records if record.name == "pyvfio_user.devices"] == [
        "Poller: handler of Polled.tail[1] at 0x1000 raised for value 0x100000001"
    ]
