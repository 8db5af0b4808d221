"""Everybody has a turn: timers of the event loop run soon, whatever a client keeps the handlers busy with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from .bench import DOORBELL, START, Bench
from .raw import NO_REPLY, REGION_WRITE, Raw, access, message

CALLS = 3000


class Rings(list[int]):
    """What a bell's handler appends to."""

    def __init__(self, handler: Callable[[int], None]) -> None:
        super().__init__()
        self.append = handler  # type: ignore[method-assign]


@pytest.mark.parametrize(("register", "limit"), [(START, 60), (DOORBELL, 600)])
@pytest.mark.asyncio
async def test_slow_handlers_leave_timers_their_turn(bench: Bench, register: int, limit: int) -> None:
    """A timer is due after 2 ms, ten calls of a handler: how many are there at most until it was served?

    Doorbells are told 64 at a time.
    """
    calls = most = before = 0

    def handler(*_: int) -> None:
        nonlocal calls
        calls += 1
        end = time.monotonic() + 0.0002
        while time.monotonic() < end:
            pass

    bench.device.started = handler
    bench.device.rings = Rings(handler)
    write = message(REGION_WRITE, access(0, register, 4, bytes(4)), flags=NO_REPLY)
    async with Raw.connect(bench.path) as raw, asyncio.timeout(30):
        sending = asyncio.create_task(raw.send(write * CALLS))
        while calls < CALLS:
            await asyncio.sleep(0.002)
            most, before = max(most, calls - before), calls
        await sending
    assert most < limit
