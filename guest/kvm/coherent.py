"""A device whose memory is coherent: what the kernel's own driver for GH200 maps cacheable, and KVM makes of it.

The driver is the kernel's nvgrace-gpu, unmodified; the device is of Python. Where its memory lies the firmware says, by
a node of the device tree.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from dataclasses import replace

from ...bridge.attributes import combine
from ...bridge.schemes import NOTHING, SCHEMES, Bar, Decision, Driver, Host, Layout, Piece, Situation
from ...bridge.schemes import Range as Described
from ...devices.coherent import DEVICE, LENGTH, USEMEM, VENDOR, CoherentMemory
from ...devices.probe import Probe
from ..battery import BATTERY, INDEX
from ..errors import MatrixError, QemuError
from ..hello import Hello
from ..jobs import JobResult
from ..lanes.installation import Patch
from ..lanes.kvm import Backing, KvmLane, Look, area
from ..lanes.places import Place
from ..linux.boot import BootedLinux, booted_linux
from ..linux.failures import explain
from ..operation import PAGE, SLOT
from ..plan import MAIR, Experiment, GuestRefused, Range, Refusal, Status
from ..results import Cell, Proof, Verdict
from ..script import Action, Space, Step
from .identify import Identity
from .job import KernelJob
from .proof import WITNESS, Seen, quarrel
from .run import Run
from .site import TYPES
from .stage1 import host_types
from .stage2 import read_tables

SCHEME = "cacheable-follow"
BASE = 0x80_0000_0000
"""Where Linux puts the largest 64-bit BAR: the start of the virt machine's high window for PCI."""
_REGIONS = {"resmem": (2, USEMEM), "usemem": (4, 0)}
"""The driver's regions: the BAR that shows it, and where it lies in the memory."""
_PAGES = 16
_SPIN_US = 60_000_000
_RELEASE = PAGE
"""Offset of the word that the guest waits for, behind the page that is tried."""
_NODE = {"nvidia,gpu-mem-base-pa": struct.pack(">Q", BASE), "nvidia,gpu-mem-size": struct.pack(">Q", LENGTH)}


def decision(fwb: bool) -> Decision:
    """What the scheme has for such a device."""
    size = _PAGES * PAGE
    layout = Layout(
        tuple(Bar(bar, size, prefetchable=True) for bar, _ in _REGIONS.values()),
        tuple(Described(name, bar, 0, size) for name, (bar, _) in _REGIONS.items()),
    )
    driver = Driver(wc_bars=frozenset({2}), cacheable_bars=frozenset({4}))
    return SCHEMES[SCHEME].decide(Situation(layout, NOTHING, driver, Host(fwb=fwb)))


async def run_coherent(job: KernelJob, probe: Probe | None = None) -> JobResult:
    """Boot the kernel with such a device, and look at its two regions. Raises as `run_kernel` does."""
    device = CoherentMemory()
    try:
        async with booted_linux(job.files, job.cpu, ("vfio",), [device], probe, [_NODE]) as up:
            run = CoherentRun(job, up, device)
            await run.regions()
            await up.guest.off()
            await up.vm.wait()
    except QemuError as error:
        raise MatrixError(explain(str(error))) from error
    return run.result()


