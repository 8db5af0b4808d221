"""A served device behind an interconnect that reorders: the client is a real one, and the seed decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.client_link import VfioUserError
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore.served import Assumed, Reordered
from pyvfio_user.devices import Bar, Device, Doorbell, PciId, Register, Registers, WriteCombineWindow
from pyvfio_user.devices.upcase import Upcase

from .serving import RAM, attached

WINDOW = Assumed(2, 0, 4096, NORMAL_NC)
BELL = Assumed(0, 0, 16, NGNRE)


class Control(Registers):
    """A doorbell, and how many entries were sent."""

    bell = Doorbell(0x00)
    sent = Register(0x08)


class Sender(Device):
    """Takes the 32 bytes in the window when the doorbell rings."""

    identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    bar2 = Bar(WriteCombineWindow(4096), prefetchable=True)

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []

    @Control.bell.rung
    def take(self, index: int, value: int) -> None:
        self.taken.append(bytes(self.bar2.memory[:32]))
        self.bar0.sent += 1


async def sent(seed: int, types: Sequence[Assumed], *, wait: float = 60) -> bytes:
    """What the device took, after a driver wrote four times 8 bytes, rang, and read back."""
    device = Sender()
    async with attached(Reordered(device, types, seed=seed, wait=wait)) as client:
        for at in range(4):
            await client.bars[2].write(8 * at, 0x0101_0101_0101_0101 * (at + 1), 8)
        await client.bars[0].write(0x00, 1, 4)
        assert await client.bars[0].read(0x08, 4) == 1  # on nGnRE, so that the doorbell is there
    (entry,) = device.taken
    return entry


WHOLE = b"".join(bytes([at] * 8) for at in (1, 2, 3, 4))


@pytest.mark.asyncio
async def test_a_driver_without_a_barrier_breaks_with_some_seeds() -> None:
    found = [await sent(seed, [WINDOW, BELL]) for seed in range(30)]
    assert WHOLE in found
    assert any(entry != WHOLE for entry in found)
    assert found[:10] == [await sent(seed, [WINDOW, BELL]) for seed in range(10)]


@pytest.mark.asyncio
async def test_a_driver_with_a_barrier_works_with_all() -> None:
    types = [WINDOW, BELL._replace(barrier=True)]
    assert {await sent(seed, types) for seed in range(30)} == {WHOLE}


@pytest.mark.asyncio
async def test_strong_types_and_ranges_that_are_not_named_stay_in_order() -> None:
    strong = [WINDOW._replace(type=NGNRE), BELL]
    assert {await sent(seed, types) for seed in range(10) for types in (strong, [])} == {WHOLE}


@pytest.mark.asyncio
async def test_writes_arrive_in_finite_time() -> None:
    device = Sender()
    front = Reordered(device, [WINDOW], seed=1, wait=0.001)
    async with attached(front) as client:
        await client.bars[2].write(0, 7, 8)
        while front.live.waiting:
            await asyncio.sleep(0)
        assert device.bar2.memory[0] == 7


@pytest.mark.asyncio
async def test_a_reset_loses_what_waits() -> None:
    for seed in range(10):
        device = Sender()
        front = Reordered(device, [WINDOW], seed=seed, wait=60)
        async with attached(front) as client:
            await client.bars[2].write(0, 7, 8)
            waited = front.live.waiting
            await client.reset()
            front.settle()
            assert device.bar2.memory[0] == (0 if waited else 7)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(5))
async def test_dma_and_interrupts_are_the_device_s_own(seed: int) -> None:
    async with attached(Reordered(Upcase(), [Assumed(0, 0, 4096, NGNRE)], seed=seed, wait=0.001)) as client:
        await client.config.enable_msix()
        ram = client.memories[0].memory
        ram[:5] = b"hello"
        await client.bars[0].write(0x00, RAM, 8)
        await client.bars[0].write(0x08, 5, 2)
        await client.bars[0].write(0x10, 1, 4)
        await asyncio.wait_for(client.msix[0].wait(), 5)
        assert bytes(ram[:5]) == b"HELLO"


class Touchy(Device):
    """Does not take a 13 as its register's value, and cannot be read then; a doorbell has it read its client's RAM."""

    class Control(Registers):
        """Two values, of which the first is looked at; and a doorbell."""

        first = Register(0x00)
        rest = Register(0x08, width=8)
        bell = Doorbell(0x10)

    identity = PciId(vendor=0x1234, device=0x0003, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    text = b""

    @Control.first.on_write
    def refuse(self, value: int) -> None:
        if value == 13:
            raise ValueError("13")

    @Control.first.on_read
    def refuse_to_say(self) -> int:
        if self.bar0.first == 13:
            raise ValueError("still 13")
        return self.bar0.first

    @Control.bell.rung
    def fetch(self, index: int, value: int) -> None:
        self.text = self.memory.read_mapped(RAM, 5)


@pytest.mark.asyncio
async def test_a_client_that_leaves_loses_nothing_that_it_posted() -> None:
    """Its doorbell rings while the device can still reach its memory."""
    waited = 0
    for seed in range(20):
        device = Touchy()
        front = Reordered(device, [Assumed(0, 0, 4096, NORMAL_NC)], seed=seed, wait=60)
        async with attached(front) as client:
            client.memories[0].memory[:5] = b"hello"
            await client.bars[0].write(0x10, 1, 4)
            await client.config.read(0, 4)  # so that the write was received
            waited += front.live.waiting
        assert device.text == b"hello"
    assert waited


@pytest.mark.asyncio
async def test_a_handler_that_raises_loses_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    seen = set()
    for seed in range(20):
        device = Touchy()
        front = Reordered(device, [Assumed(0, 0, 4096, NORMAL_NC)], seed=seed, wait=60)
        async with attached(front) as client:
            await client.bars[0].write(0x00, 13, 4)
            await client.bars[0].write(0x08, 0x0102_0304_0506_0708, 8)
            front.settle()
            with pytest.raises(VfioUserError, match="Input/output error"):
                await client.bars[0].read(0x00, 4)
            assert await client.bars[0].read(0x08, 8) == 0x0102_0304_0506_0708
        seen |= {message.splitlines()[0] for message in caplog.messages}
    assert "Touchy: write of 4 bytes in BAR 0 at 0x0, done later, failed" in seen


@pytest.mark.parametrize(
    ("bar", "offset", "size", "of"),
    [(3, 0, 16, 0), (7, 0, 16, 0), (0, 4080, 17, 4096), (0, 4096, 1, 4096), (0, 0, 0, 4096)],
)
def test_what_is_assumed_must_be_of_the_device(bar: int, offset: int, size: int, of: int) -> None:
    with pytest.raises(DefinitionError) as caught:
        Reordered(Sender(), [WINDOW, Assumed(bar, offset, size, NGNRE)], seed=1)
    wanted = f"what is assumed must be within BAR {bar}, of {of} bytes, not {size} bytes at {offset:#x}"
    assert str(caught.value) == wanted


def test_what_is_assumed_may_be_all_of_a_bar() -> None:
    Reordered(Sender(), [Assumed(0, 0, 4096, NGNRE), Assumed(2, 4095, 1, NORMAL_NC)], seed=1)
