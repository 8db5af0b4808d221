"""Turn a battery into experiments: which operation, at which exception level, cold or warm, in which slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import cycle

from ...devices.probe_map import Reg
from ..battery import INDEX
from ..operation import Kind, Op
from ..plan import Experiment, RunFlag
from .places import Place

Modes = tuple[tuple[int, bool], ...]

GUEST_MODES: Modes = ((1, False), (1, True), (0, False), (0, True))
"""(exception level, warm): a guest's kernel and its user space, after a TLBI and again with the page in the TLB."""
SHORT_MODES: Modes = ((1, False), (0, True))
"""Those of a short battery."""
HOST_MODES: Modes = ((2, False), (2, True))
"""As the host's own mapping, from EL2."""

_WARM, _UNMARKED = int(RunFlag.WARM), int(RunFlag.UNMARKED)

DOORBELL_BAR, DOORBELL_OFFSET, DOORBELL_S1 = 0, int(Reg.DOORBELL), 1
"""Where operations with a doorbell ring it: a register, mapped Device-nGnRE (MAIR slot 1) by the guest."""


@dataclass(frozen=True)
class Trial:
    """One experiment to be made; ``beyond`` is the range that a crossing operation ends in, if it is another.

    ``marked``: the guest writes the probe's MARK register first, so that the log is cut there. The trials up to the
    next mark have each a slot of their own, by which the log tells them apart.
    """

    op: Op
    el: int
    warm: bool
    offset: int
    beyond: str | None = None
    marked: bool = True

    @cached_property
    def row(self) -> str:
        """The name of its row in the report."""
        return f"{self.op.name} into {self.beyond}" if self.beyond else self.op.name

    @cached_property
    def mode(self) -> str:
        """Where and how it runs, for people: "EL1 cold"."""
        return f"EL{self.el} {'warm' if self.warm else 'cold'}"

    def experiment(self, place: Place, s1: int, mark: int) -> Experiment:
        """The guest's order; ``s1`` is an index in `plan.MAIR`."""
        flags = (_WARM if self.warm else 0) | (0 if self.marked else _UNMARKED)
        doorbell = (DOORBELL_BAR, DOORBELL_S1, DOORBELL_OFFSET) if self.op.doorbell else (0, 0, 0)
        return Experiment(mark, INDEX[self.op.name], self.el, s1, place.bar, self.offset, flags, *doorbell)


@cache
def schedule(
    place: Place, beyond: str | None, ops: tuple[Op, ...], modes: Modes, features: frozenset[str]
) -> tuple[tuple[Trial, ...], ...]:
    """The trials of a battery on a range, in batches; ``beyond`` names the next range, if operations can cross into it.

    Operations that need a feature the CPU lacks are left out. Trapped ranges may use a slot again and again, since each
    transaction is recorded; of a mapped range only the final bytes can be seen, so no two trials of a batch share one.
    """
    batches: list[list[Trial]] = [[]]
    used: set[int] = set()
    for trial in _trials(place, beyond, ops, modes, features):
        again = trial.offset in used
        if again:
            used.clear()
        if again and not place.trapped:
            batches.append([])
        # What a doorbell or a neighbouring page gets has no slot: it is the mark that tells whose it is.
        marked = again or not batches[-1] or trial.op.crossing or trial.op.doorbell
        used.add(trial.offset)
        batches[-1].append(replace(trial, marked=marked))
    return tuple(map(tuple, batches))


def _trials(
    place: Place, beyond: str | None, ops: tuple[Op, ...], modes: Modes, features: frozenset[str]
) -> Iterator[Trial]:
    slots, ends = cycle(place.slots), cycle(place.page_ends)
    for op in ops:
        if op.kind is Kind.TRANSLATE or (op.feature is not None and op.feature not in features):
            continue
        for el, warm in modes[:1] if op.once else modes:
            if el not in op.levels:
                continue
            if not op.crossing:
                yield Trial(op, el, warm, next(slots))
                continue
            if place.page_ends:
                yield Trial(op, el, warm, next(ends))
            if beyond:
                yield Trial(op, el, warm, place.edge, beyond)