class CoherentRun(Run):
    """One boot."""

    def __init__(self, job: KernelJob, up: BootedLinux, device: CoherentMemory) -> None:
        super().__init__(job, up)
        self._device = device

    async def regions(self) -> None:
        """Each region by itself."""
        hello = await self.up.guest.hello(VENDOR, DEVICE)
        self.features = hello.features
        self.fwb = self.job.cpu == "max"  # seen in HCR_EL2 below; without it nothing may be mapped to look at
        lane = KvmLane(self.up.guest, self.up.probe, hello, fwb=self.fwb)
        self.lanes.append(lane)
        for piece in decision(self.fwb).pieces:
            await self._region(lane, hello, piece)
        wrong = lane.tally.problems[:1]
        self.identity = Identity(None if wrong else SCHEME, (), SCHEME, wrong[0] if wrong else "")

    async def _region(self, lane: KvmLane, hello: Hello, piece: Piece) -> None:
        where = f"Linux {self.job.release}, {piece.range}"
        bar, start = _REGIONS[piece.range]
        refused = ""
        try:
            await self.up.guest.install([Range(bar, 0, _PAGES, Backing.DEVICE, 0)])
        except GuestRefused as refusal:
            refused = errno.errorcode.get(refusal.count, "?") if refusal.reason is Refusal.MEMSLOT else str(refusal)
        wanted = piece.refusal.name if piece.refusal else ""
        if refused != wanted:
            lane.problem(where, f"the memslot must be {_outcome(wanted)}, not {_outcome(refused)}")
        if refused or piece.s2 is None or piece.host is None:
            note = f"KVM: {_outcome(refused)}"
            verdict = Verdict.REFUSED if refused == wanted else Verdict.DISAGREE
            self.cells += [
                Cell("kvm", self.job.cpu, int(self.fwb), SCHEME, "asking", piece.range, str(s1), None, None, None,
                     verdict, verdict, kernel=self.job.release, note=note)
                for s1 in TYPES
            ]  # fmt: skip
            return
        patch = Patch(Place(piece.range, bar, 0, _PAGES * PAGE, 0, PAGE, trapped=False), piece.s2, piece.host)
        await self._look(lane, hello, patch, start, where)

    async def _look(self, lane: KvmLane, hello: Hello, patch: Patch, start: int, where: str) -> None:
        """Stage 2 and the host's type, read while the guest spins on a word of the region; and the witness."""
        place, memory = patch.place, self._device.bar2.memory
        address = hello.physical(place.bar, 0)
        memory[start : start + 2 * PAGE] = bytes(2 * PAGE)
        touch = Step(Action.READ, Space.MMIO, 4, address)
        spin = Step(Action.WAIT, Space.MMIO, 4, address + _RELEASE, 1, timeout_us=_SPIN_US)
        spinning = asyncio.create_task(self.up.guest.script([touch, spin]))
        try:
            async with self.up.stub as stub:
                tables = await read_tables(stub, [address])
                while None in tables.pages.values():
                    await stub.run_on(0.01)
                    tables = await read_tables(stub, [address])
                hosts = await host_types(stub, [area(place.bar, 1)])
                memory[start + _RELEASE] = 1
            await spinning
        finally:
            spinning.cancel()
        leaf = tables.pages[address]
        assert leaf is not None
        if tables.fwb != self.fwb:
            lane.problem(where, f"HCR_EL2.FWB must be {int(self.fwb)}, not {int(tables.fwb)}")
        if leaf.memattr != patch.stage2:
            lane.problem(where, f"stage 2 must be {patch.stage2:x}, not {leaf.memattr:x}")
        host = None if hosts is None else {(place.bar, 0): hosts[area(place.bar, 1)]}
        page = Patch(replace(place, size=PAGE), patch.stage2, patch.host)
        self.host.append(self._host_cell(lane, Look(tables, host), place.name, page))
        self.cells += [self._cell(lane, place.name, patch, leaf, s1, None) for s1 in TYPES]
        for slot, s1 in enumerate(TYPES, start=1):
            seen = await self._store(place, slot * SLOT, start, MAIR.index(s1.byte))
            # Stage 1 is checked by itself: a Device mapping faults even where stage 2 forces Write-Back (B2.10.2).
            normal = not s1.is_device and not combine(s1, leaf.memattr, self.fwb).is_device
            found = quarrel(leaf.memattr, normal=normal, seen=[seen])
            lane.tally.experiments += 1
            lane.tally.transactions += bool(seen.stored)
            if found:
                lane.problem(f"{where}, s1={s1}", f"descriptor, guest and device must tell the same: {found}")
            self.proofs.append(
                Proof(
                    self.job.release, self.job.cpu, int(self.fwb), SCHEME, f"nvgrace-gpu, s1={s1}", "policy",
                    place.name, 1, leaf.level, f"{leaf.memattr:x}", "rw" if leaf.access == 3 else f"{leaf.access:02b}",
                    f"{patch.stage2:x}", seen.effect, seen.device, found,
                )
            )  # fmt: skip

    async def _store(self, place: Place, slot: int, start: int, s1: int) -> Seen:
        """The guest's unaligned store, and what of it is in the device's memory."""
        op = BATTERY[INDEX[WITNESS]]
        memory = self._device.bar2.memory
        before = bytes(memory[start + slot : start + slot + SLOT])
        ran = await self.up.guest.run([Experiment(0, INDEX[WITNESS], 1, s1, place.bar, slot)])
        (result,) = ran.results
        after = bytes(memory[start + slot : start + slot + SLOT])
        changed = [at for at in range(SLOT) if before[at] != after[at]]
        effect = (
            "works" if result.status == Status.DONE else f"EL{result.level} {errno.errorcode.get(result.far, '')} fault"
        )
        device = f"bytes {changed[0]} to {changed[-1]} changed" if changed else "no byte changed"
        inside = set(changed) <= set(range(op.offset, op.offset + op.size))
        return Seen("EL1 cold", effect, result.status == Status.DONE, device, len(changed) if inside else -1)


def _outcome(refused: str) -> str:
    return f"refused with {refused}" if refused else "taken"
