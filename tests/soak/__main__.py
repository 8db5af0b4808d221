"""10,000 connects, bursts and turns for a tenth of SOAK_SECONDS (600) each, and a QEMU for all of it.

Exit status 1 when the server keeps anything of the clients, or does not answer each read once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from pyvfio_user.bridge.loop import run
from pyvfio_user.bridge.server import serve
from pyvfio_user.guest.machines import load_config
from pyvfio_user.guest.provision.qemu import find_qemu
from pyvfio_user.guest.qtest import qtest_machine

from ..bridge.bench import BenchDevice
from ..qemu.hotplug import ROOT_PORT, MsiOnly
from .bursts import bursts
from .connects import session
from .machine import Soak
from .resources import Resources, table
from .turns import turns

CONNECTS, WARM_UP_CONNECTS, WARM_UP_TURNS = 10_000, 400, 20


async def soak_connects(folder: Path) -> list[tuple[str, Resources]]:
    """Clients one after another; the resources after the warm-up and at the end."""
    device = BenchDevice()
    async with serve(device, folder / "connects") as server:
        for number in range(WARM_UP_CONNECTS):
            await session(device, server, number)
        before = Resources.now()
        for number in range(CONNECTS):
            await session(device, server, number)
        return [("warm", before), (f"{CONNECTS:,} connects later", Resources.now())]


async def soak_machine(folder: Path, seconds: float) -> list[tuple[str, Resources]]:
    """A QEMU that is reset and plugged for so long; the resources after the warm-up and at the end."""
    fixed, plugged = BenchDevice(), MsiOnly()
    async with serve(fixed, folder / "fixed") as one, serve(plugged, folder / "plugged") as other:
        command = load_config("qtest").command(find_qemu().require().path, [one.path], extra=ROOT_PORT)
        async with qtest_machine(command, timeout=seconds + 120) as machine:
            soak = Soak(machine, fixed, plugged, other)
            for number in range(WARM_UP_TURNS):
                await soak.turn(number)
            before = Resources.now()
            turns, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                await soak.turn(turns)
                turns += 1
            return [("QEMU, warm", before), (f"{turns:,} plugs, {2 * turns:,} resets later", Resources.now())]


async def soak(seconds: float) -> int:
    """All, one after the other, and the table."""
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-soak-") as folder:
        rows = await soak_connects(Path(folder))
        print(f"{bursts(Path(folder), seconds / 10):,} bursts, each read behind them answered")
        count, kept = turns(Path(folder), seconds / 10)
        print(f"{count:,} turns of a client that polls, each read done once; descriptors kept: {kept}")
        rows += await soak_machine(Path(folder), seconds)
    print(table(rows))
    status = 1 if kept else 0
    for (_, before), (name, after) in (rows[:2], rows[2:]):
        for what, excess in after.grown(before).items():
            print(f"{name}: {what} must not grow by more than the slack, not by {excess:,} more", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(run(soak(float(os.environ.get("SOAK_SECONDS") or 600))))
