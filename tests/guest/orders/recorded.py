"""What the bare-metal guest really does, recorded by the tracer in its QEMU, with the types that its tables give."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from pyvfio_user.bridge.attributes import MemoryType
from pyvfio_user.bridge.interconnect import Program
from pyvfio_user.bridge.stream import Event, Kind
from pyvfio_user.guest.battery import INDEX
from pyvfio_user.guest.boot import Booted, booted
from pyvfio_user.guest.orders.programs import DOORBELL, DOORBELL_BAR, WINDOW, WINDOW_BAR
from pyvfio_user.guest.plan import MAIR, Experiment, Range, Status
from pyvfio_user.guest.tracing import Tracer
from pyvfio_user.guest.workload import Barrier, Idiom, Workload

NORMAL_NC_STAGE2, NGNRE_STAGE2 = 5, 1


@dataclass(frozen=True)
class Recorder:
    """A guest that is traced: what it pushes or runs, with the window's stage 2 Normal-NC and the doorbell's nGnRE."""

    up: Booted
    tracer: Tracer

    async def push(self, idiom: Idiom, barrier: Barrier, kind: MemoryType) -> Program:
        """One entry of the poll-mode loop, at EL0, and its doorbell."""
        self.tracer.events()
        workload = Workload(
            el=0, idiom=idiom, barrier=barrier, count=1, slots=1,
            window_s1=MAIR.index(kind.byte), window_bar=WINDOW_BAR, window_offset=WINDOW,
            doorbell_s1=1, doorbell_bar=DOORBELL_BAR, doorbell_offset=DOORBELL,
        )  # fmt: skip
        pushed = await self.up.guest.workload(workload)
        assert (pushed.pushed, pushed.status) == (1, Status.DONE)
        return Program.recorded(_of_window(self.tracer.events()))

    async def run(self, name: str, kind: MemoryType) -> Program:
        """One operation of the battery, at EL1."""
        self.tracer.events()
        order = Experiment(0, INDEX[name], 1, MAIR.index(kind.byte), WINDOW_BAR, WINDOW, 0, DOORBELL_BAR, 1, DOORBELL)
        ran = await self.up.guest.run([order])
        assert ran.results[0].status == Status.DONE
        return Program.recorded(_of_window(self.tracer.events()))


@contextlib.asynccontextmanager
async def recorder() -> AsyncIterator[Recorder]:
    """Boot a guest that is traced."""
    with Tracer() as tracer:
        async with booted("max", extra=tracer.options) as up:
            window = Range(WINDOW_BAR, WINDOW, 1, NORMAL_NC_STAGE2, 0)
            await up.guest.install([window, Range(DOORBELL_BAR, DOORBELL, 1, NGNRE_STAGE2, 0)])
            yield Recorder(up, tracer)
            assert tracer.ring.dropped == 0


def _of_window(events: Iterable[Event]) -> list[Event]:
    """From the first access to the window to the last one there or to the doorbell, and hints behind."""
    every = list(events)
    places = [_place(event) for event in every]
    first = places.index("window")
    last = max(at for at, place in enumerate(places) if place)
    behind = next((at for at in range(last + 1, len(every)) if every[at].kind is not Kind.DGH), len(every))
    return [e for e, place in zip(every[first:behind], places[first:behind], strict=True) if place or not _access(e)]


def _access(event: Event) -> bool:
    return event.kind not in (Kind.BARRIER, Kind.DGH)


def _place(event: Event) -> str:
    if event.kind not in (Kind.STORE, Kind.ZERO, Kind.LOAD):
        return ""
    if event.bar == WINDOW_BAR and WINDOW <= event.offset < WINDOW + 4096:
        return "window"
    return "doorbell" if (event.bar, event.offset) == (DOORBELL_BAR, DOORBELL) else ""
