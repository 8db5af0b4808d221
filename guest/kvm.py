"""What a kernel does with a PCI device's BARs: run on the `kvm` lane, proved three ways, and named as a scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from ..bridge.attributes import MEMORY_TYPES, NGNRE, NORMAL_WB, MemoryType, combine, decode_stage2, encode_stage2
from ..bridge.schemes import NOTHING, SCHEMES, Driver, Host, Situation, settled
from ..devices.upcase import Upcase
from .battery import FULL, SHORT
from .claims import CLAIMS
from .errors import MatrixError, QemuError
from .findings import Finding
from .lanes.installation import Installation, Patch
from .lanes.kvm import Backing, KvmLane
from .lanes.places import PLACES, Place
from .layout import LAYOUT
from .linux.boot import BootedLinux, LinuxImage, booted_linux
from .linux.failures import explain
from .operation import PAGE, Access
from .plan import Range
from .results import Battery, Cell, Verdict
from .scenarios import scenarios
from .stage2 import Descriptor, Tables

EXPECTED = {"6.1": "status-quo", "6.12": "vma-allow-any-uncached", "7.3": "vma-allow-any-uncached"}
"""The scheme of each released kernel, by the history of Linux: what was merged came with 6.9."""
_PCI = tuple(place for place in PLACES.values() if not place.platform)
_SHOWN = ("wc-trapped",)
"""Where the controls are run."""
_PIECES = ("wc-mapped", "wc-trapped", "strict")
"""Ranges of one BAR, side by side, each mapped by itself into one memslot."""
_OPS = tuple(op for op in FULL if op.access is not Access.EXCLUSIVE)
"""An interrupt of the host's between the load and the store of an exclusive pair makes the store fail, as it may."""
_FULL = ("wc-trapped", "wc-mapped")
"""Ranges whose battery is the full one: the others have a short one."""


class Proof(msgspec.Struct, frozen=True):
    """One range mapped in one way: the descriptor in memory, what the guest saw, what the device got.

    ``way``: "vfio", "vfio pieces", "sysfs", "sysfs wc" or "ram". ``effect`` and ``device`` are of an unaligned 8-byte
    store to a Normal-NC mapping of the guest's. ``story``: whether the three agree with one another.
    """

    way: str
    range: str
    pages: int
    level: int
    memattr: str
    access: str
    wanted: str
    effect: str
    device: str
    story: bool


class KernelReport(msgspec.Struct, frozen=True):
    """What a kernel was found to do. ``scheme`` is None when none is known; ``alike`` are those not told apart from it.

    ``differs`` says, of the scheme that comes nearest, what is otherwise. ``expected`` is the scheme that its cells
    were judged by.
    """

    kernel: str
    cpu: str
    fwb: int
    scheme: str | None
    alike: tuple[str, ...]
    differs: str
    expected: str
    proofs: tuple[Proof, ...]
    cells: tuple[Cell, ...]
    batteries: dict[str, Battery]
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]
    shown: dict[str, int]
    missed: dict[str, str]
    experiments: int
    transactions: int
    features: tuple[str, ...]
    command: str


Progress = Callable[[str], None]


class _Site(NamedTuple):
    """A way to map ranges, and the type that stage 2 must allow at most on each."""

    way: str
    backing: Backing
    types: dict[str, MemoryType]
    pieces: bool = False

    def places(self) -> list[Place]:
        """The ranges, as what lies there lets them be seen."""
        return [replace(PLACES[name], silent=self.backing is Backing.RAM) for name in self.types]


async def run_kernel(
    name: str, kernel: LinuxImage, cpu: str, *, expected: str | None = None, progress: Progress = lambda what: None
) -> KernelReport:
    """Boot a kernel and look at all ways that it has; judge it by ``expected``, or by the scheme found.

    Raises:
        MatrixError: It could not be looked at; the message says why and what to try.
        KernelError: The kernel, its modules or its configuration cannot be used.
        ProvisionError: There is no QEMU or no compiler.
    """
    progress("booting")
    try:
        async with booted_linux(kernel, cpu, ("vfio", "sysfs"), [Upcase()]) as up:
            run = _Run(name, cpu, expected, up, progress)
            await run.vfio()
            await up.guest.off()
            await run.sysfs()
            await up.guest.off()
            await up.vm.wait()
    except QemuError as error:
        raise MatrixError(explain(str(error))) from error
    return run.report()


