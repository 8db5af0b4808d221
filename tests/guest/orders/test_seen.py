"""What the device gets when a real guest runs the programs that are modelled: in lane el2, without a tracer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.interconnect import Program
from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.bridge.stream import Event, Kind
from pyvfio_user.devices.probe_map import Reg
from pyvfio_user.guest.battery import INDEX
from pyvfio_user.guest.boot import booted
from pyvfio_user.guest.doorbells import DOORBELLS
from pyvfio_user.guest.lanes.el2 import El2Lane
from pyvfio_user.guest.lanes.installation import Installation, Patch
from pyvfio_user.guest.lanes.places import PLACES
from pyvfio_user.guest.operation import pattern
from pyvfio_user.guest.orders.attach import seen_of
from pyvfio_user.guest.orders.programs import BARRIERS, DOORBELL_BAR, IDIOMS, WINDOW, WINDOW_BAR, program
from pyvfio_user.guest.plan import MAIR, Experiment, Status
from pyvfio_user.guest.results import Verdict

NAMES = [(idiom, barrier) for idiom in IDIOMS for barrier in BARRIERS]
STAGE2 = {NGNRNE: 0, NGNRE: 1, NGRE: 2, GRE: 3, NORMAL_NC: 5, NORMAL_WB: 15}
"""MemAttr without FWB (DDI 0487, D8.6): what leaves a stage-1 type of that name as it is."""


def test_each_program_of_the_table_is_in_the_battery() -> None:
    assert sorted(IDIOMS[idiom].operation(barrier) for idiom, barrier in NAMES) == sorted(DOORBELLS)


def accesses(of: Program, through: int) -> Iterator[Event]:
    """So many of the program's accesses, the first ones."""
    made = [event for event in of.events if event.kind in (Kind.STORE, Kind.LOAD, Kind.ZERO)]
    yield from made[:through]


def arrives(log: Sequence[Transaction], events: Sequence[Event], stored: bytes) -> None:
    """The log must be these accesses, one after the other in program order, each byte once, and nothing else."""
    left = list(log)
    for event in events:
        to_come = set(range(event.offset, event.offset + event.size))
        while to_come:
            each = left.pop(0)
            here = range(each.offset, each.offset + each.size)
            assert (each.region, each.write) == (event.bar, event.kind is not Kind.LOAD)
            assert to_come.issuperset(here), (each, event)
            to_come.difference_update(here)
            if event.bar == DOORBELL_BAR:
                assert each.data == stored[64:68]
            elif event.kind is Kind.ZERO:
                assert not any(each.data)
            elif event.kind is Kind.STORE:
                assert each.data == stored[each.offset - WINDOW :][: each.size]
    assert not left


@pytest.mark.asyncio
async def test_the_device_gets_what_the_programs_say_one_after_the_other() -> None:
    """TCG does nothing else, whatever the type. On Device the second store of memcpy is unaligned (B2.10.2)."""
    async with booted("cortex-a76") as up:
        for kind, s2 in STAGE2.items():
            patches = {
                "wc-trapped": Patch(PLACES["wc-trapped"], s2, None),
                "doorbell": Patch(PLACES["doorbell"], STAGE2[NGNRE], None),
            }
            await up.guest.install(Installation(patches).ranges())
            s1 = MAIR.index(kind.byte)
            orders = [
                Experiment(n, INDEX[IDIOMS[idiom].operation(barrier)], 1, s1, WINDOW_BAR, WINDOW, 0, 0, 1, Reg.DOORBELL)
                for n, (idiom, barrier) in enumerate(NAMES, 1)
            ]
            results = (await up.guest.run(orders)).results
            logs = by_mark(up.guest.last.transactions)
            for (idiom, barrier), order, result in zip(NAMES, orders, results, strict=True):
                faults = kind.is_device and idiom == "memcpy"
                assert (result.status, result.instruction) == ((Status.FAULT, 1) if faults else (Status.DONE, 0))
                made = list(accesses(program(IDIOMS[idiom], barrier, kind, NGNRE), 1 if faults else 99))
                arrives(logs[order.mark], made, pattern(order.mark))


def by_mark(log: Sequence[Transaction]) -> dict[int, list[Transaction]]:
    found: dict[int, list[Transaction]] = {}
    for each in log:
        if (each.region, each.offset) == (0, Reg.MARK):
            found[int.from_bytes(each.data, "little")] = []
        else:
            found[next(reversed(found))].append(each)
    return found


READS = {"none": "", "dmb ishst": "", "dmb oshst": "", "dsb st": "", "dgh": "", "store-release": "", "read-back": " r4"}
EIGHTS = {"8 x STR x": "8x8", "4 x STP x": "8x8", "ST1": "8x8", "4 x STR q": "8x8", "16 x STR w": "16x4"}


@pytest.mark.parametrize("kind", [NGNRE, GRE, NORMAL_NC], ids=str)
@pytest.mark.asyncio
async def test_the_lane_agrees_and_says_what_was_seen(kind: MemoryType) -> None:
    """An STP, an STR q and an ST1 are eights to QEMU, DC ZVA bytes, which it does not let fault on Device."""
    async with booted("cortex-a76") as up:
        lane = El2Lane(up.guest, up.probe, up.hello, fwb=False)
        patches = {
            "wc-trapped": Patch(PLACES["wc-trapped"], STAGE2[kind], None),
            "doorbell": Patch(PLACES["doorbell"], STAGE2[NGNRE], None),
        }
        await lane.install(Installation(patches), "")
        ran = await lane.guest_battery("wc-trapped", kind, tuple(DOORBELLS.values()), "full", "here")
        rows = {row.op: row for row in lane.batteries[ran.key].rows}
        assert lane.tally.problems == []
    for idiom, barrier in NAMES:
        row = rows[IDIOMS[idiom].operation(barrier)]
        if idiom == "memcpy":
            seen = "2x8, fault" if kind.is_device else f"2x8 48x1 2x8{READS[barrier]}, doorbell"
        else:
            seen = f"{EIGHTS.get(idiom, '64x1')}{READS[barrier]}, doorbell"
        deviates = kind.is_device and idiom == "DC ZVA"
        seen += ", no fault" if deviates else ""
        assert (seen_of(row), row.verdict) == (seen, Verdict.KNOWN_DEVIATION if deviates else Verdict.AGREE), row
