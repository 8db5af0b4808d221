"""Named write-combining buffers and root complexes: each picks a legal behaviour by a seed, of a program of any length.

How often a burst is one TLP is a property of a profile, and says nothing about any hardware: that publishes no buffers.
A profile gives out only what the order permits: before a block goes, all that it must not be ahead of has gone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from ..errors import DefinitionError
from ..stream import Kind
from .behaviours import Behaviour
from .effects import Effect, Op
from .order import Order, bits
from .tlp import DEFAULT_LINK, Link


class Eviction(Enum):
    """Which buffer goes when another line needs one."""

    OLDEST = "the first that was opened"
    LEAST_RECENT = "the one that was not written for longest"
    FULLEST = "the one with most bytes"
    RANDOM = "any"


class Line(NamedTuple):
    """A line of a buffer: `number` counts lines from the BAR's start."""

    peripheral: int | None
    bar: int | None
    number: int


class Step(NamedTuple):
    """One thing that buffers did when the program had come to `position`: an effect came in, or a block went.

    `entry` names a buffer, from when it is filled to when it is empty; without a `line`, what waits outside of the
    buffers. A block may have parts of several entries. `why` it went.
    """

    position: int
    effect: int | None = None
    entry: int = 0
    line: Line | None = None
    block: int = 0
    why: str = ""


@dataclass(frozen=True)
class Profile:
    """Write-combining buffers, and what is behind them.

    `buffers`: how many, 0 for none; `line`: bytes of each, 16 to 128. A full one goes at once. `drain`: the chance,
    after each access, that a buffer goes although nothing asks for it; `partial`: that only a part of it goes. `hint`:
    DGH empties them. `reorder`: how many accesses wait outside of the buffers, for whichever goes first by chance.
    `forward`: a buffer answers loads of its bytes. `speculate`: the chance that a speculative read is made.
    Raises DefinitionError.
    """

    name: str
    buffers: int = 4
    line: int = 64
    eviction: Eviction = Eviction.OLDEST
    drain: float = 0.02
    partial: float = 0.0
    hint: bool = True
    reorder: int = 0
    forward: bool = True
    speculate: float = 0.5
    link: Link = field(default=DEFAULT_LINK)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.line not in (16, 32, 64, 128):
            raise DefinitionError(f"line must be 16, 32, 64 or 128 bytes, not {self.line}")
        for name in ("buffers", "reorder"):
            if not 0 <= getattr(self, name) <= 64:
                raise DefinitionError(f"{name} must be 0 to 64, not {getattr(self, name)}")
        for name in ("drain", "partial", "speculate"):
            if not 0 <= getattr(self, name) <= 1:
                raise DefinitionError(f"{name} must be 0 to 1, not {getattr(self, name)}")

    def run(self, order: Order, seed: int | random.Random) -> Behaviour:
        """One behaviour; the same seed gives the same one."""
        return tuple(step.block for step in self.steps(order, seed) if step.block)

    def steps(self, order: Order, seed: int | random.Random) -> list[Step]:
        """The same, and how the buffers came to it."""
        chance = seed if isinstance(seed, random.Random) else random.Random(seed)
        return _Run(self, order, chance).steps()


@dataclass
class _Pending:
    """What waits: a buffer, with its line, or accesses that none took, which go as one."""

    number: int
    line: Line | None
    mask: int
    used: int
    bytes: int = 0


