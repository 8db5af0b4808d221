"""One boot of the bare-metal guest: every scheme, with one CPU and one setting of HCR_EL2.FWB."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from ..bridge.attributes import MEMORY_TYPES, MemoryType, combine
from ..bridge.schemes import NOTHING, SCHEMES, Change, Decision, Host, Piece, Situation, settled
from .battery import SHORT
from .claims import CLAIMS
from .coverage import Coverage
from .deviations import ATTRIBUTES
from .hello import Hello
from .lanes.el2 import El2Lane, Ran
from .lanes.installation import Installation, Patch
from .lanes.places import PLACES
from .layout import DRIVER, GAP, LAYOUT, REQUEST, base_name, installation
from .results import Battery, Cell, HostCell, Verdict, worst

ALL_PAIRS = "all-pairs"
"""The pseudo scheme that installs every stage-2 attribute there is, on one range."""
PAIRS_RANGE = "wc-trapped"
STAGE2 = {0: (0, 1, 2, 3, 5, 6, 7, 9, 0xA, 0xB, 0xD, 0xE, 0xF), 1: (0, 1, 2, 3, 5, 6, 7)}
"""The MemAttr encodings that are not reserved, by FWB."""
CHANGED_PAGE = 1
"""The page of `dynamic` that becomes write-combining-safe while the guest runs."""


class Job(msgspec.Struct, frozen=True):
    """What to run: ``schemes`` by id, `ALL_PAIRS` among them; ``full``: every operation once per pair of types.

    ``ranges`` are those that batteries run on, by name; none: all. ``faults`` are those of `plan.Fault`.
    """

    cpu: str
    fwb: int
    schemes: tuple[str, ...]
    full: bool = True
    ranges: tuple[str, ...] = ()
    faults: int = 0


class JobResult(msgspec.Struct, frozen=True):
    """What a job found."""

    cells: tuple[Cell, ...]
    host: tuple[HostCell, ...]
    batteries: dict[str, Battery]
    problems: tuple[str, ...]
    shown: dict[str, int]
    missed: dict[str, str]
    experiments: int
    transactions: int
    features: tuple[str, ...]
    command: str = ""


_UNSEEN = (Verdict.UNOBSERVABLE, Verdict.UNOBSERVABLE)

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is next."""


