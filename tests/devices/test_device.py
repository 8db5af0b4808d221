"""A device as a client finds it: registers by their access, config space, resets, and where handlers run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyvfio_user.bridge.client import Client, VfioUserError
from pyvfio_user.devices import (
    ONCE,
    RC,
    RO,
    W1C,
    Bar,
    Device,
    Doorbell,
    Field,
    Intx,
    KiB,
    Memory,
    Msi,
    MsiX,
    PciId,
    Register,
    Registers,
    WriteCombineWindow,
)

from .serving import RAM, attached

IDENTITY = PciId(vendor=0x1234, device=0x5678, class_code=0xFF0000, revision=3)


class Control(Registers):
    """A register of each access."""

    version = Register(0x00, access=RO, reset=0x0001_0203)
    enable = Register(0x04, reset=0x11, reserved=0xFFFF_0000)
    status = Register(0x08, access=W1C)
    state = Field(status, 28, 4, access=RO)
    drops = Register(0x0C, access=RC)
    key = Register(0x10, access=ONCE)
    mirror = Register(0x14)
    wide = Register(0x18, width=8)
    bell = Doorbell(0x20, count=2)


class Example(Device):
    """Notes what its handlers are called with."""

    identity = IDENTITY
    bar0 = Bar(Control, size=4 * KiB)
    tail = bar0.place(Memory(0x100, record=True), 0x800)
    bar2 = Bar(WriteCombineWindow(4 * KiB, mapped=True), size=8 * KiB, bits=64, prefetchable=True)
    intx = Intx()
    msi = Msi(4)
    msix = MsiX(3)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []
        self.resets = 0

    def on_reset(self) -> None:
        self.resets += 1

    @Control.enable.on_write
    def enabled(self, value: int) -> None:
        self.seen.append(("enable", value))

    @Control.status.on_write
    def acknowledged(self, value: int) -> None:
        self.seen.append(("status", value))

    @Control.wide.on_write
    def widened(self, value: int) -> None:
        self.seen.append(("wide", value))

    @Control.mirror.on_read
    def reflect(self) -> int:
        return ~self.bar0.mirror & 0xFFFF_FFFF

    @Control.bell.rung
    def ring(self, index: int, value: int) -> None:
        self.seen.append((f"bell{index}", value))


@pytest.mark.asyncio
async def test_registers_follow_their_access() -> None:
    device = Example()
    async with attached(device) as client:
        bar = client.bars[0]
        await bar.write(0x00, 0xFFFF_FFFF, 4)
        assert await bar.read(0x00, 4) == 0x0001_0203
        await bar.write(0x04, 0xFFFF_FFFF, 4)
        assert await bar.read(0x04, 4) == 0x0000_FFFF
        device.bar0.status = 0xF000_0007
        await bar.write(0x08, 0xFFFF_FFF5, 4)
        assert await bar.read(0x08, 4) == 0xF000_0002
        device.bar0.drops = 9
        assert [await bar.read(0x0C, 4), await bar.read(0x0C, 4)] == [9, 0]
        await bar.write(0x10, 0x1234, 4)
        await bar.write(0x10, 0x5678, 4)
        assert await bar.read(0x10, 4) == 0x1234
        await bar.write(0x14, 0x0F0F_0F0F, 4)
        assert await bar.read(0x14, 4) == 0xF0F0_F0F0
        assert await bar.read(0x700, 8) == 0


@pytest.mark.asyncio
async def test_handlers_get_values_in_the_registers_own_bits() -> None:
    device = Example()
    async with attached(device) as client:
        bar = client.bars[0]
        await bar.write(0x04, 0xFFFF_0022, 4)
        await bar.write(0x05, 0x33, 1)
        device.bar0.status = 0x3
        await bar.write(0x08, 0xF0_00_00_01, 4)
        await bar.write(0x1C, 0x5555_6666, 4)
        await bar.write(0x18, 0x7777_8888, 4)
        await bar.write(0x20, 7, 4)
        await bar.write(0x24, 8, 4)
        assert await bar.read(0x24, 4) == 8
    assert device.seen == [
        ("enable", 0x22),
        ("enable", 0x3322),
        ("status", 0xF000_0001),
        ("wide", 0x5555_6666_0000_0000),
        ("wide", 0x5555_6666_7777_8888),
        ("bell0", 7),
        ("bell1", 8),
    ]


@pytest.mark.asyncio
async def test_a_block_prints_what_the_guest_wrote() -> None:
    device = Example()
    async with attached(device) as client:
        await client.bars[0].write(0x18, 0x1122_3344_5566_7788, 8)
        assert "  0x18 wide    0x1122334455667788" in str(device.bar0)


@pytest.mark.asyncio
async def test_windows_hold_what_is_written() -> None:
    device = Example()
    async with attached(device) as client:
        await client.bars[0].write(0x810, 0xABCD, 2)
        assert bytes(device.tail.memory[0x0F:0x13]) == b"\0\xcd\xab\0"
        client.mapped(2)[8:12] = b"word"
        assert bytes(device.bar2.memory[8:12]) == b"word"
        device.bar2.memory[0:4] = b"back"
        assert await client.bars[2].read_bytes(0, 12) == b"back\0\0\0\0word"
    assert [(each.write, each.region, each.offset, each.data) for each in device.endpoint.recorder.drain()] == [
        (True, 0, 0x810, b"\xcd\xab")
    ]


@pytest.mark.asyncio
async def test_config_space() -> None:
    async with attached(Example()) as client:
        image = await client.config.image()
        assert len(image) == 4096
        assert image[:4].hex() == "34127856"
        assert image[0x08:0x0C].hex() == "030000ff"
        assert await client.config.capabilities() == {0x01: 0x40, 0x05: 0x48, 0x11: 0x58, 0x10: 0x64}
        assert await client.config.extended_capabilities() == {}
        assert [region.size for region in client.regions] == [0x1000, 0x1000, 0x2000, 0, 0, 0, 0, 0x1000]
        assert (len(client.intx), len(client.msi), len(client.msix)) == (1, 4, 3)


async def dirty(client: Client, device: Example) -> None:
    await client.bars[0].write(0x04, 0x77, 4)
    await client.bars[0].write(0x10, 0x77, 4)
    await client.bars[0].write(0x810, 0x77, 4)
    device.interrupts.intx_assert()
    assert await client.config.status() & 0x8


async def clean(client: Client, device: Example) -> None:
    assert device.resets == 1
    assert (device.bar0.enable, device.memory.bus_master) == (0x11, False)
    assert await client.config.status() & 0x8 == 0
    assert await client.config.read(0x04, 2) == 0
    await client.bars[0].write(0x10, 0x55, 4)
    assert await client.bars[0].read(0x10, 4) == 0x55
    assert await client.bars[0].read(0x810, 4) == 0x77


@pytest.mark.asyncio
async def test_a_reset_by_the_client() -> None:
    device = Example()
    async with attached(device) as client:
        await dirty(client, device)
        await client.reset()
        await clean(client, device)


@pytest.mark.asyncio
async def test_a_function_level_reset() -> None:
    device = Example()
    async with attached(device) as client:
        await dirty(client, device)
        control = (await client.config.capabilities())[0x10] + 8
        await client.config.write(control, 0x8000 | await client.config.read(control, 2), 2)
        assert await client.config.read(control, 2) == 0x2810
        await clean(client, device)


@pytest.mark.asyncio
async def test_a_client_that_leaves_resets_the_device() -> None:
    device = Example()
    async with attached(device) as client:
        await dirty(client, device)
    assert device.resets == 1
    assert (device.bar0.enable, device.memory.bus_master, device.memory.maps) == (0x11, False, 0)


class Slow(Device):
    """Its doorbell copies by DMA, one call at a time."""

    identity = IDENTITY
    bar0 = Bar(Control, size=4 * KiB)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.idle = asyncio.Event()

    @Control.bell.rung
    async def copy(self, index: int, value: int) -> None:
        self.log.append(f"begin {index}.{value}")
        data = await self.memory.read(RAM, 4)
        await self.gate.wait()
        self.log.append(f"end {index}.{value} {data!r}")
        if value == 13:
            raise RuntimeError("unlucky")
        if value == 99:
            self.idle.set()

    @Control.enable.on_write
    async def copy_synchronous(self, value: int) -> None:
        await self.memory.write(RAM, value.to_bytes(4, "little"))
        self.idle.set()


@pytest.mark.asyncio
async def test_async_handlers_run_one_after_another(caplog: pytest.LogCaptureFixture) -> None:
    device = Slow()
    async with attached(device) as client:
        client.memories[0].memory[:4] = b"data"
        for value in (12, 13, 99):
            await client.bars[0].write(0x20, value, 4)
        assert await client.bars[0].read(0x20, 4) == 99
        device.gate.set()
        await asyncio.wait_for(device.idle.wait(), 5)
        assert device.log == [
            "begin 0.12",
            "end 0.12 b'data'",
            "begin 0.13",
            "end 0.13 b'data'",
            "begin 0.99",
            "end 0.99 b'data'",
        ]
    assert [record.getMessage() for record in caplog.records if record.name == "pyvfio_user.devices"] == [
        "Slow: handler copy of Control.bell[0] at 0x20 raised for value 0xd"
    ]


@pytest.mark.asyncio
async def test_each_doorbell_has_its_own_queue() -> None:
    device = Slow()
    async with attached(device) as client:
        await client.bars[0].write(0x20, 1, 4)
        await client.bars[0].write(0x24, 99, 4)
        device.gate.set()
        await asyncio.wait_for(device.idle.wait(), 5)
        assert sorted(device.log) == [
            "begin 0.1",
            "begin 1.99",
            "end 0.1 b'\\x00\\x00\\x00\\x00'",
            "end 1.99 b'\\x00\\x00\\x00\\x00'",
        ]


@pytest.mark.asyncio
async def test_dma_by_message_does_not_hold_up_a_synchronous_access() -> None:
    device = Slow()
    async with attached(device, shared=False) as client:
        await asyncio.wait_for(client.bars[0].write(0x04, 0x1234, 4), 5)
        await asyncio.wait_for(device.idle.wait(), 5)
        assert bytes(client.memories[0].memory[:4]) == b"\x34\x12\0\0"


@pytest.mark.asyncio
async def test_a_reset_cancels_handlers() -> None:
    device = Slow()
    async with attached(device) as client:
        for value in (1, 2, 3):
            await client.bars[0].write(0x20, value, 4)
        assert await client.bars[0].read(0x20, 4) == 3
        await client.reset()
        device.gate.set()
        await client.config.set_bus_master(True)
        await client.bars[0].write(0x20, 99, 4)
        await asyncio.wait_for(device.idle.wait(), 5)
        assert device.log[-2:] == ["begin 0.99", "end 0.99 b'\\x00\\x00\\x00\\x00'"]
        assert not {"end 0.1", "begin 0.2", "begin 0.3"} & {each[:9] for each in device.log}


class Answer(Registers):
    value = Register(0x00, width=2)


class Answering(Device):
    """Its register reads as whatever a test likes."""

    identity = IDENTITY
    bar0 = Bar(Answer, size=4 * KiB)
    answer: Any = 0

    @Answer.value.on_read
    def read(self) -> int:
        found: int = self.answer
        return found


@pytest.mark.parametrize(
    ("answer", "said"), [(-1, "-0x1"), (0x1_0000, "0x10000"), ("text", "'text'"), (None, "None"), (1.5, "1.5")]
)
@pytest.mark.asyncio
async def test_a_handler_whose_value_cannot_be_is_an_error(
    answer: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    device = Answering()
    async with attached(device) as client:
        device.answer = answer
        with pytest.raises(VfioUserError, match="Input/output error"):
            await client.bars[0].read(0, 2)
        device.answer = 0xFFFF
        assert await client.bars[0].read(0, 2) == 0xFFFF
    assert f"ValueError: Answer.value must read as an integer of 16 bits, not {said}\n" in caplog.text
