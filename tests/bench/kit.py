"""The bench device with a mapped doorbell of the kit's, each ring of which a handler in Python answers.

usage: python -m tests.bench.kit SOCKET
"""

from __future__ import annotations

import asyncio
import sys

from pyvfio_user.bridge.loop import run
from pyvfio_user.bridge.server import serve
from pyvfio_user.devices import Bar, Doorbell, KiB, MiB, Registers, WriteCombineWindow
from pyvfio_user.devices.bench import Bench


class Bells(Registers):
    """The first page of BAR 2: what a client stores there rings, and it looks for the answer behind."""

    bell = Doorbell(0x000, mapped=True)


class Kit(Bench):
    """Needs no telling to poll: memory space that is enabled is enough."""

    bar2 = Bar(size=16 * MiB, bits=64, prefetchable=True)  # type: ignore[assignment]
    bells = bar2.place(Bells, 0)
    window = bar2.place(WriteCombineWindow(16 * MiB - 4 * KiB, mapped=True), 4 * KiB)

    def __init__(self) -> None:
        super().__init__()
        self._answer = self.endpoint.regions[2].memory[0x80:0x84].cast("I")

    @Bells.bell.rung
    def answer(self, index: int, value: int) -> None:
        """Answer where the measuring client looks."""
        self._answer[0] = value


async def _serve(path: str) -> None:
    async with serve(Kit(), path):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    run(_serve(sys.argv[1]))
