"""Every scheme on one kernel that has them all: chosen by a parameter, asked in its own way, held to the model."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

import msgspec

from ...bridge.attributes import NGNRE, NORMAL_NC, NORMAL_WB
from ...bridge.schemes import NOTHING, SCHEMES, Ask, Change, Decision, Host, Piece, Request, Situation, settled
from ...devices.probe import Probe
from ...devices.probe_map import Reg
from ..battery import SHORT
from ..errors import MatrixError, QemuError
from ..findings import Finding
from ..jobs import CHANGED_PAGE, JobResult, Progress
from ..lanes.installation import Installation
from ..lanes.kvm import Backing, KvmLane, Look
from ..layout import DRIVER, GAP, LAYOUT, REQUEST, installation
from ..linux.boot import booted_linux
from ..linux.config import CACHEABLE
from ..linux.config import PLATFORM as VFIO_PLATFORM
from ..linux.failures import explain
from ..operation import PAGE
from ..plan import PLATFORM, Asked, GuestRefused, Range, Refusal
from ..script import Space
from . import onboard, vcpuif
from .change import change
from .coherent import SCHEME as COHERENT
from .coherent import run_coherent
from .identify import Identity
from .job import KernelJob
from .kernel import run_kernel
from .nested import Nested
from .run import Run
from .run_time import states
from .site import NC_TYPE, TYPES, Site, control

BUILT = tuple(name for name in SCHEMES if name != "vfio-wc-uapi")
"""The schemes of guest/linux/patches, and that which the kernel's own nvgrace-gpu shows; the other is not KVM's."""
SYSFS = {
    "vma-allow-any-uncached": (NGNRE, NGNRE),
    "prefetchable-wc": (NGNRE, NORMAL_NC),
    "mmap-writecombine": (NGNRE, NORMAL_NC),
    "pgprot-device": (NORMAL_NC, NGNRE),
}
"""Stage 2 over sysfs' resourceN and resourceN_wc: where KVM follows the mapping, it follows whoever made it."""
GIC = ("status-quo", "normal-nc-all", "vma-allow-any-uncached", "pgprot-device")
"""Schemes of which it is said what becomes of a GICv2's virtual CPU interface, which KVM maps by itself."""
_REGISTERS = Range(0, 0, LAYOUT.bar(0).size // PAGE, Backing.DEVICE, 0)
"""The probe's, which its guest needs whatever else is mapped."""
_CACHEABLE = "wc-mapped"
"""What a VMM may ask to have cacheable: the device has memory there."""
_OTHERS = ("sysfs", "sysfs wc")
_WAYS = {"asking": "vfio", "nothing": "vfio, nothing asked", "changed": "vfio, page opened"}


async def look_at(job: KernelJob, progress: Progress, probe: Probe | None = None) -> JobResult:
    """All that a kernel can show: its own scheme, or those that it is told, and a cacheable BAR where it has a driver.

    Raises as `run_kernel` does.
    """
    if job.schemes:
        return await run_schemes(job, progress, probe)
    found = await run_kernel(job, progress, probe)
    if CACHEABLE in found.kernels[0].unobservable:
        return found
    cacheable = msgspec.structs.replace(job, release=f"{job.release} ({COHERENT})", expected=COHERENT)
    return _together([found, await run_coherent(cacheable)])


async def run_schemes(job: KernelJob, progress: Progress, probe: Probe | None = None) -> JobResult:
    """Boot the kernel once; for each of the job's schemes a VMM of its own. Raises as `run_kernel` does.

    The platform case, and the scheme that takes a device of its own, have boots of their own.
    """
    steps = ["booting", *job.schemes, vcpuif.WAY, *(["linux"] if job.linux else [])]
    progress(0, len(steps), steps[0])
    own = {name: msgspec.structs.replace(job, release=f"{job.release} ({name})", expected=name) for name in job.schemes}
    patched = [name for name in job.schemes if name != COHERENT]
    runs: dict[str, SchemeRun] = {}
    try:
        if patched:
            ways = [f"{way}:{name}" for name in patched for way in ("vfio", "sysfs") if way == "vfio" or name in SYSFS]
            async with booted_linux(job.files, job.cpu, ways, probe=probe) as up:
                for name in patched:
                    progress(steps.index(name), len(steps), name)
                    runs[name] = SchemeRun(own[name], up)
                    await runs[name].cases(name)
                    await up.guest.off()
                    if name in SYSFS:
                        await runs[name].sysfs()
                        await up.guest.off()
                await up.vm.wait()
        gic = [name for name in patched if name in GIC]
        if gic:
            progress(steps.index(vcpuif.WAY), len(steps), vcpuif.WAY)
            ways = [f"sysfs:{name}" for name in gic]
            async with booted_linux(job.files, job.cpu, ways, machine=vcpuif.MACHINE) as up:
                for name in gic:
                    await runs[name].gicv2(up)
                    runs[name].name(name)
                    await up.guest.off()
                await up.vm.wait()
        if job.linux:
            progress(steps.index("linux"), len(steps), "linux")
            for name in patched:
                await runs[name].linux()
                runs[name].name(name)
    except QemuError as error:
        raise MatrixError(explain(str(error))) from error
    results = {name: run.result() for name, run in runs.items()}
    if COHERENT in job.schemes:
        progress(steps.index(COHERENT), len(steps), COHERENT)
        results[COHERENT] = await run_coherent(own[COHERENT])
    return _together([results[name] for name in job.schemes])


class SchemeRun(Run):
    """One scheme: a VMM that asks for what the device stands, one that asks for nothing, and a page that is opened."""

    async def cases(self, scheme: str) -> None:
        """All cases in which the scheme decides something of its own."""
        lane = await self._lane()
        self.up.probe.bar0.wc_safe = 0
        tables = (await self._look(lane, settled(SCHEMES[scheme], Situation(LAYOUT, REQUEST, DRIVER)))).tables
        lane.fwb = self.fwb = tables.fwb
        host = Host(fwb=self.fwb)
        asking = settled(SCHEMES[scheme], Situation(LAYOUT, REQUEST, DRIVER, host))
        await self._case(lane, "asking", asking)
        nothing = settled(SCHEMES[scheme], Situation(LAYOUT, NOTHING, DRIVER, host))
        if nothing.pieces != asking.pieces:
            await self._case(lane, "nothing", nothing)
        adaptation = SCHEMES[scheme].adapt(asking, Change("dynamic", CHANGED_PAGE))
        if adaptation.changed:
            await lane.guest.write(Space.MMIO, 4, lane.hello.physical(0, Reg.WC_SAFE), 1 << CHANGED_PAGE)
            await self._case(lane, "changed", adaptation.decision)
        if changing := states(scheme, self.fwb):
            where = f"{self.job.cpu}, Linux {self.job.release}"
            self._keep(lane, [await change(lane, self.up.stub, where, changing)])
        self.case = "asking"
        if scheme == "mmap-writecombine":
            await self._cacheable(lane, host)
        await self.onboard(lane, asking)
        greedy = settled(SCHEMES[scheme], Situation(LAYOUT, Request.greedy(LAYOUT), DRIVER, host), greedy=True)
        await self._greedy(lane, greedy)
        self.name(scheme)

    async def _cacheable(self, lane: KvmLane, host: Host) -> None:
        """Pages that a VMM asks to have cacheable: Write-Back where the host keeps them coherent, else no memslot."""
        situation = Situation(LAYOUT, Request({_CACHEABLE: Ask(cacheable=True)}), DRIVER, host)
        decision = settled(SCHEMES[self.judged_by], situation)
        site = Site("vfio, cacheable asked", "policy", _installed(decision))
        refusal = decision.at(_CACHEABLE).refusal
        refused = ""
        try:
            await lane.map(site.installed, [*_ranges(decision)], f"Linux {self.job.release}, {site.way}")
        except GuestRefused as error:
            if error.reason is not Refusal.MEMSLOT:
                raise
            refused = errno.errorcode.get(error.count, str(error.count))
        finding = Finding.of(
            f"{self.job.cpu}, Linux {self.job.release}", "rule", "memslot over pages mapped MAP_CACHEABLE",
            f"-{refusal.name}" if refusal else "taken", f"-{refused}" if refused else "taken",
        )  # fmt: skip
        self._keep(lane, [finding])
        if refused:
            return
        look = await lane.look(self.up.stub, [patch.place for patch in site.installed.patches.values()])
        for name, patch in site.installed.patches.items():
            self._leaf(lane, site, look, name)
            self._host_cell(lane, look, name, patch)
        leaf = self._leaf(lane, site, look, _CACHEABLE)
        for s1 in (NORMAL_WB, NORMAL_NC):
            ran = await self._battery(lane, site, _CACHEABLE, s1, SHORT, "short")
        if leaf is not None:
            self._prove(lane, site, _CACHEABLE, leaf, ran)

    async def _greedy(self, lane: KvmLane, decision: Decision) -> None:
        """A VMM that asks for all there is on the platform device, too."""
        if VFIO_PLATFORM in self.up.unobservable:
            return
        (piece,) = decision.of(onboard.NAME)
        site = onboard.site(decision, f"{onboard.WAY}, all asked")
        asked = Range(PLATFORM, piece.offset, piece.pages, Backing.DEVICE, 0, _asked(decision.situation, piece))
        await lane.map(site.installed, [_REGISTERS, asked], f"Linux {self.job.release}, {site.way}")
        look = await lane.look(self.up.stub, [site.installed.patches[onboard.NAME].place])
        leaf = self._leaf(lane, site, look, onboard.NAME)
        ran = await self._battery(lane, site, onboard.NAME, NORMAL_NC, vcpuif.OPS, "short")
        if leaf is not None:
            self._prove(lane, site, onboard.NAME, leaf, ran)

    async def linux(self) -> None:
        """A boot of its own, whose virtual machine is a Linux, and whose VMM asks for nothing."""
        scheme = self.judged_by
        situation = Situation(LAYOUT, NOTHING, DRIVER, Host(fwb=self.fwb))
        patches = installation(settled(SCHEMES[scheme], situation)).patches
        stage2 = {name: patch.stage2 for name, patch in patches.items()}
        nested = Nested(self.job.release, self.job.cpu, stage2, fwb=self.fwb)
        await nested.run(self.job.files, self.job.cpu, scheme)
        if nested.lane is not None:
            self.lanes.append(nested.lane)
            self._keep(nested.lane, nested.findings)

    async def sysfs(self) -> None:
        """The same scheme, and a BAR that did not come from vfio."""
        lane = await self._lane()
        scheme = self.judged_by
        for way, backing, kind in zip(_OTHERS, (Backing.DEVICE, Backing.RESOURCE_WC), SYSFS[scheme], strict=True):
            await self._site(lane, control(way, "policy", kind, backing, self.fwb))
        self.name(scheme)

    def name(self, scheme: str) -> None:
        """The kernel has the scheme, unless something was otherwise."""
        wrong = [problem for lane in self.lanes for problem in lane.tally.problems][:1]
        self.identity = Identity(None if wrong else scheme, (), scheme, wrong[0] if wrong else "")

    async def _look(self, lane: KvmLane, decision: Decision) -> Look:
        """Have a decision's pieces mapped and asked for, and read what the kernel made of them."""
        installed = _installed(decision)
        await lane.map(installed, [*_ranges(decision)], f"Linux {self.job.release}")
        return await lane.look(self.up.stub, [patch.place for patch in installed.patches.values()])

    async def _case(self, lane: KvmLane, case: str, decision: Decision) -> None:
        self.case = case
        look = await self._look(lane, decision)
        site = Site(_WAYS[case], "policy", _installed(decision))
        for name, patch in site.installed.patches.items():
            leaf = self._leaf(lane, site, look, name)
            self.host.append(self._host_cell(lane, look, name, patch))
            for s1 in TYPES:
                if name.startswith(GAP):
                    self.cells.append(self._cell(lane, name, patch, leaf, s1, None))
                    continue
                ran = await self._battery(lane, site, name, s1, SHORT, "short")
                self.cells.append(self._cell(lane, name, patch, leaf, s1, ran))
                if str(s1) == NC_TYPE and leaf is not None:
                    self._prove(lane, site, name, leaf, ran)


def _installed(decision: Decision) -> Installation:
    patches = installation(decision).patches
    return Installation({name: patch for name, patch in patches.items() if not patch.place.platform})


def _ranges(decision: Decision) -> Iterator[Range]:
    """What the VMM is told: each piece by itself, and what it is to ask the kernel for there."""
    for piece in decision.pieces:
        if piece.bar is not None:
            asked = _asked(decision.situation, piece)
            yield Range(piece.bar, piece.offset, piece.size // PAGE, Backing.DEVICE, 0, asked)


def _asked(situation: Situation, piece: Piece) -> Asked:
    ask = situation.request.ask(LAYOUT.find(piece.range))
    asked = Asked.NOTHING
    if ask.write_combine or (piece.range, piece.first_page) in situation.granted:
        asked |= Asked.WRITE_COMBINE
    if ask.speculation:
        asked |= Asked.SPECULATION
    return asked | (Asked.CACHEABLE if ask.cacheable else Asked.NOTHING)


def _together(results: Iterable[JobResult]) -> JobResult:
    """The results of several runs on one boot as one."""
    each = list(results)
    shown: dict[str, int] = {}
    for result in each:
        for key, count in result.shown.items():
            shown[key] = shown.get(key, 0) + count
    return JobResult(
        tuple(cell for result in each for cell in result.cells),
        tuple(cell for result in each for cell in result.host),
        {key: battery for result in each for key, battery in result.batteries.items()},
        tuple(problem for result in each for problem in result.problems),
        shown,
        {key: where for result in each for key, where in result.missed.items() if key not in shown},
        sum(result.experiments for result in each),
        sum(result.transactions for result in each),
        each[0].features,
        each[0].command,
        tuple(kernel for result in each for kernel in result.kernels),
        tuple(proof for result in each for proof in result.proofs),
        tuple(finding for result in each for finding in result.findings),
    )
