"""Bench devices in one process, as many as wanted: `python -m tests.bench.host FOLDER DEVICES`.

Serves `FOLDER/0.sock` and so on; writes `FOLDER/ready`. A timer is due every millisecond; for each line on standard
input it writes how late the timer was since the last one, in microseconds, to `FOLDER/report`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from pyvfio_user.bridge.loop import run
from pyvfio_user.bridge.server import serve
from pyvfio_user.devices.bench import Bench

PERIOD = 0.001


class Timer:
    """How late a timer of a busy event loop is."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self.start()

    def start(self) -> None:
        """Ask for the next call."""
        self._due = self._loop.time() + PERIOD
        self._loop.call_at(self._due, self._call)

    def report(self) -> dict[str, float]:
        """How many calls there were since the last report, and how late they were."""
        late, self.late = sorted(self.late), []
        return {"calls": len(late), "p99": late[len(late) * 99 // 100], "most": late[-1]}

    def _call(self) -> None:
        self.late.append((self._loop.time() - self._due) * 1e6)
        self.start()


async def host(folder: Path, devices: int) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    timer: Timer | None = None
    ended = loop.create_future()

    def command() -> None:
        nonlocal timer
        lines = os.read(0, 4096).split()
        if not lines:
            loop.remove_reader(0)
            ended.set_result(None)
        for line in lines:
            if line == b"timer":
                timer = Timer()
            elif timer is not None:
                (folder / "report.new").write_text(json.dumps(timer.report()))
                (folder / "report.new").rename(folder / "report")

    async with AsyncExitStack() as stack:
        for number in range(devices):
            await stack.enter_async_context(serve(Bench(), folder / f"{number}.sock"))
        loop.add_reader(0, command)
        (folder / "ready").touch()
        await ended


if __name__ == "__main__":
    run(host(Path(sys.argv[1]), int(sys.argv[2])))
