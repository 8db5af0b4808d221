"""Bursts of posted writes while the device is busy, and a read at any moment behind them: each must be answered.

Linux' io_uring can miss the last message of such a burst (`overlooked` in bridge/hotpath/session.c says why): without
the server's own look, one in some 20,000 reads was never answered, the first within 40 seconds. The client is that of
the bench.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from pyvfio_user.bridge.server import serve
from pyvfio_user.devices.bench import Bench, Control

from ..bench.programs import await_socket, build, python, run_client, started
from ..bench.whole import ROOT

BUSY, BUSY_SECONDS = 1 << 31, 0.0003
"""A write of this keeps the device busy for so long, in which all others come."""


class Busy(Bench):
    """Takes its time for the first write of a burst."""

    @Control.handled.on_write
    def write_handled(self, value: int) -> None:
        """Do nothing, if need be for a while."""
        end = time.perf_counter() + BUSY_SECONDS
        while value & BUSY and time.perf_counter() < end:
            pass


def bursts(folder: Path, seconds: float) -> int:
    """How many bursts there were in so long. Raises BenchError when a read was not answered."""
    build(folder)
    path, log = folder / "busy.sock", folder / "busy.log"
    command = ["env", f"PYTHONPATH={ROOT}", *python("-m", __name__, str(path))]
    with started(command, None, log) as server:
        await_socket(path, server, log)
        return run_client(folder, "bursts", path, None, seconds).count


async def _main(path: str) -> None:
    """On asyncio's loop: one that spins receives by itself."""
    async with serve(Busy(), path):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