class Runner:
    """Runs a job on a lane."""

    def __init__(self, lane: El2Lane, job: Job, progress: Progress) -> None:
        self.lane, self.job, self.progress = lane, job, progress
        self.cells: list[Cell] = []
        self.host: list[HostCell] = []
        self._coverage = Coverage(full=job.full)
        self._step = 0
        self._steps = 0

    async def run(self, open_page: Callable[[int], Awaitable[None]]) -> None:
        """Run all schemes. ``open_page`` has the guest tell the device to make a page of `dynamic` WC-safe."""
        schemes = [name for name in self.job.schemes if name != ALL_PAIRS]
        self._steps = 2 * len(schemes) + len(STAGE2[self.job.fwb]) * (ALL_PAIRS in self.job.schemes)
        if ALL_PAIRS in self.job.schemes:
            await self._all_pairs()
        decided = {name: self._decide(name) for name in schemes}
        for name, (asking, nothing) in decided.items():
            self._next(name)
            await self._case(name, "asking", asking)
            if nothing.pieces != asking.pieces:
                await self._case(name, "nothing", nothing)
        await open_page(CHANGED_PAGE)
        for name, (asking, _) in decided.items():
            self._next(f"{name}, page {CHANGED_PAGE} of dynamic opened")
            adaptation = SCHEMES[name].adapt(asking, Change("dynamic", CHANGED_PAGE))
            if adaptation.changed:
                await self._case(name, "changed", adaptation.decision)

    def _next(self, what: str) -> None:
        self.progress(self._step, self._steps, what)
        self._step += 1

    def _decide(self, name: str) -> tuple[Decision, Decision]:
        host = Host(bits=64, fwb=bool(self.job.fwb), dic=True)
        asking = settled(SCHEMES[name], Situation(LAYOUT, REQUEST, DRIVER, host))
        nothing = settled(SCHEMES[name], Situation(LAYOUT, NOTHING, DRIVER, host))
        return asking, nothing

    async def _all_pairs(self) -> None:
        for s2 in STAGE2[self.job.fwb]:
            self._next(f"stage-2 MemAttr {s2:x}")
            patches = {name: Patch(place, s2, None) for name, place in PLACES.items() if name == PAIRS_RANGE}
            doorbell = {"doorbell": Patch(PLACES["doorbell"], 1, None)}
            installed = Installation({**patches, **doorbell})
            await self.lane.install(installed, f"{ALL_PAIRS} s2={s2:x}")
            await self._guest_cells(ALL_PAIRS, "asking", PAIRS_RANGE, s2, installed)

    async def _case(self, scheme: str, case: str, decision: Decision) -> None:
        for piece in decision.pieces:
            self._check_claim(scheme, case, piece)
            if piece.refusal is not None and piece.range in PLACES and self._wanted(piece.range):
                self._refused(scheme, case, piece.range, f"{piece.refusal.name}: {piece.refusal.reason}")
        installed = installation(decision)
        await self.lane.install(installed, f"{scheme} ({case})")
        for name, patch in installed.patches.items():
            if self._wanted(base_name(name)):
                await self._guest_cells(scheme, case, name, patch.stage2, installed)
                await self._host_cell(scheme, case, name, patch, installed)

    def _wanted(self, name: str) -> bool:
        return not self.job.ranges or name in self.job.ranges

    def _check_claim(self, scheme: str, case: str, piece: Piece) -> None:
        """The scheme must decide what it is said to decide. KVM refuses a cacheable mapping without FWB (-EINVAL)."""
        claim = CLAIMS[scheme].stage2(piece.range, piece.bar, piece.first_page, case)
        wanted = "refused" if claim.is_write_back and not self.job.fwb else claim.name
        decided = piece.stage2.name if piece.stage2 else "refused"
        if decided != wanted:
            where = self._where(scheme, case, piece.range, f"page {piece.first_page}")
            self.lane.problem(where, f"the scheme's stage 2 must be {wanted}, not {decided}")

    def _refused(self, scheme: str, case: str, name: str, note: str) -> None:
        for s1 in self.lane.types:
            self.cells.append(
                self._cell(scheme, case, name, s1, None, None, None, Verdict.REFUSED, Verdict.REFUSED, note=note)
            )

    def _cell(
        self,
        scheme: str,
        case: str,
        name: str,
        s1: MemoryType,
        s2: int | None,
        architecture: str | None,
        observed: str | None,
        verdict: Verdict,
        accesses: Verdict,
        ran: Ran | None = None,
        full: str | None = None,
        note: str = "",
    ) -> Cell:
        return Cell(
            lane="el2",
            cpu=self.job.cpu,
            fwb=self.job.fwb,
            scheme=scheme,
            case=case,
            range=name,
            s1=str(s1),
            s2=None if s2 is None else f"{s2:x}",
            architecture=architecture,
            observed=observed,
            verdict=verdict,
            accesses=accesses,
            battery=ran.key if ran else None,
            full=full,
            experiments=ran.experiments if ran else 0,
            transactions=ran.transactions if ran else 0,
            note=note,
        )

    def _where(self, scheme: str, case: str, name: str, types: str) -> str:
        return f"{scheme} ({case}), {name}, {types}, FWB={self.job.fwb}, -cpu {self.job.cpu}"

    async def _guest_cells(self, scheme: str, case: str, name: str, s2: int, installed: Installation) -> None:
        for s1 in MEMORY_TYPES:
            expected = str(combine(s1, s2, bool(self.job.fwb)))
            if s1 not in self.lane.types:
                note = "the CPU has no FEAT_MTE2: this stage-1 encoding is reserved"
                verdict = Verdict.UNOBSERVABLE
                self.cells.append(self._cell(scheme, case, name, s1, s2, expected, None, verdict, verdict, note=note))
                continue
            where = self._where(scheme, case, name, f"s1={s1} s2={s2:x}")
            ran, full = await self._guest_battery(scheme, name, s1, s2, installed, where)
            verdict, note = self._attribute(s1, s2, expected, ran, where)
            accesses = self._counted(name, ran, full, where)
            observed = ran.byte("at-s12e1r")
            cell = self._cell(scheme, case, name, s1, s2, expected, observed, verdict, accesses, ran, full, note)
            self.cells.append(cell)

    async def _guest_battery(
        self, scheme: str, name: str, s1: MemoryType, s2: int, installed: Installation, where: str
    ) -> tuple[Ran, str | None]:
        """Run the battery that is due; with it, the key of the full one under the same types."""
        if name.startswith(GAP):
            return await self.lane.guest_battery(name, s1, (), "types", where), None
        if scheme == ALL_PAIRS:
            return await self.lane.guest_battery(name, s1, SHORT, "short", where), None
        base, types, following = base_name(name), ("guest", s1, s2), installed.following(name)
        beyond = None if following is None else (base_name(following), installed.patches[following].stage2)
        ops, size = self._coverage.choose(base, types, beyond)
        ran = await self.lane.guest_battery(name, s1, ops, size, where)
        self._coverage.ran(base, types, beyond, size, ran.key)
        return ran, self._coverage.full(base, types)

    async def _host_battery(
        self, name: str, host: MemoryType, installed: Installation, where: str
    ) -> tuple[Ran, str | None]:
        """The same through the host's own mapping."""
        if name.startswith(GAP):
            return await self.lane.host_battery(name, (), "types", where), None
        base, types, following = base_name(name), ("host", host), installed.following(name)
        beyond = None if following is None else (base_name(following), installed.patches[following].host)
        ops, size = self._coverage.choose(base, types, beyond)
        ran = await self.lane.host_battery(name, ops, size, where)
        self._coverage.ran(base, types, beyond, size, ran.key)
        return ran, self._coverage.full(base, types)

    def _counted(self, name: str, ran: Ran, full: str | None, where: str) -> Verdict:
        """The verdict of the battery, and of the full one under the same types.

        A battery that made nothing, or left no trace at the device, proves nothing: a disagreement.
        """
        if name.startswith(GAP):
            return Verdict.UNOBSERVABLE
        if ran.experiments and ran.transactions:
            return worst([ran.verdict, *([self.lane.batteries[full].verdict] if full else [])])
        found = f"{ran.experiments} experiments and {ran.transactions} transactions"
        self.lane.problem(where, f"the battery must leave a trace, not {found}")
        return Verdict.DISAGREE

    def _attribute(self, s1: MemoryType, s2: int, expected: str, ran: Ran, where: str) -> tuple[Verdict, str]:
        """Compare PAR_EL1 of each AT instruction with the architecture."""
        stage1, observed = ran.byte("at-s1e1r"), ran.byte("at-s12e1r")
        problems = []
        if stage1 != str(s1):
            problems.append(f"AT S1E1R must give {s1}, not {stage1}")
        for read, write in (("at-s1e1r", "at-s1e1w"), ("at-s12e1r", "at-s12e1w")):
            if ran.byte(read) != ran.byte(write):
                problems.append(f"{write} must give {ran.byte(read)} as {read} does, not {ran.byte(write)}")
        listed = ATTRIBUTES.get((self.job.fwb, str(s1), f"{s2:x}"))
        deviation = f"attribute {s1} over {s2:x}, FWB={self.job.fwb}"
        verdict, note = Verdict.AGREE, ""
        if observed is None:
            problems.append(f"the effective type must be {expected}, not a translation fault")
        elif str(MemoryType(int(observed, 16)).canonical) == expected:
            if listed:
                self.lane.tally.missed[deviation] = where
        elif listed and listed[0] == observed:
            verdict, note = Verdict.KNOWN_DEVIATION, listed[1]
            self.lane.tally.shown[deviation] = self.lane.tally.shown.get(deviation, 0) + 1
        else:
            problems.append(f"the effective type must be {expected}, not {observed}")
        if observed is not None:
            kind = MemoryType(int(observed, 16))
            if (kind.is_device or kind.is_non_cacheable) and ran.shareability("at-s12e1r") != 0b10:
                problems.append(f"PAR_EL1.SH must be 0b10 for {kind.name}, not {ran.shareability('at-s12e1r'):#04b}")
        for problem in problems:
            self.lane.problem(where, problem)
        return (Verdict.DISAGREE, "; ".join(problems)) if problems else (verdict, note)

    async def _host_cell(self, scheme: str, case: str, name: str, patch: Patch, installed: Installation) -> None:
        """Run the battery through the host's own mapping."""
        blank = HostCell("el2", self.job.cpu, self.job.fwb, scheme, case, name, None, None, *_UNSEEN)
        if patch.host is None:
            self.host.append(msgspec.structs.replace(blank, note="no process of the host maps it"))
            return
        where = self._where(scheme, case, name, f"host type {patch.host}")
        ran, full = await self._host_battery(name, patch.host, installed, where)
        observed = ran.byte("at-s1e2r")
        if observed != str(patch.host):
            self.lane.problem(where, f"AT S1E2R must give {patch.host}, not {observed}")
        cell = msgspec.structs.replace(
            blank,
            type=str(patch.host),
            observed=observed,
            verdict=Verdict.AGREE if observed == str(patch.host) else Verdict.DISAGREE,
            accesses=self._counted(name, ran, full, where),
            battery=ran.key,
            full=full,
            experiments=ran.experiments,
            transactions=ran.transactions,
        )
        self.host.append(cell)

    def result(self, hello: Hello, command: str) -> JobResult:
        """What was found."""
        tally = self.lane.tally
        return JobResult(
            tuple(self.cells),
            tuple(self.host),
            self.lane.batteries,
            tuple(dict.fromkeys(tally.problems)),
            tally.shown,
            tally.missed,
            tally.experiments,
            tally.transactions,
            tuple(sorted(hello.features)),
            command,
        )