class _Run:
    """One boot."""

    def __init__(self, name: str, cpu: str, expected: str | None, up: BootedLinux, progress: Progress) -> None:
        self.name, self.cpu, self.wanted, self.up, self.progress = name, cpu, expected, up, progress
        self.proofs: list[Proof] = []
        self.cells: list[Cell] = []
        self.lanes: list[KvmLane] = []
        self.findings: list[Finding] = []
        self.scheme: str | None = None
        self.alike: tuple[str, ...] = ()
        self.differs = ""
        self.fwb = False
        self.features: tuple[str, ...] = ()

    async def _lane(self) -> KvmLane:
        hello = await self.up.guest.hello()
        self.features = tuple(sorted(hello.features))
        lane = KvmLane(self.up.guest, self.up.probe, hello, fwb=self.fwb)
        self.lanes.append(lane)
        return lane

    async def vfio(self) -> None:
        """What vfio maps, whole and in pieces, and the positive control."""
        self.progress("vfio")
        lane = await self._lane()
        everything = {place.name: NGNRE for place in _PCI}
        tables = await self._map(lane, _Site("vfio", Backing.DEVICE, everything))
        lane.fwb = self.fwb = tables.fwb
        found = {place.name: _nibble(_common(_pages(lane, tables, place))) for place in _PCI}
        self._identify(found)
        scheme = self.expected
        claimed = {place.name: CLAIMS[scheme].stage2(place.name, place.bar, 0, "nothing") for place in _PCI}
        await self._site(lane, _Site("vfio", Backing.DEVICE, claimed), cells=True)
        await self._site(
            lane, _Site("vfio pieces", Backing.DEVICE, {name: claimed[name] for name in _PIECES}, pieces=True)
        )
        await self._site(lane, _Site("ram", Backing.RAM, dict.fromkeys(_SHOWN, NORMAL_WB)))
        self.progress("scenarios")
        nibbles = self._nibble_of(claimed["wc-trapped"]), self._nibble_of(NORMAL_WB)
        self.findings += await scenarios(lane, self.up, f"{self.cpu}, Linux {self.name}", *nibbles)
        for finding in self.findings:
            if finding.problem:
                lane.problem(f"Linux {self.name}", finding.problem)

    async def sysfs(self) -> None:
        """The negative control: no kernel relaxes what did not come from vfio."""
        self.progress("sysfs")
        lane = await self._lane()
        await self._site(lane, _Site("sysfs", Backing.DEVICE, dict.fromkeys(_SHOWN, NGNRE)))
        await self._site(lane, _Site("sysfs wc", Backing.RESOURCE_WC, dict.fromkeys(_SHOWN, NGNRE)))

    @property
    def expected(self) -> str:
        """The scheme to judge by."""
        return self.wanted or self.scheme or "status-quo"

    def _identify(self, found: dict[str, str]) -> None:
        """Which schemes decide, for a VMM that asks for nothing, what was found; released ones come first."""
        differences: dict[str, list[str]] = {}
        for name, scheme in SCHEMES.items():
            decision = settled(scheme, Situation(LAYOUT, NOTHING, Driver(), Host(fwb=self.fwb)))
            differences[name] = [
                f"{piece.range}: {found[piece.range]}, not {piece.s2:x}"
                for piece in decision.pieces
                if piece.range in found and piece.s2 is not None and found[piece.range] != f"{piece.s2:x}"
            ]
        fitting = [name for name, differing in differences.items() if not differing]
        fitting.sort(key=lambda name: not SCHEMES[name].status.startswith("Linux"))
        if fitting:
            self.scheme, self.alike = fitting[0], tuple(fitting[1:])
        else:
            nearest = min(differences, key=lambda name: len(differences[name]))
            self.differs = f"{nearest} comes nearest; " + "; ".join(differences[nearest])

    def _nibble_of(self, kind: MemoryType) -> int:
        return encode_stage2(kind, self.fwb)

    async def _map(self, lane: KvmLane, site: _Site) -> Tables:
        """Map a site's ranges and read the descriptors."""
        patches = {place.name: Patch(place, self._nibble_of(site.types[place.name]), None) for place in site.places()}
        where = f"Linux {self.name}, {site.way}"
        await lane.map(Installation(patches), _ranges(site), where)
        return await lane.stage2(self.up.stub, [patch.place for patch in patches.values()])

    async def _site(self, lane: KvmLane, site: _Site, *, cells: bool = False) -> None:
        """Batteries and the walk on a site; ``cells``: what comes out is the kernel's policy."""
        self.progress(site.way)
        tables = await self._map(lane, site)
        for place in site.places():
            where = f"Linux {self.name}, {site.way}, {place.name}"
            pages = _pages(lane, tables, place)
            leaf = _common(pages)
            wanted = self._nibble_of(site.types[place.name])
            if leaf is None:
                lane.problem(where, "stage 2 must have one kind of descriptor on all its pages")
                continue
            if leaf.memattr != wanted:
                lane.problem(where, f"stage 2 must be {wanted:x}, not {leaf.memattr:x}")
            if leaf.access != 3 and not place.silent:  # memory that was only read is KVM's to make writable later
                lane.problem(where, f"stage 2 must permit reads and writes (S2AP 3), not {leaf.access}")
            for s1 in MEMORY_TYPES[:-1]:
                if not cells and str(s1) not in ("04", "44"):
                    continue
                ops, size = (_OPS, "full") if cells and place.name in _FULL else (SHORT, "short")
                ran = await lane.guest_battery(place.name, s1, ops, size, f"{where}, s1={s1}")
                battery = lane.batteries[ran.key]
                if str(s1) == "44":
                    self._prove(site, place, leaf, len(pages), wanted, battery, lane)
                if cells:
                    effective = str(combine(s1, leaf.memattr, self.fwb))
                    architecture = str(combine(s1, wanted, self.fwb))
                    self.cells.append(
                        Cell(
                            "kvm", f"{self.cpu}, Linux {self.name}", int(self.fwb), self.expected, "asking", place.name,
                            str(s1), f"{wanted:x}", architecture, effective,
                            Verdict.AGREE if effective == architecture else Verdict.DISAGREE,
                            battery.verdict if ran.trace else Verdict.DISAGREE,
                            battery=ran.key, experiments=ran.experiments, transactions=ran.transactions,
                            note="from stage 1 and the descriptor in memory: PAR_EL1 shows stage 1 alone",
                        )
                    )  # fmt: skip

    def _prove(
        self, site: _Site, place: Place, leaf: Descriptor, pages: int, wanted: int, battery: Battery, lane: KvmLane
    ) -> None:
        row = next(row for row in battery.rows if row.op == "str-x+1")
        normal = not decode_stage2(leaf.memattr, self.fwb).type.is_device
        works = set(row.observed.values()) == {"works"}
        story = normal == works and (place.silent or _stored(row.device) == works)
        if not story:
            where = f"Linux {self.name}, {site.way}, {place.name}"
            found = f"MemAttr {leaf.memattr:x}, {row.observed}, {row.device}"
            lane.problem(where, f"descriptor, effect and device must tell the same, not {found}")
        effect = "; ".join(dict.fromkeys(row.observed.values()))
        access = "rw" if leaf.access == 3 else f"{leaf.access:02b}"
        self.proofs.append(
            Proof(site.way, place.name, pages, leaf.level, f"{leaf.memattr:x}", access, f"{wanted:x}", effect,
                  row.device, story)
        )  # fmt: skip

    def report(self) -> KernelReport:
        """All of it."""
        tallies = [lane.tally for lane in self.lanes]
        shown: dict[str, int] = {}
        for tally in tallies:
            for key, count in tally.shown.items():
                shown[key] = shown.get(key, 0) + count
        return KernelReport(
            self.name, self.cpu, int(self.fwb), self.scheme, self.alike, self.differs, self.expected,
            tuple(self.proofs), tuple(self.cells),
            {key: battery for lane in self.lanes for key, battery in lane.batteries.items()},
            tuple(self.findings),
            tuple(problem for tally in tallies for problem in tally.problems),
            shown,
            {key: where for tally in tallies for key, where in tally.missed.items() if key not in shown},
            sum(tally.experiments for tally in tallies), sum(tally.transactions for tally in tallies),
            self.features, self.up.command,
        )  # fmt: skip


