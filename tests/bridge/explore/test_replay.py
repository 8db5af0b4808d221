"""Replays: blocks as accesses, what loads return, and that shared beginnings change nothing but the time."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGRE, NORMAL_NC
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore.replay import Access, Replay, accesses_of
from pyvfio_user.bridge.inprocess import InProcess
from pyvfio_user.bridge.interconnect import (
    DEFAULT_LINK,
    Behaviours,
    Effects,
    Link,
    Packets,
    Program,
    atomic,
    dma_write,
    effects,
    load,
    msi,
    ram_load,
    ram_store,
    store,
)
from pyvfio_user.bridge.stream import Flag
from pyvfio_user.devices.upcase import Upcase


class Log:
    """Remembers what arrived; a read returns how many accesses there were before it."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        self.seen.append((bar, offset, data))

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        self.seen.append((bar, offset, size))
        return bytes([len(self.seen) - 1] * size)


class Resumed(Log):
    """The same, and it can go back."""

    restored = 0

    def save(self) -> tuple[tuple[object, ...], ...]:
        return tuple(self.seen)

    def restore(self, state: tuple[tuple[object, ...], ...]) -> None:
        self.seen = list(state)
        type(self).restored += 1


def accesses(found: Effects, block: int, link: Link = DEFAULT_LINK) -> list[Access]:
    return list(accesses_of(found, block, Packets(found, link)))


class TestAccesses:
    def test_a_block_is_its_contiguous_bytes(self) -> None:
        found = effects(Program.of(store(8, 4, 2), store(0, 8, 1), store(16, 4, 3)))
        assert accesses(found, 0b111) == [
            Access(0, 0, 12, bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]), 0b011),
            Access(0, 16, 4, b"\3\0\0\0", 0b100),
        ]

    def test_a_root_complex_that_splits(self) -> None:
        found = effects(Program.of(store(4, 1, 1), store(6, 1, 2), store(8, 8, 3)))
        assert accesses(found, 0b111, Link(atom=4)) == [
            Access(0, 4, 1, b"\1", 0b011),
            Access(0, 6, 1, b"\2", 0b011),
            Access(0, 8, 4, b"\3\0\0\0", 0b100),
            Access(0, 12, 4, bytes(4), 0b100),
        ]

    def test_the_later_of_overlapping_stores_remains(self) -> None:
        found = effects(Program.of(store(0, 8, -1 & 2**64 - 1), store(4, 4, 2)))
        assert accesses(found, 0b11) == [Access(0, 0, 8, b"\xff" * 4 + b"\2\0\0\0", 0b11)]

    def test_reads_are_merged_likewise(self) -> None:
        found = effects(Program.of(load(0, 4), load(4, 4), load(0, 4)))
        assert accesses(found, 0b111) == [Access(0, 0, 8, None, 0b111)]

    def test_ram_is_reached_too_but_interrupts_are_not_in_it(self) -> None:
        found = effects(Program.of(ram_load(0x1000), ram_store(0x1000, 4, 1), msi()))
        assert accesses(found, 0b01) == [Access(None, 0x1000, 8, None, 0b01)]
        assert accesses(found, 0b10) == [Access(None, 0x1000, 4, b"\1\0\0\0", 0b10)]
        assert accesses(found, 0b100) == []

    def test_an_atomic_cannot_be_replayed(self) -> None:
        with pytest.raises(
            DefinitionError, match=r"^effects to replay must be reads and writes, not the atomic AtomicOp bar0"
        ):
            accesses(effects(Program.of(atomic(0))), 1)

    def test_data_must_be_known(self) -> None:
        (event,) = store(0)
        unknown = Program.of((event._replace(flags=Flag.NO_DATA, data=b""),))
        with pytest.raises(
            DefinitionError, match=r"^data of stores to replay must be known, not unknown as of MWr bar0"
        ):
            accesses(effects(unknown), 1)


