"""Devices of the kit without a server: the same accesses, handlers and DMA, and explorations of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import NGNRNE, NORMAL_NC
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore import Property, explore
from pyvfio_user.bridge.inprocess import InProcess
from pyvfio_user.bridge.interconnect import Part, Program, burst, dmb, ram_store, store
from pyvfio_user.devices import ONCE, RC, RO, W1C, Bar, Device, Doorbell, PciId, Register, Registers, WriteCombineWindow
from pyvfio_user.devices.upcase import Upcase

RAM = range(0x4000_0000, 0x4000_1000)
ADDRESS, LENGTH, STATUS, RING = 0x00, 0x08, 0x0C, 0x10


@pytest.fixture
def upcase() -> Iterator[InProcess]:
    with InProcess(Upcase(), ram=[RAM]) as device:
        yield device


class Control(Registers):
    """One of each kind."""

    plain = Register(0x00)
    once = Register(0x04, access=ONCE)
    flags = Register(0x08, access=W1C, reset=0xFF)
    count = Register(0x0C, access=RC, reset=7)
    version = Register(0x10, access=RO, reset=0x0102_0304)
    live = Register(0x14, access=RO)
    told = Register(0x18)
    bell = Doorbell(0x20, count=2, stride=4)


class Kinds(Device):
    """Remembers what its handlers were told."""

    identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    bar2 = Bar(WriteCombineWindow(4096), prefetchable=True)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int, int]] = []

    def on_reset(self) -> None:
        self.calls = []

    @Control.live.on_read
    def look(self) -> int:
        return 0xABCD

    @Control.told.on_write
    def tell(self, value: int) -> None:
        self.calls.append(("told", 0, value))

    @Control.bell.rung
    def ring(self, index: int, value: int) -> None:
        self.calls.append(("bell", index, value))


@pytest.fixture
def kinds() -> Iterator[InProcess]:
    with InProcess(Kinds()) as device:
        yield device


def word(value: int) -> bytes:
    return value.to_bytes(4, "little")


class TestAccesses:
    def test_registers_keep_their_rules(self, kinds: InProcess) -> None:
        kinds.write(0, 0x00, word(0x1122_3344))
        kinds.write(0, 0x00, b"\xff")
        for value in (5, 6):
            kinds.write(0, 0x04, word(value))
        kinds.write(0, 0x08, word(0x0F))
        kinds.write(0, 0x10, word(0))
        assert kinds.read(0, 0x00, 12) == word(0x1122_33FF) + word(5) + word(0xF0)
        assert [kinds.read(0, 0x0C, 4) for _ in range(2)] == [word(7), word(0)]
        assert kinds.read(0, 0x10, 4) == word(0x0102_0304)

    def test_handlers_are_called_within_the_access(self, kinds: InProcess) -> None:
        assert kinds.read(0, 0x14, 4) == word(0xABCD)
        assert kinds.read(0, 0x10, 8) == word(0x0102_0304) + word(0xABCD)
        kinds.write(0, 0x18, word(1))
        kinds.write(0, 0x24, word(2))
        kinds.write(0, 0x1C, word(0) + word(3))
        assert kinds.device.calls == [("told", 0, 1), ("bell", 1, 2), ("bell", 0, 3)]  # type: ignore[attr-defined]

    @given(st.integers(0, 4095), st.binary(min_size=1, max_size=64))
    def test_what_is_written_to_a_window_is_read(self, offset: int, data: bytes) -> None:
        data = data[: 4096 - offset]
        with InProcess(Kinds()) as device:
            device.write(2, offset, data)
            assert device.read(2, offset, len(data)) == data

    def test_bytes_that_nothing_claims(self, kinds: InProcess) -> None:
        kinds.write(0, 0x800, b"abc")
        assert kinds.read(0, 0x800, 3) == bytes(3)

    def test_what_is_not_there(self, kinds: InProcess) -> None:
        with pytest.raises(DefinitionError, match=r"^bar must be one of the device's, not 4$"):
            kinds.read(4, 0, 4)
        with pytest.raises(DefinitionError, match=r"^accesses must lie in the region's 0x1000 bytes, not 8 at 0xffc$"):
            kinds.write(0, 0xFFC, bytes(8))
        with pytest.raises(DefinitionError, match=r"^RAM must be given for the 8 bytes at 0x1000, not left out$"):
            kinds.write(None, 0x1000, bytes(8))

    def test_ram_ends_behind_its_last_byte(self) -> None:
        with InProcess(Upcase(), ram=[RAM]) as device:
            device.write(None, RAM.stop - 8, b"the last")
            assert device.read(None, RAM.stop - 8, 8) == b"the last"
            for outside in (RAM.stop - 7, RAM.stop, RAM.start - 1):
                with pytest.raises(DefinitionError, match=r"^RAM must be given for the 8 bytes at "):
                    device.write(None, outside, bytes(8))
                with pytest.raises(DefinitionError, match=r"^RAM must be given for the 8 bytes at "):
                    device.read(None, outside, 8)

    def test_a_restart_forgets_everything(self, kinds: InProcess) -> None:
        kinds.write(0, 0x00, word(1))
        kinds.write(0, 0x04, word(5))
        kinds.write(0, 0x18, word(1))
        kinds.write(2, 0x40, b"old")
        kinds.restart()
        assert kinds.device.calls == []  # type: ignore[attr-defined]
        assert kinds.read(2, 0x40, 3) == bytes(3)
        kinds.write(0, 0x04, word(6))
        assert kinds.read(0, 0x00, 8) == word(0) + word(6)


class TestDma:
    def test_an_async_handler_ends_within_the_write(self, upcase: InProcess) -> None:
        upcase.write(None, RAM.start + 8, b"hello")
        upcase.write(0, ADDRESS, (RAM.start + 8).to_bytes(8, "little"))
        upcase.write(0, LENGTH, b"\5\0")
        upcase.write(0, RING, word(1))
        assert upcase.read(0, STATUS, 4) == word(1)
        assert upcase.read(None, RAM.start, 16) == bytes(8) + b"HELLO" + bytes(3)
        upcase.restart()
        assert upcase.read(None, RAM.start, 16) == bytes(16)

    def test_a_handler_that_waits_for_a_client(self) -> None:
        class Waits(Device):
            identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
            bar0 = Bar(Control, size=4096)

            @Control.bell.rung
            async def ring(self, index: int, value: int) -> None:
                import asyncio

                await asyncio.Event().wait()

        with InProcess(Waits()) as device:
            said = r"^a handler must end by itself in process, not wait for a client or for time$"
            with pytest.raises(DefinitionError, match=said):
                device.write(0, 0x20, word(1))


class TestExploring:
    """A driver of Upcase: text in memory, then the registers, then the doorbell."""

    CAPITALS = Property(
        "the text is in capitals", lambda outcome: outcome.device.memory.read_mapped(RAM.start, 2) == b"HI"
    )

    def driver(self, *barrier: Part) -> Program:
        return Program.of(
            store(ADDRESS, 8, RAM.start, type=NGNRNE),
            store(LENGTH, 2, 2, type=NGNRNE),
            ram_store(RAM.start, 2, b"hi"),
            *barrier,
            store(RING, 4, 1, type=NGNRNE),
        )

    def test_the_classic_bug_is_found_and_fixed(self, upcase: InProcess) -> None:
        found = explore(self.driver(dmb("ishst")), upcase.restarted, [self.CAPITALS])
        assert not found.passed and found.complete
        assert found.card is not None
        assert found.card.missing == (
            "2 before 4: the device reads memory when the doorbell arrives; no barrier that counts is between [A] B2.3",
        )
        assert found.fixes[0].what == "dmb oshst instead of dmb ishst, event 3"

    def test_the_correct_driver_passes(self, upcase: InProcess) -> None:
        found = explore(self.driver(dmb("oshst")), upcase.restarted, [self.CAPITALS])
        assert found.passed and found.complete

    def test_registers_of_a_window_and_a_doorbell(self, kinds: InProcess) -> None:
        program = Program.of(burst(0, 16, type=NORMAL_NC, bar=2), store(0x20, 4, 1, type=NGNRNE))
        seen = explore(program, kinds.restarted, [Property("rung once", lambda o: o.device.calls == [("bell", 0, 1)])])
        assert (seen.count, seen.passed) == (8, True)