def _ranges(site: _Site) -> list[Range]:
    """What the VMM is told: the ranges one by one, or each BAR in one piece; BAR 0 always, for its registers."""
    if site.backing is not Backing.DEVICE or site.pieces or len(site.types) < len(_PCI):
        ranges = [Range(place.bar, place.offset, place.size // PAGE, site.backing, 0) for place in site.places()]
        if all(place.bar for place in site.places()):
            ranges.insert(0, Range(0, 0, LAYOUT.bar(0).size // PAGE, Backing.DEVICE, 0))
        return ranges
    return [Range(bar.index, 0, bar.size // PAGE, site.backing, 0) for bar in LAYOUT.bars]


def _pages(lane: KvmLane, tables: Tables, place: Place) -> Sequence[Descriptor | None]:
    start = lane.hello.physical(place.bar, place.arena_offset)
    return [tables.pages[start + at] for at in range(0, place.arena_size, PAGE)]


def _common(pages: Sequence[Descriptor | None]) -> Descriptor | None:
    """The descriptor that all pages have, but for where it leads; None if they differ or lack one."""
    kinds = {(page.level, page.memattr, page.access) if page else None for page in pages}
    return pages[0] if len(kinds) == 1 else None


def _stored(device: str) -> bool:
    """Whether the device got a store. What it got is given as sizes, reads with an r; the load that warms up is one."""
    return device == "in the window" or any(word[0].isdigit() for word in device.split())


def _nibble(leaf: Descriptor | None) -> str:
    return "none or several" if leaf is None else f"{leaf.memattr:x}"
