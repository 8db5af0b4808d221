"""What is done in each run of a kernel: maps sites, runs batteries there, and keeps cells and proofs of what came."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from ...bridge.attributes import NORMAL_NC, MemoryType, combine
from ...bridge.schemes import Decision
from ..battery import SHORT
from ..deviations import ATTRIBUTES
from ..jobs import JobResult
from ..lanes.installation import Installation, Patch
from ..lanes.kvm import KvmLane, Look, mapped_pages
from ..lanes.lane import Ran
from ..linux.boot import BootedLinux
from ..linux.config import PLATFORM
from ..operation import Op
from ..results import Cell, Finding, HostCell, Kernel, Proof, Verdict
from . import onboard, vcpuif
from .identify import Identity
from .job import KernelJob
from .proof import LOAD_WITNESS, WITNESS, quarrel
from .site import DEVICE_TYPE, NC_TYPE, TYPES, Site, common, pages, ranges, several
from .stage2 import Descriptor


class Run:
    """One boot: a kernel, what it was found to be, and what was seen of it."""

    def __init__(self, job: KernelJob, up: BootedLinux) -> None:
        self.job, self.up = job, up
        self.started = time.monotonic()
        self.proofs: list[Proof] = []
        self.cells: list[Cell] = []
        self.host: list[HostCell] = []
        self.lanes: list[KvmLane] = []
        self.findings: list[Finding] = []
        self.identity = Identity(None, (), "", "")
        self.case = "asking"
        self.fwb = False
        self.features: frozenset[str] = frozenset()

    async def _lane(self) -> KvmLane:
        hello = await self.up.guest.hello()
        self.features = hello.features
        lane = KvmLane(self.up.guest, self.up.probe, hello, fwb=self.fwb)
        self.lanes.append(lane)
        return lane

    def _keep(self, lane: KvmLane, findings: Sequence[Finding]) -> None:
        self.findings += findings
        for finding in findings:
            if finding.problem:
                lane.problem(f"Linux {self.job.release}", finding.problem)

    async def gicv2(self, up: BootedLinux) -> None:
        """The platform case, on a machine of its own: what KVM maps by itself. It tells schemes apart, too."""
        first, self.up = self.up, up
        lane = await self._lane()
        patch = Patch(vcpuif.PLACE, vcpuif.stage2(self.judged_by, self.fwb), None)
        site = Site(vcpuif.WAY, "platform", Installation({vcpuif.NAME: patch}))
        await lane.map(site.installed, ranges(Site("", "", Installation({}), whole=False)), vcpuif.WAY)
        await self._registers(lane, site, await lane.look(up.stub, [patch.place]), vcpuif.stage2)
        self.up = first

    async def onboard(self, lane: KvmLane, decision: Decision) -> None:
        """The platform case that vfio gives away, where the kernel has vfio-platform. It tells schemes apart, too."""
        if PLATFORM in self.up.unobservable:
            return
        site = onboard.site(decision)
        look = await self._map(lane, site)
        self.host.append(self._host_cell(lane, look, onboard.NAME, site.installed.patches[onboard.NAME]))
        await self._registers(lane, site, look, onboard.stage2)

    async def _registers(self, lane: KvmLane, site: Site, look: Look, stage2: Callable[[str, bool], int]) -> None:
        """Cells and a proof of registers that are read alone; ``stage2`` tells what each scheme makes of them."""
        ((name, patch),) = site.installed.patches.items()
        leaf = self._leaf(lane, site, look, name)
        for s1 in TYPES:
            ran = await self._battery(lane, site, name, s1, vcpuif.OPS, "short")
            self.cells.append(self._cell(lane, name, patch, leaf, s1, ran))
            if str(s1) == NC_TYPE and leaf is not None:
                self._prove(lane, site, name, leaf, ran)
        if leaf is not None and self.identity.scheme is not None:
            others = tuple(each for each in self.identity.alike if stage2(each, self.fwb) == leaf.memattr)
            self.identity = replace(self.identity, alike=others)

    @property
    def judged_by(self) -> str:
        """The scheme to judge by."""
        return self.job.expected or self.identity.nearest

    async def _map(self, lane: KvmLane, site: Site) -> Look:
        """Map a site's ranges and read the descriptors."""
        await lane.map(site.installed, ranges(site), f"Linux {self.job.release}, {site.way}")
        return await lane.look(self.up.stub, [patch.place for patch in site.installed.patches.values()])

    async def _site(self, lane: KvmLane, site: Site) -> None:
        """Batteries and proofs of other ways to map."""
        look = await self._map(lane, site)
        for name in site.installed.patches:
            leaf = self._leaf(lane, site, look, name)
            for s1 in TYPES:
                if str(s1) in (DEVICE_TYPE, NC_TYPE):
                    ran = await self._battery(lane, site, name, s1, SHORT, "short")
                    if str(s1) == NC_TYPE and leaf is not None:
                        self._prove(lane, site, name, leaf, ran)

    async def _battery(
        self, lane: KvmLane, site: Site, name: str, s1: MemoryType, ops: tuple[Op, ...], size: str
    ) -> Ran:
        return await lane.guest_battery(name, s1, ops, size, f"{self._where(site, name)}, s1={s1}")

    def _where(self, site: Site, name: str) -> str:
        return f"Linux {self.job.release}, {site.way}, {name}"

    def _leaf(self, lane: KvmLane, site: Site, look: Look, name: str) -> Descriptor | None:
        """The descriptor that all pages of a range have; it must be the one that is wanted."""
        patch, where = site.installed.patches[name], self._where(site, name)
        leaf = common(pages(lane, look, patch.place))
        if leaf is None:
            lane.problem(where, f"stage 2 must be one on all pages, not {several(pages(lane, look, patch.place))}")
            return None
        if leaf.memattr != patch.stage2:
            lane.problem(where, f"stage 2 must be {patch.stage2:x}, not {leaf.memattr:x}")
        if leaf.access != 3 and not patch.place.silent:  # memory that was only read is KVM's to make writable later
            lane.problem(where, f"stage 2 must permit reads and writes (S2AP 3), not {leaf.access}")
        return leaf

    def _cell(
        self, lane: KvmLane, name: str, patch: Patch, leaf: Descriptor | None, s1: MemoryType, ran: Ran | None
    ) -> Cell:
        architecture = str(combine(s1, patch.stage2, self.fwb))
        cell = Cell(
            "kvm", self.job.cpu, int(self.fwb), self.judged_by, self.case, name, str(s1), f"{patch.stage2:x}",
            architecture, *self._effective(s1, leaf, architecture), Verdict.UNOBSERVABLE, kernel=self.job.release,
            note="what QEMU makes of stage 1 and the descriptor in memory: PAR_EL1 shows stage 1 alone",
        )  # fmt: skip
        if ran is None:
            return cell
        accesses = lane.batteries[ran.key].verdict if ran.trace else Verdict.DISAGREE
        return msgspec.structs.replace(
            cell, accesses=accesses, battery=ran.key, experiments=ran.experiments, transactions=ran.transactions
        )

    def _effective(self, s1: MemoryType, leaf: Descriptor | None, architecture: str) -> tuple[str | None, Verdict]:
        """What QEMU makes of the descriptor that was found, as lane el2 reads it in PAR_EL1; and the verdict."""
        if leaf is None:
            return None, Verdict.DISAGREE
        right = str(combine(s1, leaf.memattr, self.fwb))
        if right != architecture:
            return right, Verdict.DISAGREE
        listed = ATTRIBUTES.get((int(self.fwb), str(s1), f"{leaf.memattr:x}"))
        return (listed[0], Verdict.KNOWN_DEVIATION) if listed else (right, Verdict.AGREE)

    def _host_cell(self, lane: KvmLane, look: Look, name: str, patch: Patch) -> HostCell:
        """The VMM's own mapping."""
        cell = HostCell(
            "kvm", self.job.cpu, int(self.fwb), self.judged_by, self.case, name, str(patch.host), None,
            Verdict.UNOBSERVABLE, Verdict.UNOBSERVABLE, kernel=self.job.release,
            note="the VMM's own stage 1, found in memory",
        )  # fmt: skip
        if look.host is None:
            return msgspec.structs.replace(cell, note="the host does not run at EL2: its own tables are not in use")
        found = {look.host[patch.place.bar, offset] for offset in mapped_pages(patch.place)}
        names = ", ".join(sorted("nothing" if kind is None else kind.name for kind in found))
        if found != {patch.host}:
            wanted = patch.host.name if patch.host else "nothing"
            lane.problem(f"Linux {self.job.release}, {name}", f"the host's own mapping must be {wanted}, not {names}")
        kind = found.pop() if len(found) == 1 else None
        verdict = Verdict.AGREE if kind == patch.host else Verdict.DISAGREE
        return msgspec.structs.replace(cell, observed=str(kind) if kind else None, verdict=verdict)

    def _prove(self, lane: KvmLane, site: Site, name: str, leaf: Descriptor, ran: Ran) -> None:
        patch = site.installed.patches[name]
        normal = not combine(NORMAL_NC, leaf.memattr, self.fwb).is_device
        found = quarrel(leaf.memattr, normal=normal, seen=lane.seen)
        if found:
            lane.problem(self._where(site, name), f"descriptor, guest and device must tell the same: {found}")
        witness = LOAD_WITNESS if patch.place.platform else WITNESS
        row = next(row for row in lane.batteries[ran.key].rows if row.op == witness)
        self.proofs.append(
            Proof(
                self.job.release, self.job.cpu, int(self.fwb), self.judged_by, site.way, site.role, name,
                len(mapped_pages(patch.place)), leaf.level, f"{leaf.memattr:x}",
                "rw" if leaf.access == 3 else f"{leaf.access:02b}", f"{patch.stage2:x}",
                "; ".join(dict.fromkeys(row.observed.values())), row.device, found,
            )
        )  # fmt: skip

    def result(self) -> JobResult:
        """All of it."""
        tallies = [lane.tally for lane in self.lanes]
        shown: dict[str, int] = {}
        for tally in tallies:
            for key, count in tally.shown.items():
                shown[key] = shown.get(key, 0) + count
        kernel = Kernel(
            self.job.name, self.job.release, self.job.cpu, int(self.fwb), self.identity.scheme, self.identity.alike,
            self.identity.differs, self.judged_by, self.job.expected, self.up.unobservable, self.up.command,
            round(time.monotonic() - self.started, 1),
        )  # fmt: skip
        return JobResult(
            tuple(self.cells),
            tuple(self.host),
            {key: battery for lane in self.lanes for key, battery in lane.batteries.items()},
            tuple(dict.fromkeys(problem for tally in tallies for problem in tally.problems)),
            shown,
            {
                key: where
                for tally in tallies
                for key, where in tally.missed.items()
                # An interrupt of the host's may empty the TLB after the load that is to fill it.
                if key not in shown and not key.endswith("warm")
            },
            sum(tally.experiments for tally in tallies),
            sum(tally.transactions for tally in tallies),
            tuple(sorted(self.features)),
            self.up.command,
            (kernel,),
            tuple(self.proofs),
            tuple(self.findings),
        )
