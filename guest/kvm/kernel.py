"""What a kernel does with a PCI device's BARs: run on the `kvm` lane, proved three ways, and named as a scheme."""

from __future__ import annotations

from collections.abc import Mapping

from ...bridge.attributes import NGNRE, NORMAL_WB, encode_stage2
from ...bridge.schemes import Decision
from ...devices.probe import Probe
from ...devices.upcase import Upcase
from ..battery import FULL, SHORT
from ..errors import MatrixError, QemuError
from ..jobs import JobResult, Progress
from ..lanes.installation import Installation, Patch
from ..lanes.kvm import Backing, KvmLane, Look, mapped_pages
from ..lanes.places import PLACES, Place
from ..layout import GAP, installation
from ..linux.boot import BootedLinux, booted_linux
from ..linux.failures import explain
from ..operation import Access
from . import onboard, vcpuif
from .identify import Found, Identity, decide, identify
from .job import STEPS, KernelJob
from .nested import Nested
from .run import Run
from .scenarios import scenarios
from .site import CONTROL, NC_TYPE, TYPES, Site, common, control, pages, several

_PIECES = ("wc-mapped", "wc-trapped", "strict")
"""Ranges of one BAR, side by side, each mapped by itself into one memslot."""
_OPS = tuple(op for op in FULL if op.access is not Access.EXCLUSIVE)
"""An interrupt of the host's between the load and the store of an exclusive pair makes the store fail, as it may."""
_FULL = ("wc-trapped", "wc-mapped")
"""Ranges whose battery is the full one: the others have a short one."""


async def run_kernel(job: KernelJob, progress: Progress, probe: Probe | None = None) -> JobResult:
    """Boot a kernel and look at all ways that it has; judge it by what is expected, or by the scheme that it shows.

    Raises:
        MatrixError: It could not be looked at; the message says why and what to try.
        KernelError: The kernel, its modules or its configuration cannot be used.
        ProvisionError: There is no QEMU or no compiler.
    """
    progress(0, job.steps, STEPS[0])
    try:
        async with (
            booted_linux(job.files, job.cpu, ("vfio", "sysfs"), [Upcase()], probe) as up,
            booted_linux(job.files, job.cpu, ("sysfs",), machine=vcpuif.MACHINE) as platform,  # boots meanwhile
        ):
            run = KernelRun(job, up, progress)
            await run.vfio()
            await up.guest.off()
            await run.sysfs()
            await up.guest.off()
            await up.vm.wait()
            progress(STEPS.index(vcpuif.WAY), job.steps, vcpuif.WAY)
            await run.gicv2(platform)
            await platform.guest.off()
            await platform.vm.wait()
        if job.linux:
            await run.linux()
    except QemuError as error:
        raise MatrixError(explain(str(error))) from error
    return run.result()


class KernelRun(Run):
    """A kernel of which it is not known beforehand what it does."""

    def __init__(self, job: KernelJob, up: BootedLinux, progress: Progress) -> None:
        super().__init__(job, up)
        self.progress = progress

    async def vfio(self) -> None:
        """What vfio maps, whole and in pieces, and the positive control."""
        self._next("vfio")
        lane = await self._lane()
        everything = Installation({name: Patch(PLACES[name], 1, None) for name in PLACES if name != onboard.NAME})
        look = await self._map(lane, Site("vfio", "policy", everything))
        lane.fwb = self.fwb = look.tables.fwb
        self._identify(lane, {name: _found(lane, look, patch.place) for name, patch in everything.patches.items()})
        decision = decide(self.judged_by, self.fwb)
        await self._policy(lane, decision)
        self._next(onboard.WAY)
        await self.onboard(lane, decision)
        self._next("vfio pieces")
        pieces = Installation({name: installation(decision).patches[name] for name in _PIECES})
        await self._site(lane, Site("vfio pieces", "policy", pieces, whole=False))
        self._next("ram")
        await self._site(lane, control("ram", "positive control", NORMAL_WB, Backing.RAM, self.fwb))
        self._next("rules and scenarios")
        nibbles = installation(decision).patches[CONTROL].stage2, encode_stage2(NORMAL_WB, self.fwb)
        where = f"{self.job.cpu}, Linux {self.job.release}"
        self._keep(lane, await scenarios(lane, self.up, where, *nibbles))

    async def sysfs(self) -> None:
        """The negative control: no kernel relaxes what did not come from vfio."""
        self._next("sysfs")
        lane = await self._lane()
        await self._site(lane, control("sysfs", "negative control", NGNRE, Backing.DEVICE, self.fwb))
        self._next("sysfs wc")
        await self._site(lane, control("sysfs wc", "negative control", NGNRE, Backing.RESOURCE_WC, self.fwb))

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

    def _next(self, what: str) -> None:
        self.progress(STEPS.index(what), self.job.steps, what)

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


def _found(lane: KvmLane, look: Look, place: Place) -> Found:
    leaf = common(pages(lane, look, place))
    host = None if look.host is None else look.host.get((place.bar, mapped_pages(place)[0]))
    return Found(f"{leaf.memattr:x}" if leaf else several(pages(lane, look, place)), host)
