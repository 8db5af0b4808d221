"""Repetitions: each is the limit and every server in turn, and is done again when it was disturbed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .programs import BenchError, Sample
from .rows import Placement, Row, Unit

LIMIT, OURS = "limit", "ours"
TOLERATED = 0.05
"""Part of a CPU that others may have had during a repetition."""

EQUAL = 0.98
"""Of two servers' rates, those that are this close are the same: it is what repetitions differ by."""

Take = Callable[[str], Sample]


@dataclass
class Figures:
    """The repetitions of one row: of each server that could, its samples, in the order of the repetitions."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    redone: int = 0
    disturbed: bool = False
    """Too much was going on: these repetitions are disturbed, and CPU time is what to look at on one core."""
    failures: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """The median, in the row's unit."""
        samples = self.samples.get(name)
        return self._in_unit(median(self._rate(sample) for sample in samples)) if samples else None

    def ratios(self, name: str, to: str = LIMIT) -> list[float]:
        """Of each repetition, the rate over that of `to`."""
        pairs = zip(self.samples.get(name, ()), self.samples.get(to, ()), strict=False)
        return [self._rate(mine) / self._rate(other) for mine, other in pairs]

    @property
    def met(self) -> bool | None:
        """Is the target reached? None when there is nothing to tell it from."""
        row, ours = self.row, self.value(OURS)
        if ours is None:
            return False
        if self.disturbed and not self.by_cpu:
            return None
        wanted: list[bool] = []
        ratio = 1 / row.most if row.most is not None else row.ratio
        if ratio is not None and self.ratios(OURS):
            wanted.append(median(self.ratios(OURS)) >= ratio)
        if row.least is not None:
            wanted.append(ours >= row.least)
        if row.peers:
            others = [self.ratios(OURS, name) for name in self.samples if name not in (LIMIT, OURS)]
            wanted += [median(each) >= EQUAL for each in others]
        return all(wanted) if wanted else None

    @property
    def by_cpu(self) -> bool:
        """Whether rates are of CPU time."""
        return self.disturbed and self.row.placement is Placement.SAME

    def _rate(self, sample: Sample) -> float:
        return sample.cpu_rate if self.by_cpu else sample.rate

    def _in_unit(self, rate: float) -> float:
        if self.row.unit is Unit.TIME:
            return 1e6 / rate
        return rate * self.row.length / 1e9 if self.row.unit is Unit.BYTES else rate


def repeat(row: Row, takes: Mapping[str, Take], repetitions: int, attempts: int) -> Figures:
    """Measures a row `repetitions` times undisturbed; after `attempts`, it takes what it got and says so."""
    found = Figures(row)
    kept: list[tuple[float, dict[str, Sample]]] = []
    names = list(takes)
    for attempt in range(attempts):
        turn, worst = {}, 0.0
        for name in names if attempt % 2 == 0 else reversed(names):
            if name in found.failures:
                continue
            stolen, begun = _stolen(), time.monotonic()
            try:
                sample = takes[name](name)
            except BenchError as error:
                found.failures[name] = str(error)
                continue
            stolen = (_stolen() - stolen) / max(time.monotonic() - begun, 0.1)
            turn[name] = sample
            worst = max(worst, stolen, lost(row, name, sample))
        kept.append((worst, turn))
        if sum(each <= TOLERATED for each, _ in kept) == repetitions:
            break
    kept.sort(key=lambda each: each[0])  # the least disturbed
    found.redone = len(kept) - repetitions
    kept = kept[:repetitions]
    found.disturbed = any(worst > TOLERATED for worst, _ in kept)
    for name in names:
        if name not in found.failures:
            found.samples[name] = [turn[name] for _, turn in kept]
    return found


def lost(row: Row, name: str, sample: Sample) -> float:
    """The part of the time in which a side that should have run did not."""
    if row.placement is Placement.SAME:
        used = sample.client_cpu + sample.peer_cpu
    elif row.placement is Placement.POLLING:
        used = min(sample.client_cpu, sample.peer_cpu) if name == LIMIT else sample.client_cpu
    else:  # the client sleeps; only the limit program is known to spin
        used = sample.peer_cpu if name == LIMIT else sample.seconds
    return 1 - used / sample.seconds


def _stolen() -> float:
    """Seconds for which the hypervisor ran somebody else on the CPUs of this machine."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return float(fields[8]) / float(os.sysconf("SC_CLK_TCK"))