class TestOutcomes:
    def test_loads_are_told_by_position(self) -> None:
        program = Program.of(store(0, 4, type=NGNRE), load(8, 4, type=NGNRE), load(16, 16, type=NGNRE))
        outcome = Replay(effects(program), Log).run((1, 2, 4, 8))
        assert outcome.loads == {1: b"\1" * 4, 2: b"\2" * 8 + b"\3" * 8}

    def test_a_load_of_ram_returns_what_is_there_by_then(self) -> None:
        program = Program.of(dma_write(0x1000, 8, b"abcdefgh"), ram_store(0x1004, 4, b"WXYZ"), ram_load(0x1000))
        replay = Replay(effects(program), Log)
        assert replay.run((1, 2, 4)).loads == {2: b"abcdWXYZ"}
        assert replay.run((2, 1, 4)).loads == {2: b"abcdefgh"}
        assert replay.run((2, 4, 1)).loads == {2: b"\0\0\0\0WXYZ"}

    def test_a_load_of_the_device_s_ram(self) -> None:
        with InProcess(Upcase(), ram=[range(0x4000_0000, 0x4000_1000)]) as device:
            ring = [store(0, 8, 0x4000_0000), store(8, 2, 4), store(0x10, 4, 1)]
            program = Program.of(ram_store(0x4000_0000, 4, b"abcd"), *ring, ram_load(0x4000_0000, 4))
            replay = Replay(effects(program), device.restarted)
            assert replay.run((1, 2, 4, 8, 16)).loads == {4: b"ABCD"}

    def test_gathered_loads_get_one_answer(self) -> None:
        program = Program.of(load(0, 4, type=NORMAL_NC), load(0, 4, type=NORMAL_NC))
        outcome = Replay(effects(program), Log).run((0b11,))
        assert outcome.loads == {0: bytes(4), 1: bytes(4)}
        assert outcome.device.seen == [(0, 0, 4)]

    def test_a_load_that_never_arrived_has_the_stored_bytes(self) -> None:
        program = Program.of(store(0, 8, b"abcdefgh", type=NORMAL_NC), load(4, 4, type=NORMAL_NC))
        replay = Replay(effects(program), Log)
        assert replay.run((0b01,)).loads == {1: b"efgh"}
        assert replay.run((0b01, 0b10)).loads == {1: b"\1" * 4}

    def test_of_several_stores_each_byte_is_the_newest(self) -> None:
        parts = [
            store(0, 8, b"abcdefgh", type=NORMAL_NC),
            store(4, 2, b"XY", type=NORMAL_NC),
            load(0, 8, type=NORMAL_NC),
        ]
        assert Replay(effects(Program.of(*parts)), Log).run((0b01, 0b10)).loads == {2: b"abcdXYgh"}

    def test_a_load_that_the_link_splits(self) -> None:
        program = Program.of(load(0, 8), load(8, 8))
        outcome = Replay(effects(program), Log, Link(atom=4)).run((1, 2))
        assert outcome.loads == {0: bytes(4) + b"\1" * 4, 1: b"\2" * 4 + b"\3" * 4}

    @pytest.mark.parametrize("kind", [GRE, NGRE])
    def test_a_target_that_can_go_back_comes_to_the_same(self, kind: object) -> None:
        parts = [store(8 * at, type=kind) for at in range(4)]  # type: ignore[arg-type]
        found = Behaviours(Program.of(*parts, load(64, type=kind)))  # type: ignore[arg-type]
        resumed, anew = Replay(found.effects, Resumed), Replay(found.effects, Log)
        Resumed.restored = 0
        for behaviour in found:
            one, other = resumed.run(behaviour), anew.run(behaviour)
            assert (one.device.seen, one.loads) == (other.device.seen, other.loads)
        assert Resumed.restored == found.count - 1

    def test_a_target_that_raised_is_restored_too(self) -> None:
        class Picky(Resumed):
            def write(self, bar: int | None, offset: int, data: bytes) -> None:
                assert not (offset == 0 and self.seen)
                super().write(bar, offset, data)

        replay = Replay(effects(Program.of(store(0, type=GRE), store(8, type=GRE))), Picky)
        with pytest.raises(AssertionError):
            replay.run((2, 1))
        assert len(replay.run((1, 2)).device.seen) == 2
        with pytest.raises(AssertionError):
            replay.run((2, 1))
        assert len(replay.run((1, 2)).device.seen) == 2
