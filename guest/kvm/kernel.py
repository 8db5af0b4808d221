"""What a kernel does with a PCI device's BARs: run on the `kvm` lane, proved three ways, and named as a scheme."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...bridge.attributes import MEMORY_TYPES, NGNRE, NORMAL_NC, NORMAL_WB, MemoryType, combine, encode_stage2
from ...bridge.schemes import Decision
from ...devices.probe import Probe
from ...devices.upcase import Upcase
from ..battery import FULL, SHORT
from ..deviations import ATTRIBUTES
from ..errors import MatrixError, QemuError
from ..jobs import JobResult
from ..lanes.installation import Installation, Patch
from ..lanes.kvm import Backing, KvmLane, Look, mapped_pages
from ..lanes.lane import Ran
from ..lanes.places import PLACES, Place
from ..layout import GAP, LAYOUT, installation
from ..linux.boot import BootedLinux, LinuxImage, booted_linux
from ..linux.failures import explain
from ..operation import PAGE, Access, Op
from ..plan import Asked, Range
from ..results import Cell, Finding, HostCell, Kernel, Proof, Verdict
from . import vcpuif
from .identify import Found, Identity, decide, identify
from .nested import Nested
from .proof import LOAD_WITNESS, WITNESS, quarrel
from .scenarios import scenarios
from .stage2 import Descriptor

_CONTROL = "wc-trapped"
"""Where the controls are run."""
_PIECES = ("wc-mapped", "wc-trapped", "strict")
"""Ranges of one BAR, side by side, each mapped by itself into one memslot."""
_OPS = tuple(op for op in FULL if op.access is not Access.EXCLUSIVE)
"""An interrupt of the host's between the load and the store of an exclusive pair makes the store fail, as it may."""
_FULL = ("wc-trapped", "wc-mapped")
"""Ranges whose battery is the full one: the others have a short one."""
TYPES = MEMORY_TYPES[:-1]
"""A virtual machine is not given memory tagging, so that the tagged type is reserved there."""
DEVICE_TYPE, NC_TYPE = "04", "44"

_STEPS = ("booting", "vfio", "vfio pieces", "ram", "rules and scenarios", "sysfs", "sysfs wc", "gicv2", "linux")

Progress = Callable[[int, int, str], None]


class KernelJob(msgspec.Struct, frozen=True, tag=True):
    """A kernel to look at: ``image``, and where they are known the folder of its modules and its .config.

    ``name`` is how it was asked for, ``release`` what it is, ``expected`` the scheme that it must have. ``ranges`` are
    those that batteries run on, by name; none: all. ``append`` is for the kernel's command line.
    """

    name: str
    release: str
    image: str
    modules: str | None
    config: str | None
    cpu: str
    expected: str | None = None
    ranges: tuple[str, ...] = ()
    append: str = ""
    schemes: tuple[str, ...] = ()
    """Those that this one kernel has, to be chosen by its parameter."""
    linux: bool = False
    """Whether a Linux of the same kernel is run as virtual machine, too."""

    @property
    def title(self) -> str:
        """Which run it is, for people."""
        return f"Linux {self.release}, -cpu {self.cpu}"

    @property
    def steps(self) -> int:
        """How many there are, for the progress."""
        return len(_STEPS) if self.linux else len(_STEPS) - 1

    @property
    def files(self) -> LinuxImage:
        """What is booted."""
        modules, config = (None if each is None else Path(each) for each in (self.modules, self.config))
        return LinuxImage(Path(self.image), modules, config, self.append)


class Site(NamedTuple):
    """A way to map ranges. ``installed`` has, by range, the stage 2 and the host's type that it should have."""

    way: str
    role: str
    installed: Installation
    backing: Backing = Backing.DEVICE
    whole: bool = True
    """Each BAR is mapped in one piece; otherwise each range by itself."""


