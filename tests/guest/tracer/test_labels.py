"""The tracer's labels against PAR_EL1, as the bare-metal guest's AT instructions leave it, on every window."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pyvfio_user.bridge.stream import NO_STAGE_2, Event, Kind
from pyvfio_user.guest.battery import INDEX
from pyvfio_user.guest.fixtures import StartGuest
from pyvfio_user.guest.plan import MAIR, Experiment, Range, Result
from pyvfio_user.guest.tracing import Tracer

TABLE = Path(__file__).parents[2] / "data" / "s1_s2_combination.csv"
WINDOWS = {"trapped": 0x20000, "mapped": 0}
"""Offsets in BAR 2 of the probe: where each access is a message, and memory that is shared with the guest."""


def cells(fwb: bool) -> list[dict[str, str]]:
    with TABLE.open() as file:
        return [row for row in csv.DictReader(file) if row["fwb"] == str(int(fwb))]


def par(result: Result) -> str:
    assert result.value0 & 1 == 0, "the translation must not fault"
    return f"{result.value0 >> 56:02x}"


def stores(events: list[Event], offset: int) -> list[Event]:
    """The stores of the battery: the guest's own are in BAR 0."""
    return [event for event in events if event.kind is Kind.STORE and event.bar == 2 and event.offset >= offset]


@pytest.mark.asyncio
@pytest.mark.parametrize("where", WINDOWS)
@pytest.mark.parametrize("fwb", [False, True], ids=["fwb=0", "fwb=1"])
async def test_labels_agree_with_par(fwb: bool, where: str, baremetal_guest: StartGuest) -> None:
    """All pairs of types at EL1: stage 1 as AT S1E1R has it, and the effective type as AT S12E1R has it.

    But for the cells in which QEMU combines them otherwise than the architecture: there the label is right.
    """
    rows = cells(fwb)
    window = WINDOWS[where]
    memattrs = sorted({int(row["s2"], 16) for row in rows})
    with Tracer() as tracer:
        running = await baremetal_guest(extra=tracer.options)
        await running.guest.hello()
        await running.guest.install([Range(2, window + 4096 * s2, 1, s2, 4) for s2 in memattrs], fwb=fwb)
        experiments = [
            Experiment(0, INDEX[name], 2 if name == "at-s12e1r" else 1, MAIR.index(int(row["s1"], 16)), 2, offset)
            for row in rows
            for offset in (window + 4096 * int(row["s2"], 16),)
            for name in ("str-x", "at-s1e1r", "at-s12e1r")
        ]
        results = (await running.guest.run(experiments)).results
        events = stores(tracer.events(), window)
        assert tracer.ring.dropped == 0
        await running.guest.off()
    assert len(events) == len(rows)
    differs = 0
    for row, event, first, both in zip(rows, events, results[1::3], results[2::3], strict=True):
        assert (str(event.stage1), event.stage2, event.fwb, event.el) == (row["s1"], int(row["s2"], 16), fwb, 1)
        assert str(event.stage1) == par(first)
        assert str(event.type) == row["arm"]
        assert par(both) == row["qemu_11_1"]
        differs += str(event.type) != par(both)
    assert differs == sum(row["arm"] != row["qemu_11_1"] for row in rows)


@pytest.mark.asyncio
async def test_labels_agree_with_par_at_el2(baremetal_guest: StartGuest) -> None:
    """The host's own mapping has no stage 2."""
    with Tracer() as tracer:
        running = await baremetal_guest(extra=tracer.options)
        await running.guest.hello()
        await running.guest.install([Range(2, 0x20000 + 4096 * host, 1, 1, host) for host in range(8)])
        experiments = [
            Experiment(0, INDEX[name], 2, 0, 2, 0x20000 + 4096 * host)
            for host in range(8)
            for name in ("str-x", "at-s1e2r")
        ]
        results = (await running.guest.run(experiments)).results
        events = stores(tracer.events(), 0x20000)
        await running.guest.off()
    assert [(str(event.type), event.stage2, event.el) for event in events] == [
        (f"{byte:02x}", NO_STAGE_2, 2) for byte in MAIR
    ]
    assert [str(event.stage1) for event in events] == [par(result) for result in results[1::2]]
