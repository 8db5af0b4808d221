"""64-byte bursts of a real guest: whole or split on NC and GRE, never merged on nGnRE; and the table of them."""

from __future__ import annotations

from collections import Counter

import pytest
import pytest_asyncio

from pyvfio_user.bridge.explore.replay import Replay
from pyvfio_user.bridge.interconnect import PROFILES, Order, behaviours
from pyvfio_user.bridge.stream import Kind
from pyvfio_user.guest.orders.programs import WINDOW

from .bursts import BEGIN, BURSTS, CONTRIBUTING, SHOWN, TYPES, Arrivals, Recorded, record, table, written

pytestmark = pytest.mark.asyncio(loop_scope="module")
STR, ST1 = BURSTS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorded() -> Recorded:
    return await record()


async def test_they_are_the_guest_s_own_with_the_types_of_its_tables(recorded: Recorded) -> None:
    for (burst, kind), program in recorded.items():
        stores = [event for event in program.events if event.kind is Kind.STORE]
        assert [(e.bar, e.offset, e.size) for e in stores] == [(2, WINDOW + at, 8) for at in range(0, 64, 8)]
        assert {event.type for event in stores} == {TYPES[kind]}
        assert {(event.el, event.stage1, event.stage2) for event in stores} == {(1, TYPES[kind], 5)}
        assert len({event.pc for event in stores}) == (8 if burst == STR else 1)
        assert [event.kind for event in program.events[8:]] == ([Kind.DGH] if burst == STR else [])


async def test_how_many_legal_behaviours_they_have(recorded: Recorded) -> None:
    """Eight stores, all of which may be gathered, or none; the elements of one instruction always may."""
    counts = {key: behaviours(program).count for key, program in recorded.items()}
    assert counts == {**dict.fromkeys(counts, 545_835), (STR, "nGnRE"): 1}


class Device:
    """Has a window, and notes the size of each write that reaches it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.window = bytearray(64)

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        self.sizes.append(len(data))
        self.window[offset - WINDOW : offset - WINDOW + len(data)] = data

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        raise AssertionError("nobody reads")


@pytest.mark.parametrize("burst", BURSTS)
@pytest.mark.parametrize("kind", TYPES)
async def test_what_a_device_sees(recorded: Recorded, burst: str, kind: str) -> None:
    """A write of 64 bytes sometimes, several sometimes; of eight stores as nGnRE always eight, in order."""
    order, profile = Order(recorded[burst, kind]), PROFILES["wc-64x4"]
    replay = Replay(order.effects, Device, profile.link)
    whole = Counter[bool]()
    data = b"".join(event.data for event in recorded[burst, kind].events)
    for seed in range(1000):
        device = replay.run(profile.run(order, seed)).device
        assert device.window == data
        whole[device.sizes == [64]] += 1
        if (burst, kind) == (STR, "nGnRE"):
            assert device.sizes == [8] * 8
    assert set(whole) == ({False} if (burst, kind) == (STR, "nGnRE") else {True, False})


@pytest.mark.parametrize("name", PROFILES)
async def test_nothing_that_two_instructions_stored_is_merged_on_ngnre(recorded: Recorded, name: str) -> None:
    found = Arrivals(recorded[STR, "nGnRE"], PROFILES[name], 100)
    assert (found.tlps, found.instructions) == ({64 // PROFILES[name].link.atom: 1}, 1)


async def test_stores_are_merged_on_nc(recorded: Recorded) -> None:
    assert Arrivals(recorded[STR, "NC"], PROFILES["wc-64x4"], 100).instructions == 8


async def test_the_table_is_up_to_date(recorded: Recorded) -> None:
    """`python -m tests.guest.orders.bursts` writes it, from 10,000 seeds."""
    text = CONTRIBUTING.read_text()
    assert BEGIN in text
    assert written(text, table(recorded)) == text


async def test_the_table_says_what_drivers_must_know() -> None:
    rows = [line for line in CONTRIBUTING.read_text().partition(BEGIN)[2].splitlines() if "`" in line][: 2 * len(SHOWN)]
    cells = [[cell.strip() for cell in row.split("|")[3:6]] for row in rows]
    eight, neon = cells[: len(SHOWN)], cells[len(SHOWN) :]
    assert all(nc == gre for nc, gre, _ in cells)
    assert {row[2].partition(",")[0] for row in eight} == {"never"}
    assert "never" not in {row[2].partition(",")[0] for row in neon}
