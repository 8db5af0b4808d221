"""One boot of the bare-metal guest: every scheme, with one CPU and one setting of HCR_EL2.FWB."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ..bridge.attributes import MEMORY_TYPES, MemoryType, combine
from ..bridge.errors import DefinitionError
from ..bridge.schemes import NOTHING, SCHEMES, Change, Decision, Host, Piece, Situation, settled
from .battery import SHORT
from .claims import CLAIMS
from .coverage import Coverage
from .deviations import ATTRIBUTES
from .hello import Hello
from .lanes.el2 import El2Lane
from .lanes.installation import Installation, Patch
from .lanes.lane import Ran
from .lanes.places import PLACES
from .layout import DRIVER, GAP, LAYOUT, REQUEST, base_name, installation
from .results import Battery, Cell, Finding, HostCell, Kernel, Proof, Verdict, worst

ALL_PAIRS = "all-pairs"
"""The pseudo scheme that installs every stage-2 attribute there is, on one range."""
PAIRS_RANGE = "wc-trapped"
STAGE2 = {0: (0, 1, 2, 3, 5, 6, 7, 9, 0xA, 0xB, 0xD, 0xE, 0xF), 1: (0, 1, 2, 3, 5, 6, 7)}
"""The MemAttr encodings that are not reserved, by FWB."""
CHANGED_PAGE = 1
"""The page of `dynamic` that becomes write-combining-safe while the guest runs."""


class Job(msgspec.Struct, frozen=True, tag=True):
    """What to run in lane el2: ``schemes`` by id, `ALL_PAIRS` among them.

    ``full``: every operation once per pair of types.
    ``ranges`` are those that batteries run on, by name; none: all. ``faults`` are those of `plan.Fault`.
    """

    cpu: str
    fwb: int
    schemes: tuple[str, ...]
    full: bool = True
    ranges: tuple[str, ...] = ()
    faults: int = 0

    @property
    def title(self) -> str:
        """Which run it is, for people."""
        return f"-cpu {self.cpu}, FWB={self.fwb}"


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
    kernels: tuple[Kernel, ...] = ()
    proofs: tuple[Proof, ...] = ()
    findings: tuple[Finding, ...] = ()


DOORBELL_STAGE2 = 1
"""Under `ALL_PAIRS` the doorbell is mapped Device-nGnRE, whatever the range has."""

_UNSEEN = (Verdict.UNOBSERVABLE, Verdict.UNOBSERVABLE)

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is next."""


class Site(NamedTuple):
    """Where a battery runs: a patch, by name, of what a scheme installed in a case."""

    scheme: str
    case: str
    name: str
    installed: Installation

    @property
    def patch(self) -> Patch:
        """The patch."""
        return self.installed.patches[self.name]

    def types(self, name: str, s1: MemoryType | None) -> tuple[object, ...]:
        """What accesses to a patch depend on: both stages in the guest, or (None) the host's mapping."""
        patch = self.installed.patches[name]
        return ("host", patch.host) if s1 is None else ("guest", s1, patch.stage2)


