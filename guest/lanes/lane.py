"""What lanes with a bare-metal guest share: it is told what to install, runs batteries, and each experiment is judged.

Which scheme an installation is from is no business of a lane.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as MappingABC
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ...bridge.attributes import MEMORY_TYPES, Implementation, MemoryType, Page
from ...bridge.recorder import Transaction
from ...devices.mailbox import Submission
from ...devices.probe import Probe
from ..commander import Guest
from ..deviations import Deviation
from ..expectation import Mapping, expect
from ..hello import Hello
from ..judge import Arrival, Judge, Judgement, sizes
from ..operation import SLOT, Op
from ..plan import Experiment, Result
from ..results import Battery, Row, Verdict, worst
from .evidence import Memory, attribute, behind_ring, final_bytes, split
from .installation import Installation
from .places import Place
from .trials import Modes, Trial, schedule

IN_THE_WINDOW = "in the window"
"""What a mapped window got, for people, when bytes of it changed."""


@dataclass(frozen=True)
class Ran:
    """A battery that was run: its key in `Lane.batteries`, its counts, and PAR_EL1 by AT instruction."""

    key: str
    verdict: Verdict
    experiments: int
    transactions: int
    trace: int
    """What shows that the device had to do with it: accesses it recorded (marks are none), or slots of a mapped window
    that changed; of a platform device, which keeps no record, the experiments."""
    par: MappingABC[str, int]

    def byte(self, name: str) -> str | None:
        """PAR_EL1.ATTR as two hex digits; None when the translation failed (PAR_EL1.F)."""
        par = self.par.get(name, 1)
        return None if par & 1 else f"{par >> 56:02x}"

    def shareability(self, name: str) -> int:
        """PAR_EL1.SH."""
        return self.par[name] >> 7 & 3


@dataclass
class Tally:
    """What a lane found besides its cells: disagreements, and how often each known deviation showed or failed to.

    A deviation of accesses is counted by instruction and by cold or warm, one of attributes by its pair of types.
    """

    experiments: int = 0
    transactions: int = 0
    problems: list[str] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)
    missed: dict[str, str] = field(default_factory=dict)
    """Known deviations that did not show where they should have: where it was noticed first."""


class Lane:
    """Drives one running guest; ``fwb`` is HCR_EL2.FWB of all its installations."""

    def __init__(self, guest: Guest, probe: Probe, hello: Hello, *, fwb: bool) -> None:
        self.guest, self.probe, self.hello, self.fwb = guest, probe, hello, fwb
        self.tally = Tally()
        self.batteries: dict[str, Battery] = {}
        self._implementation = Implementation(lse2="lse2" in hello.features)
        self._installation = Installation({})
        self._judges: dict[tuple[str, int, Mapping], Judge] = {}
        self._mark = 0
        self._memory = Memory()
        self._memory.fill({index: probe.endpoint.regions[index].memory for index in (0, 2)})

    @property
    def types(self) -> tuple[MemoryType, ...]:
        """The stage-1 types that this CPU has: the tagged one needs FEAT_MTE2."""
        return MEMORY_TYPES if "mte" in self.hello.features else MEMORY_TYPES[:-1]

    def problem(self, where: str, text: str) -> None:
        """Note a disagreement."""
        self.tally.problems.append(f"{where}: {text}")

    async def battery(
        self,
        name: str,
        s1: MemoryType,
        s2: int | None,
        ops: tuple[Op, ...],
        size: str,
        where: str,
        *,
        at: tuple[Op, ...],
        modes: Modes,
    ) -> Ran:
        """Run operations on a patch under a pair of types (``s2`` None: one stage), and before them those of ``at``."""
        place = self._installation.patches[name].place
        batches = schedule(place, self._installation.following(name), ops, modes, self.hello.features)
        translations = tuple(Trial(op, op.levels[0], False, place.arena_offset) for op in at)
        rows: dict[str, _RowBuilder] = {}
        par: dict[str, int] = {}
        experiments = transactions = trace = 0
        for trials in (translations + batches[0], *batches[1:]):
            ran = await self._run(place, MEMORY_TYPES.index(s1), trials)
            marked = [(trial, order.mark) for trial, order in zip(trials, ran.orders, strict=True)]
            logs, problems = attribute(ran.submission.transactions, marked, place)
            for problem in problems:
                self.problem(where, problem)
            experiments += len(trials)
            transactions += len(ran.submission.transactions)
            for trial, order, result, log in zip(trials, ran.orders, ran.results, logs, strict=True):
                if trial.op in at:
                    par[trial.op.name] = result.value0
                else:
                    judge = self._judge_of(trial, self._mapping(s1, s2, name, trial.beyond))
                    judgement, device = self.judge(trial, order, result, place, judge, log, ran.submission)
                    self._memory.apply(log)
                    trace += 1 if place.unrecorded else len(log) if place.trapped else device == IN_THE_WINDOW
                    builder = rows.setdefault(trial.row, _RowBuilder(trial))
                    builder.add(trial, judgement, device, judge.expected)
                    self._count(judgement, trial, f"{where}: {trial.row}, {trial.mode}")
        if dropped := self.probe.endpoint.recorder.dropped:
            self.problem(where, f"the device's log must be whole, not short of {dropped} entries")
        battery = Battery("", size, tuple(row.build() for row in rows.values()))
        key = hashlib.sha256(msgspec.json.encode(battery)).hexdigest()[:12]
        self.batteries[key] = msgspec.structs.replace(battery, key=key)
        self.tally.experiments += experiments
        self.tally.transactions += transactions
        return Ran(key, battery.verdict, experiments, transactions, trace, par)

    async def _run(self, place: Place, s1: int, trials: Sequence[Trial]) -> _Batch:
        orders = []
        for trial in trials:
            self._mark = self._mark % 0xFFFF_FFFF + 1
            orders.append(trial.experiment(place, s1, self._mark))
        if not place.trapped:
            self.probe.bar2.memory[:] = self._memory.window
        results = (await self.guest.run(orders)).results
        return _Batch(orders, results, self.guest.last)

    def _mapping(self, s1: MemoryType, s2: int | None, name: str, beyond: str | None) -> Mapping:
        if beyond is None:
            return Mapping(s1, s2, self.fwb)
        patch = self._installation.patches[beyond]
        page = Page(patch.host or MEMORY_TYPES[0]) if s2 is None else Page(s1, patch.stage2)
        return Mapping(s1, s2, self.fwb, page)

    def _judge_of(self, trial: Trial, mapping: Mapping) -> Judge:
        key = (trial.op.name, trial.el, mapping)
        found = self._judges.get(key)
        if found is None:
            expectation = expect(trial.op, mapping, trial.el, self._implementation)
            found = self._judges[key] = Judge(expectation, mapping)
        return found

    def judge(
        self,
        trial: Trial,
        order: Experiment,
        result: Result,
        place: Place,
        judge: Judge,
        log: Sequence[Transaction],
        submission: Submission,
    ) -> tuple[Judgement, str]:
        """The verdict on one trial, and what the device got, for people."""
        before = self._memory.span(place, trial.offset, 2 * SLOT if trial.op.crossing else SLOT)
        s1 = MEMORY_TYPES.index(judge.mapping.s1)
        far = self.hello.address(el=trial.el, s1=s1, bar=place.bar, offset=trial.offset)
        accesses, rings = split(log, place, trial.offset)
        rung = [each.data for each in rings]
        if place.unrecorded:
            if accesses:
                return Judgement(
                    "", Verdict.DISAGREE, f"the device must get nothing, not {sizes(accesses)}"
                ), "accesses"
            return judge.judge(order, result, before, far=far, rung=rung), "not recorded"
        if place.trapped:
            late = behind_ring(log)
            found = judge.judge(order, result, before, far=far, rung=rung, late=late, arrivals=accesses)
            return found, _device(accesses, rings)
        after = final_bytes(self._memory, place, trial.offset, len(before), submission.window, log)
        device = IN_THE_WINDOW if after != before else "no byte changed"
        return judge.judge(order, result, before, far=far, rung=rung, after=after), device

    def _count(self, judgement: Judgement, trial: Trial, where: str) -> None:
        if judgement.deviation is not None:
            key = _deviation_key(judgement.deviation, trial)
            self.tally.shown[key] = self.tally.shown.get(key, 0) + 1
        if judgement.missed is not None:
            self.tally.missed.setdefault(_deviation_key(judgement.missed, trial), where)
        if judgement.verdict is Verdict.DISAGREE:
            self.problem(where, f"{judgement.why} (observed: {judgement.observed})")


@dataclass(frozen=True)
class _Batch:
    orders: Sequence[Experiment]
    results: Sequence[Result]
    submission: Submission


class _RowBuilder:
    """Collects the trials of one operation."""

    def __init__(self, trial: Trial) -> None:
        self.name = trial.row
        self.expected: dict[str, None] = {}
        self.observed: dict[str, str] = {}
        self.device: dict[str, None] = {}
        self.why: dict[str, None] = {}
        self.verdicts: list[Verdict] = []

    def add(self, trial: Trial, judgement: Judgement, device: str, expected: str) -> None:
        self.expected[expected] = None
        self.observed[trial.mode] = judgement.observed
        self.device[device] = None
        self.verdicts.append(judgement.verdict)
        if judgement.why:
            self.why[judgement.why] = None

    def build(self) -> Row:
        return Row(
            self.name,
            " | ".join(self.expected),
            self.observed,
            " | ".join(self.device),
            worst(self.verdicts),
            "; ".join(self.why),
        )


def _deviation_key(deviation: Deviation, trial: Trial) -> str:
    """A deviation shows, or vanishes, by instruction and by whether the page was in the TLB."""
    return f"{deviation.name}: {trial.op.name}, {'warm' if trial.warm else 'cold'}"


def _device(accesses: Sequence[Arrival], rings: Sequence[Transaction]) -> str:
    return sizes(accesses) + (", doorbell" if rings else "")
