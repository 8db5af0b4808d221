"""The programs are what the guest does: held against what the tracer recorded of it, and against the fault rules."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.interconnect import Order, Program
from pyvfio_user.bridge.stream import Kind
from pyvfio_user.guest.orders.programs import BARRIERS, DOORBELL, IDIOMS, SIZE, WINDOW, program
from pyvfio_user.guest.workload import Barrier, Idiom

from .recorded import recorder

PUSHED = {
    "8 x STR x": Idiom.IOWRITE64,
    "16 x STR w": Idiom.IOWRITE32,
    "4 x STP x": Idiom.STP,
    "ST1": Idiom.ST1,
    "memcpy": Idiom.MEMCPY,
}
BETWEEN = {"none": Barrier.NONE, "dmb oshst": Barrier.DMB, "dsb st": Barrier.DSB, "dgh": Barrier.DGH}


def arrival(of: Program) -> list[tuple[object, ...]]:
    """Of each effect what it does, where, how it behaves, and which effects its instruction has; and the order."""
    order = Order(of)
    first = {effect.instruction: effect.index for effect in reversed(order.effects.all)}
    rows = zip(*order.rows, strict=True)
    return [
        (effect.op, effect.event.bar, effect.offset, effect.size, str(effect.type), first[effect.instruction], *row)
        for effect, row in zip(order.effects, rows, strict=True)
    ]


def barriers(of: Program) -> list[str]:
    """Those that order nothing too."""
    return [str(each.barrier or each.kind.name) for each in of.events if each.kind in (Kind.BARRIER, Kind.DGH)]


@pytest.mark.asyncio
async def test_they_are_what_a_real_guest_does() -> None:
    async with recorder() as guest:
        for name, idiom in PUSHED.items():
            for between, barrier in BETWEEN.items():
                written = program(IDIOMS[name], between, NORMAL_NC, NGNRE)
                assert arrival(await guest.push(idiom, barrier, NORMAL_NC)) == arrival(written), (name, between)
        for way in IDIOMS.values():
            for between in BARRIERS:
                for kind in (NGNRE, GRE, NORMAL_NC):
                    if way.faults(kind):
                        continue
                    written = program(way, between, kind, NGNRE)
                    ran = await guest.run(way.operation(between), kind)
                    assert arrival(ran) == arrival(written), (way.name, between, kind)
                    assert barriers(ran) == barriers(written), (way.name, between, kind)


@pytest.mark.parametrize("name", IDIOMS)
def test_each_stores_64_aligned_bytes_and_rings(name: str) -> None:
    found = Order(program(IDIOMS[name], "dmb oshst", NORMAL_NC, NGNRE)).effects
    stored = {at for effect in found.all[:-1] for at in range(effect.offset, effect.end)}
    assert (stored, WINDOW % SIZE) == (set(range(WINDOW, WINDOW + SIZE)), 0)
    assert (found[-1].event.bar, found[-1].offset, found[-1].size) == (0, DOORBELL, 4)
    assert WINDOW // 4096 != DOORBELL // 4096


def test_each_barrier_is_another_program() -> None:
    programs = [program(IDIOMS["8 x STR x"], name, NORMAL_NC, NGNRE) for name in BARRIERS]
    between = [[str(event.barrier or event.kind.name) for event in each.events[8:-1]] for each in programs]
    assert between == [[], ["dmb ishst"], ["dmb oshst"], ["dsb st"], ["DGH"], [], ["LOAD", "dmb oshld"]]
    assert [each.events[-1].flags.name for each in programs].index("RELEASE") == list(BARRIERS).index("store-release")
    (load, _) = programs[-1].events[8:10]
    assert (load.bar, load.offset, load.size, load.type) == (2, WINDOW + 60, 4, NORMAL_NC)
    with pytest.raises(KeyError):
        program(IDIOMS["ST1"], "dmb", NORMAL_NC, NGNRE)


class TestFaults:
    """DDI 0487 B2.10.2: an access to Device that is not aligned to its elements, and DC ZVA; stage 1 by itself."""

    @pytest.mark.parametrize("kind", [NGNRNE, NGNRE, NGRE, GRE], ids=str)
    def test_on_device(self, kind: MemoryType) -> None:
        faults = {name: idiom.faults(kind) for name, idiom in IDIOMS.items() if idiom.faults(kind)}
        assert faults == {
            "memcpy": "alignment fault (B2.10.2) at store 2",
            "DC ZVA": "alignment fault (B2.10.2) at store 1",
        }

    @pytest.mark.parametrize("kind", [NORMAL_NC, NORMAL_WB], ids=str)
    def test_none_on_normal(self, kind: MemoryType) -> None:
        assert not any(idiom.faults(kind) for idiom in IDIOMS.values())

    def test_where_stage_1_alone_is_device(self) -> None:
        faulting = [name for name, idiom in IDIOMS.items() if idiom.faults(NORMAL_WB, aligned=True)]
        assert faulting == ["memcpy", "DC ZVA"]