class Runner:
    """Runs a job on a lane."""

    def __init__(self, lane: El2Lane, job: Job, progress: Progress) -> None:
        self.lane, self.job, self.progress = lane, job, progress
        self.cells: list[Cell] = []
        self.host: list[HostCell] = []
        self._coverage = Coverage(full=job.full)
        self._broken: dict[tuple[str, str, str], str] = {}
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
        try:
            asking = settled(SCHEMES[name], Situation(LAYOUT, REQUEST, DRIVER, host))
            nothing = settled(SCHEMES[name], Situation(LAYOUT, NOTHING, DRIVER, host))
        except DefinitionError as error:
            raise DefinitionError(f"{name}, FWB={self.job.fwb}: {error}") from error
        return asking, nothing

    async def _all_pairs(self) -> None:
        for s2 in STAGE2[self.job.fwb]:
            self._next(f"stage-2 MemAttr {s2:x}")
            doorbell = Patch(PLACES["doorbell"], DOORBELL_STAGE2, None)
            installed = Installation({PAIRS_RANGE: Patch(PLACES[PAIRS_RANGE], s2, None), "doorbell": doorbell})
            await self.lane.install(installed, f"{ALL_PAIRS} s2={s2:x}")
            await self._guest_cells(Site(ALL_PAIRS, "asking", PAIRS_RANGE, installed))

    async def _case(self, scheme: str, case: str, decision: Decision) -> None:
        installed = installation(decision)
        for piece in decision.pieces:
            site = Site(scheme, case, piece.range, installed)
            self._check_claim(site, piece)
            if piece.refusal is not None and piece.range in PLACES and self._wanted(piece.range):
                self._refused(site, f"{piece.refusal.name}: {piece.refusal.reason}")
        await self.lane.install(installed, f"{scheme} ({case})")
        for name in installed.patches:
            if self._wanted(base_name(name)):
                await self._guest_cells(Site(scheme, case, name, installed))
                await self._host_cell(Site(scheme, case, name, installed))

    def _wanted(self, name: str) -> bool:
        return not self.job.ranges or name in self.job.ranges

    def _check_claim(self, site: Site, piece: Piece) -> None:
        """The scheme must decide what it is said to decide. KVM refuses a cacheable mapping without FWB (-EINVAL)."""
        claim = CLAIMS[site.scheme].stage2(piece.range, piece.bar, piece.first_page, site.case)
        wanted = "refused" if claim.is_write_back and not self.job.fwb else claim.name
        decided = piece.stage2.name if piece.stage2 else "refused"
        if decided != wanted:
            broken = f"the scheme's stage 2 must be {wanted}, not {decided}"
            self._broken[site.scheme, site.case, piece.range] = broken
            self.lane.problem(self._where(site, f"page {piece.first_page}"), broken)

    def _where(self, site: Site, types: str) -> str:
        return f"{site.scheme} ({site.case}), {site.name}, {types}, FWB={self.job.fwb}, -cpu {self.job.cpu}"

    def _cell(self, site: Site, s1: MemoryType, s2: int | None) -> Cell:
        """A cell of which nothing was observed yet."""
        nibble = None if s2 is None else f"{s2:x}"
        architecture = None if s2 is None else str(combine(s1, s2, bool(self.job.fwb)))
        place = (site.scheme, site.case, site.name)
        return Cell("el2", self.job.cpu, self.job.fwb, *place, str(s1), nibble, architecture, None, *_UNSEEN)

    def _refused(self, site: Site, note: str) -> None:
        refused = {"verdict": Verdict.REFUSED, "accesses": Verdict.REFUSED, "note": note}
        self.cells += [replace(self._cell(site, s1, None), **refused) for s1 in self.lane.types]

    async def _guest_cells(self, site: Site) -> None:
        """Each stage-1 type of the guest on one patch."""
        s2 = site.patch.stage2
        for s1 in MEMORY_TYPES:
            cell = self._cell(site, s1, s2)
            if s1 not in self.lane.types:
                note = "the CPU has no FEAT_MTE2: this stage-1 encoding is reserved"
                self.cells.append(replace(cell, note=note))
                continue
            where = self._where(site, f"s1={s1} s2={s2:x}")
            ran, full = await self._battery(site, s1, where)
            verdict, note = self._attribute(cell, ran, where)
            broken = self._broken.get((site.scheme, site.case, base_name(site.name)))
            cell = replace(
                cell,
                observed=ran.byte("at-s12e1r"),
                verdict=Verdict.DISAGREE if broken else verdict,
                accesses=self._accesses(site, ran, full, where),
                battery=ran.key,
                full=full,
                experiments=ran.experiments,
                transactions=ran.transactions,
                note=broken or note,
            )
            self.cells.append(cell)

    async def _host_cell(self, site: Site) -> None:
        """The same patch through the host's own mapping."""
        host, place = site.patch.host, (site.scheme, site.case, site.name)
        cell = HostCell("el2", self.job.cpu, self.job.fwb, *place, None, None, *_UNSEEN)
        if host is None:
            self.host.append(replace(cell, note="no process of the host maps it"))
            return
        where = self._where(site, f"host type {host}")
        ran, full = await self._battery(site, None, where)
        observed = ran.byte("at-s1e2r")
        if observed != str(host):
            self.lane.problem(where, f"AT S1E2R must give {host}, not {observed}")
        cell = replace(
            cell,
            type=str(host),
            observed=observed,
            verdict=Verdict.AGREE if observed == str(host) else Verdict.DISAGREE,
            accesses=self._accesses(site, ran, full, where),
            battery=ran.key,
            full=full,
            experiments=ran.experiments,
            transactions=ran.transactions,
        )
        self.host.append(cell)

    async def _battery(self, site: Site, s1: MemoryType | None, where: str) -> tuple[Ran, str | None]:
        """Run the battery that is due, in the guest under ``s1``, or through the host's mapping for None.

        With it, the key of the full battery that was run on this range under the same types.
        """
        name, types, beyond = base_name(site.name), site.types(site.name, s1), None
        if (following := site.installed.following(site.name)) is not None:
            beyond = (base_name(following), *site.types(following, s1))
        ops, size = self._coverage.choose(name, types, beyond)
        if name.startswith(GAP):
            ops, size = (), "types"
        elif site.scheme == ALL_PAIRS:
            ops, size = SHORT, "short"
        if s1 is None:
            ran = await self.lane.host_battery(site.name, ops, size, where)
        else:
            ran = await self.lane.guest_battery(site.name, s1, ops, size, where)
        self._coverage.ran(name, types, beyond, size, ran.key)
        return ran, self._coverage.full(name, types)

    def _accesses(self, site: Site, ran: Ran, full: str | None, where: str) -> Verdict:
        """The verdict of the battery, and of the full one under the same types.

        A battery that made nothing, or left no trace at the device, proves nothing: a disagreement.
        """
        if site.name.startswith(GAP):
            return Verdict.UNOBSERVABLE
        if ran.experiments and ran.trace:
            return worst([ran.verdict, *([self.lane.batteries[full].verdict] if full else [])])
        found = f"{ran.experiments} experiments and {ran.trace} accesses seen"
        self.lane.problem(where, f"the battery must leave a trace, not {found}")
        return Verdict.DISAGREE

    def _attribute(self, cell: Cell, ran: Ran, where: str) -> tuple[Verdict, str]:
        """Compare PAR_EL1 of each AT instruction with the architecture: the verdict, and why."""
        stage1, observed = ran.byte("at-s1e1r"), ran.byte("at-s12e1r")
        problems = []
        if stage1 != cell.s1:
            problems.append(f"AT S1E1R must give {cell.s1}, not {stage1}")
        for read, write in (("at-s1e1r", "at-s1e1w"), ("at-s12e1r", "at-s12e1w")):
            if ran.byte(read) != ran.byte(write):
                problems.append(f"{write} must give {ran.byte(read)} as {read} does, not {ran.byte(write)}")
        deviation = f"attribute {cell.s1} over {cell.s2}, FWB={cell.fwb}"
        listed = ATTRIBUTES.get((cell.fwb, cell.s1, cell.s2 or ""))
        verdict, note = Verdict.AGREE, ""
        if observed is None:
            problems.append(f"the effective type must be {cell.architecture}, not a translation fault")
        elif str(MemoryType.parse(observed).canonical) == cell.architecture:
            if listed:
                self.lane.tally.missed[deviation] = where
        elif listed and listed[0] == observed:
            verdict, note = Verdict.KNOWN_DEVIATION, listed[1]
            self.lane.tally.shown[deviation] = self.lane.tally.shown.get(deviation, 0) + 1
        else:
            problems.append(f"the effective type must be {cell.architecture}, not {observed}")
        if observed is not None:
            kind = MemoryType.parse(observed)
            if (kind.is_device or kind.is_non_cacheable) and ran.shareability("at-s12e1r") != 0b10:
                problems.append(f"PAR_EL1.SH must be 0b10 for {kind.name}, not {ran.shareability('at-s12e1r'):#04b}")
        for problem in problems:
            self.lane.problem(where, problem)
        return (Verdict.DISAGREE, "; ".join(problems)) if problems else (verdict, note)

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