async def run_kernel(job: KernelJob, progress: Progress, probe: Probe | None = None) -> JobResult:
    """Boot a kernel and look at all ways that it has; judge it by what is expected, or by the scheme that it shows.

    Raises:
        MatrixError: It could not be looked at; the message says why and what to try.
        KernelError: The kernel, its modules or its configuration cannot be used.
        ProvisionError: There is no QEMU or no compiler.
    """
    progress(0, job.steps, _STEPS[0])
    try:
        async with booted_linux(job.files, job.cpu, ("vfio", "sysfs"), [Upcase()], probe) as up:
            run = KernelRun(job, up, progress)
            await run.vfio()
            await up.guest.off()
            await run.sysfs()
            await up.guest.off()
            await up.vm.wait()
        progress(_STEPS.index(vcpuif.WAY), job.steps, vcpuif.WAY)
        async with booted_linux(job.files, job.cpu, ("sysfs",), machine=vcpuif.MACHINE) as up:
            await run.gicv2(up)
            await up.guest.off()
            await up.vm.wait()
        if job.linux:
            await run.linux()
    except QemuError as error:
        raise MatrixError(explain(str(error))) from error
    return run.result()


class KernelRun:
    """One boot."""

    def __init__(self, job: KernelJob, up: BootedLinux, progress: Progress) -> None:
        self.job, self.up, self.progress = job, up, progress
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

    async def vfio(self) -> None:
        """What vfio maps, whole and in pieces, and the positive control."""
        self._next("vfio")
        lane = await self._lane()
        everything = Installation({name: Patch(_place(name), 1, None) for name in PLACES if name != "platform"})
        look = await self._map(lane, Site("vfio", "policy", everything))
        lane.fwb = self.fwb = look.tables.fwb
        self._identify(lane, {name: _found(lane, look, patch.place) for name, patch in everything.patches.items()})
        decision = decide(self.judged_by, self.fwb)
        await self._policy(lane, decision)
        self._next("vfio pieces")
        pieces = Installation({name: installation(decision).patches[name] for name in _PIECES})
        await self._site(lane, Site("vfio pieces", "policy", pieces, whole=False))
        self._next("ram")
        await self._site(lane, self._control("ram", "positive control", NORMAL_WB, Backing.RAM))
        self._next("rules and scenarios")
        nibbles = installation(decision).patches[_CONTROL].stage2, encode_stage2(NORMAL_WB, self.fwb)
        where = f"{self.job.cpu}, Linux {self.job.release}"
        self._keep(lane, await scenarios(lane, self.up, where, *nibbles))

    async def sysfs(self) -> None:
        """The negative control: no kernel relaxes what did not come from vfio."""
        self._next("sysfs")
        lane = await self._lane()
        await self._site(lane, self._control("sysfs", "negative control", NGNRE, Backing.DEVICE))
        self._next("sysfs wc")
        await self._site(lane, self._control("sysfs wc", "negative control", NGNRE, Backing.RESOURCE_WC))

    async def linux(self) -> None:
        """A boot of its own, whose virtual machine is a Linux."""
        self._next("linux")
        patches = installation(decide(self.judged_by, self.fwb)).patches
        stage2 = {name: patch.stage2 for name, patch in patches.items()}
        nested = Nested(self.job.release, self.job.cpu, stage2, fwb=self.fwb)
        await nested.run(self.job.files, self.job.cpu)
        if nested.lane is not None:
            self.lanes.append(nested.lane)
            self._keep(nested.lane, nested.findings)

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
        await lane.map(site.installed, _ranges(Site("", "", Installation({}), whole=False)), vcpuif.WAY)
        leaf = self._leaf(lane, site, await lane.look(up.stub, [patch.place]), vcpuif.NAME)
        for s1 in TYPES:
            ran = await self._battery(lane, site, vcpuif.NAME, s1, vcpuif.OPS, "short")
            self.cells.append(self._cell(lane, vcpuif.NAME, patch, leaf, s1, ran))
            if str(s1) == NC_TYPE and leaf is not None:
                self._prove(lane, site, vcpuif.NAME, leaf, ran)
        if leaf is not None and self.identity.scheme is not None:
            others = tuple(name for name in self.identity.alike if vcpuif.stage2(name, self.fwb) == leaf.memattr)
            self.identity = replace(self.identity, alike=others)
        self.up = first

    @property
    def judged_by(self) -> str:
        """The scheme to judge by."""
        return self.job.expected or self.identity.nearest

    def _next(self, what: str) -> None:
        self.progress(_STEPS.index(what), self.job.steps, what)

    def _wanted(self, name: str) -> bool:
        return not self.job.ranges or name in self.job.ranges

    def _identify(self, lane: KvmLane, found: Mapping[str, Found]) -> None:
        identity = identify(found, self.fwb)
        expected = self.job.expected
        if expected in identity.alike:
            others = (identity.nearest, *(name for name in identity.alike if name != expected))
            identity = Identity(expected, others, expected or "", "")
        self.identity = identity
        if identity.scheme is None:
            lane.problem(f"Linux {self.job.release}", f"no scheme is known to do this: {identity.differs}")
        elif expected not in (None, identity.scheme):
            lane.problem(f"Linux {self.job.release}", f"the scheme must be {expected}, not {identity.scheme}")

    def _control(self, way: str, role: str, kind: MemoryType, backing: Backing) -> Site:
        place = replace(_place(_CONTROL), silent=backing is Backing.RAM)
        patch = Patch(place, encode_stage2(kind, self.fwb), None)
        return Site(way, role, Installation({_CONTROL: patch}), backing, whole=False)

    async def _map(self, lane: KvmLane, site: Site) -> Look:
        """Map a site's ranges and read the descriptors."""
        await lane.map(site.installed, _ranges(site), f"Linux {self.job.release}, {site.way}")
        return await lane.look(self.up.stub, [patch.place for patch in site.installed.patches.values()])

    async def _policy(self, lane: KvmLane, decision: Decision) -> None:
        """Cells, host cells and proofs of all that the kernel decides by itself."""
        patches = {name: patch for name, patch in installation(decision).patches.items() if not patch.place.platform}
        site = Site("vfio", "policy", Installation(patches))
        look = await self._map(lane, site)
        for name, patch in patches.items():
            leaf = self._leaf(lane, site, look, name)
            if not self._wanted(name) and not name.startswith(GAP):
                continue
            self.host.append(self._host_cell(lane, look, name, patch))
            for s1 in TYPES:
                if name.startswith(GAP):
                    self.cells.append(self._cell(lane, name, patch, leaf, s1, None))
                    continue
                ops, size = (_OPS, "full") if name in _FULL else (SHORT, "short")
                ran = await self._battery(lane, site, name, s1, ops, size)
                self.cells.append(self._cell(lane, name, patch, leaf, s1, ran))
                if str(s1) == NC_TYPE and leaf is not None:
                    self._prove(lane, site, name, leaf, ran)

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
        leaf = _common(_pages(lane, look, patch.place))
        if leaf is None:
            lane.problem(where, f"stage 2 must be one on all pages, not {_several(_pages(lane, look, patch.place))}")
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


