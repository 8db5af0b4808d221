"""Devices behind an interconnect that reorders what a guest posts, by the labels of a tracer in its QEMU."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from ..bridge.endpoint import HasEndpoint
from ..bridge.explore.labels import Labels
from ..bridge.explore.served import WAIT
from ..bridge.explore.traced import Traced
from ..bridge.explore.watched import Watch
from .tracing import Tracer

FIRST_SLOT = 16
"""Of the root bus: devices are at this one and those behind it, so that their labels are known to be theirs."""
_READ_SECONDS = 0.01


@dataclass(frozen=True)
class Reordering:
    """What to serve in the devices' place, in which slots of the root bus, and more options for QEMU's command."""

    fronts: Sequence[Traced]
    slots: Sequence[int]
    options: Sequence[str]
    labels: Labels


@contextlib.asynccontextmanager
async def reordering(
    devices: Sequence[HasEndpoint],
    seed: int,
    *,
    speculate: float = 0.0,
    wait: float = WAIT,
    keep: Callable[[memoryview], object] | None = None,
    watch: Watch | None = None,
) -> AsyncIterator[Reordering]:
    """Have a seed pick one legal behaviour of what the guest posts to the trapped regions of these devices.

    `speculate` is the chance, before each access, of a read that nobody made, where the type permits it. `keep` is
    given the events that were traced, packed. `watch` draws the first device's run.

    Raises:
        BuildError, TraceError: the tracer cannot be built.
        DefinitionError: `speculate` is no chance.
    """
    with Tracer(eager=True) as tracer:
        labels = Labels(tracer.ring, keep)
        slots = range(FIRST_SLOT, FIRST_SLOT + len(devices))
        fronts = [
            Traced(device, labels, slot << 3, seed=seed, wait=wait, speculate=speculate, watch=each)
            for device, slot, each in zip(devices, slots, [watch, *[None] * len(devices)], strict=False)
        ]

        async def read() -> None:
            while True:
                labels.read()
                await asyncio.sleep(_READ_SECONDS)

        reader = asyncio.create_task(read())
        try:
            yield Reordering(fronts, slots, tracer.options, labels)
        finally:
            reader.cancel()
            await asyncio.wait((reader,))
            if not reader.cancelled():
                reader.result()
            for front in fronts:
                front.settle()
            labels.read()