@lru_cache(maxsize=8)
def _fixed(order: Order, size: int) -> tuple[tuple[Line | None, ...], tuple[int, ...]]:
    """What is the same in all runs: each effect's line of so many bytes, and the positions of hints.

    The line is of a store that may be gathered and lies in one; None: it passes the buffers by.
    """

    def line(effect: Effect) -> Line | None:
        passes = effect.in_ram or effect.op is not Op.WRITE or not effect.gathering
        if passes or effect.offset // size != (effect.end - 1) // size:
            return None
        return Line(effect.event.peripheral, effect.event.bar, effect.offset // size)

    hints = (at for at, event in enumerate(order.effects.program.events) if event.kind is Kind.DGH)
    return tuple(map(line, order.effects)), tuple(hints)


class _Run:
    def __init__(self, profile: Profile, order: Order, chance: random.Random) -> None:
        self._profile = profile
        self._order = order
        self._chance = chance
        self._pending: list[_Pending] = []
        self._done = 0
        self._absent = 0
        self._rows = order.rows
        self._steps: list[Step] = []
        self._position = 0
        self._entries = 0
        self._lines, self._hints = _fixed(order, profile.line)

    def steps(self) -> list[Step]:
        hints = iter(self._hints)
        hint = next(hints, None)
        self._decide()
        for effect in self._order.effects:
            while hint is not None and hint < effect.position:
                self._position, hint = hint, next(hints, None)
                self._hint(self._order.effects.program.events[self._position].vcpu)
            self._position = effect.position
            if not effect.bit & self._absent:
                self._take(effect)
        self._position = len(self._order.effects.program.events)
        while self._pending:
            self._emit(self._chance.choice(self._pending).mask, "in the end all goes")
        return self._steps

    def _decide(self) -> None:
        """Which of the reads that need not arrive do not."""
        for index in bits(self._order.optional):
            effect = self._order.effects[index]
            missing = self._chance.random() >= self._profile.speculate if effect.optional else self._answered()
            self._absent |= effect.bit if missing else 0
        if self._absent:
            self._rows = self._order.without(self._absent)

    def _answered(self) -> bool:
        return self._profile.buffers > 0 and self._profile.forward and self._chance.random() < 0.5

    def _hint(self, vcpu: int) -> None:
        """Each buffer goes, as far as it is of this vCPU."""
        if self._profile.hint:
            mine = sum(effect.bit for effect in self._order.effects if effect.vcpu == vcpu)
            for mask in [entry.mask & mine for entry in self._pending if entry.line]:
                self._emit(mask, "a hint, DGH")

    def _take(self, effect: Effect) -> None:
        profile = self._profile
        line = self._lines[effect.index]
        if profile.buffers and line is not None:
            self._buffer(effect, line)
        else:
            self._queue(effect)
        waiting = [entry for entry in self._pending if entry.line]
        if waiting and self._chance.random() < profile.drain:
            victim = self._chance.choice(waiting)
            partly = self._chance.random() < profile.partial
            self._emit(
                self._part(victim.mask) if partly else victim.mask, "a part, by chance" if partly else "by chance"
            )

    def _opened(self, line: Line | None) -> _Pending:
        self._entries += 1
        entry = _Pending(self._entries, line, 0, 0)
        self._pending.append(entry)
        return entry

    def _join(self, entry: _Pending, effect: Effect) -> None:
        entry.mask |= effect.bit
        entry.used = effect.index
        entry.bytes += effect.size
        self._steps.append(Step(self._position, effect.index, entry.number, entry.line))

    def _buffer(self, effect: Effect, line: Line) -> None:
        entry = next((entry for entry in self._pending if entry.line == line and self._joins(effect, entry)), None)
        if entry is None:
            buffers = [entry for entry in self._pending if entry.line]
            if len(buffers) >= self._profile.buffers:
                self._emit(self._victim(buffers).mask, "its buffer is needed")
            entry = self._opened(line)
        self._join(entry, effect)
        if entry.bytes >= self._profile.line:
            self._emit(entry.mask, "full")

    def _joins(self, effect: Effect, entry: _Pending) -> bool:
        return not entry.mask & ~self._rows.gather[effect.index]

    def _victim(self, buffers: list[_Pending]) -> _Pending:
        match self._profile.eviction:
            case Eviction.OLDEST:
                return buffers[0]
            case Eviction.LEAST_RECENT:
                return min(buffers, key=lambda entry: entry.used)
            case Eviction.FULLEST:
                return max(buffers, key=lambda entry: entry.bytes)
            case Eviction.RANDOM:
                return self._chance.choice(buffers)

    def _queue(self, effect: Effect) -> None:
        """Elements of one instruction go as one where they may, by chance; else each access goes by itself."""
        last = next((entry for entry in reversed(self._pending) if entry.line is None), None)
        together = last is not None and self._same_instruction(effect, last) and self._joins(effect, last)
        if last is not None and together and self._chance.random() < 0.5:
            self._join(last, effect)
        else:
            self._join(self._opened(None), effect)
        waiting = [entry for entry in self._pending if entry.line is None]
        if len(waiting) > self._profile.reorder + 1:
            self._emit(self._chance.choice(waiting[:-1]).mask, "another waits")

    def _same_instruction(self, effect: Effect, entry: _Pending) -> bool:
        """Of an entry outside of the buffers, which has elements of one instruction alone."""
        return self._order.effects[entry.used].instruction == effect.instruction

    def _part(self, mask: int) -> int:
        return sum(1 << index for index in bits(mask) if self._chance.random() < 0.5) or mask & -mask

    def _emit(self, wanted: int, why: str) -> None:
        """Let these go, and before them whatever must not be after them."""
        while left := wanted & ~self._done:
            if part := self._ready(left):
                self._send(part, why)
                continue
            ahead = 0
            for index in bits(left):
                ahead |= self._rows.not_after[index] & ~self._done
            for entry in self._pending:
                if part := self._ready(entry.mask & ahead) and self._ready(entry.mask):
                    self._send(part, "it must be ahead of what goes next")
                    break

    def _ready(self, mask: int) -> int:
        """Those of the effects that can go now as one block."""
        found = 0
        for index in bits(mask):
            if not self._rows.before[index] & ~self._done and not self._rows.not_after[index] & ~(self._done | found):
                found |= 1 << index
        return found

    def _send(self, block: int, why: str) -> None:
        self._steps.append(Step(self._position, block=block, why=why))
        self._done |= block
        for entry in self._pending:
            if entry.mask & block:
                entry.bytes -= sum(self._order.effects[i].size for i in bits(entry.mask & block))
                entry.mask &= ~block
        self._pending = [entry for entry in self._pending if entry.mask]


def _named(*profiles: Profile) -> Iterator[tuple[str, Profile]]:
    for profile in profiles:
        yield profile.name, profile


PROFILES = MappingProxyType(
    dict(
        _named(
            Profile("in-order", buffers=0),
            Profile("reorder-only", buffers=0, reorder=8),
            Profile("wc-16x4", line=16),
            Profile("wc-32x4", line=32),
            Profile("wc-64x1", buffers=1),
            Profile("wc-64x4"),
            Profile("wc-64x10", buffers=10, eviction=Eviction.LEAST_RECENT),
            Profile("wc-128x4", line=128, eviction=Eviction.FULLEST),
            Profile("wc-64x4-partial", drain=0.2, partial=0.7, eviction=Eviction.RANDOM),
            Profile("wc-64x4-no-hint", hint=False),
            Profile("wc-64x4-reorder", eviction=Eviction.RANDOM, reorder=8, drain=0.1),
            Profile("rc-splits-4", link=Link(atom=4)),
        )
    )
)
"""The profiles by name: lines and numbers of buffers that are seen in cores, and what is hostile to drivers."""


def find_profile(name: str) -> Profile:
    """The profile of this name. Raises DefinitionError when there is none."""
    if name not in PROFILES:
        raise DefinitionError(f"profile must be one of {', '.join(PROFILES)}, not {name}")
    return PROFILES[name]