def _place(name: str) -> Place:
    return PLACES[name]


def _ranges(site: Site) -> list[Range]:
    """What the VMM is told: the ranges one by one, or each BAR in one piece; BAR 0 always, for its registers."""
    whole = [Range(bar.index, 0, bar.size // PAGE, Backing.DEVICE, 0, Asked.NOTHING) for bar in LAYOUT.bars]
    if site.whole:
        return whole
    places = [patch.place for patch in site.installed.patches.values()]
    return whole[:1] + [Range(place.bar, place.offset, place.size // PAGE, site.backing, 0) for place in places]


def _pages(lane: KvmLane, look: Look, place: Place) -> Sequence[Descriptor | None]:
    return [look.tables.pages[lane.hello.physical(place.bar, offset)] for offset in mapped_pages(place)]


def _kind(page: Descriptor | None) -> str:
    return f"{page.memattr:x} at level {page.level} with S2AP {page.access}" if page else "none"


def _common(pages: Sequence[Descriptor | None]) -> Descriptor | None:
    """The descriptor that all pages have, but for where it leads; None if they differ or lack one."""
    return pages[0] if len({_kind(page) for page in pages}) == 1 else None


def _several(pages: Sequence[Descriptor | None]) -> str:
    """Which descriptors there are, each with the first page that has it."""
    first = {kind: pages.index(page) for page in reversed(pages) for kind in [_kind(page)]}
    return ", ".join(f"{kind} (page {page})" for kind, page in sorted(first.items(), key=lambda item: item[1]))


def _found(lane: KvmLane, look: Look, place: Place) -> Found:
    leaf = _common(_pages(lane, look, place))
    host = None if look.host is None else look.host.get((place.bar, mapped_pages(place)[0]))
    return Found(f"{leaf.memattr:x}" if leaf else _several(_pages(lane, look, place)), host)
