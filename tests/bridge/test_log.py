"""What a client or a guest has the log say is limited."""

from __future__ import annotations

import logging

import pytest

from pyvfio_user.bridge.log import BURST, Limit
from pyvfio_user.devices import handlers, polling

from .bench import FAULTY, SCRATCH, Bench
from .raw import NO_REPLY, REGION_READ, REGION_WRITE, Raw, access, message


def records(limit: Limit, text: str, count: int) -> list[str]:
    """What passes of so many records."""
    made = [logging.LogRecord("name", logging.ERROR, "file", 1, text, (number,), None) for number in range(count)]
    return [record.getMessage() for record in made if limit.filter(record)]


def test_a_burst_passes_and_the_next_period_says_what_did_not() -> None:
    now = 100.0
    limit = Limit(lambda: now)
    assert records(limit, "failed at %d", 60) == [f"failed at {number}" for number in range(50)]
    assert records(limit, "refused %d", 2) == ["refused 0", "refused 1"]
    now = 104.9
    assert records(limit, "failed at %d", 5) == []
    now = 105.0
    assert records(limit, "failed at %d", 51) == [
        "failed at 0 (15 more like it were left out before)",
        *[f"failed at {number}" for number in range(1, 50)],
    ]
    now = 120.0
    assert records(limit, "failed at %d", 1) == ["failed at 0 (1 more like it were left out before)"]
    now = 130.0
    assert records(limit, "failed at %d", 1) == ["failed at 0"]


def test_devices_loggers_are_limited_once() -> None:
    for module in (handlers, polling):
        assert [type(each) for each in module.logger.filters].count(Limit) == 1


@pytest.mark.asyncio
async def test_a_guest_that_hammers_a_handler_that_raises_does_not_fill_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with Raw.connect(bench.path) as raw:
        await raw.send(message(REGION_WRITE, access(0, FAULTY, 4, bytes(4)), flags=NO_REPLY) * 1000)
        await raw.send(message(REGION_READ, access(0, SCRATCH, 4)))
        await raw.receive()
    assert 1 <= sum("failed" in record.getMessage() for record in caplog.records) <= BURST
