"""A Linux as the virtual machine: what its processes and a driver of its own get of a BAR, on the `kvm` lane."""

from __future__ import annotations

from collections.abc import Mapping

from ...bridge.attributes import NGNRE, NORMAL_NC, MemoryType, combine, decode_stage2
from ...bridge.recorder import Transaction
from ...devices.probe_map import RANGES
from ..battery import FULL, INDEX, SHORT
from ..errors import QemuError
from ..findings import Finding
from ..lanes.installation import Installation, Patch
from ..lanes.kvm import Backing, mapped_pages
from ..lanes.nested import NestedLane, signal_name
from ..lanes.places import PLACES
from ..layout import LAYOUT
from ..linux.boot import BootedLinux, LinuxImage, booted_linux
from ..linux.modules import load_order
from ..operation import PAGE, SLOT, Access
from ..plan import MAIR, Experiment, Range, Status
from ..verdict import Verdict
from .stage1 import kernel_mapping
from .stage2 import read_tables

_WINDOW = "wc-trapped"
_DRIVER = RANGES["dynamic"]
_OPS = tuple(op for op in FULL if op.access is not Access.EXCLUSIVE and 0 in op.levels)
_BATTERIES = (
    ("control", NGNRE),
    ("wc-mapped", NGNRE),
    (_WINDOW, NGNRE),
    ("wc-mapped", NORMAL_NC),
    (_WINDOW, NORMAL_NC),
)
"""BAR 0 is not prefetchable, so that there is no resource0_wc."""
_PATHS = {NGNRE: "resource2", NORMAL_NC: "resource2_wc"}
_NO_DRIVER = "the kernel has no module ramoops among those that were named"
_LOST = "the virtual machine is lost: KVM_RUN -EFAULT"
_EFAULT = "KVM_RUN ended with Bad address"


class Nested:
    """One boot, and what was found: findings, and the lane's batteries and tally, which are as those of every lane."""

    def __init__(self, name: str, cpu: str, stage2: Mapping[str, int], *, fwb: bool) -> None:
        """``stage2`` is what it must be on each range, by name, where vfio has mapped the BARs."""
        self.cpu, self.stage2, self.fwb = f"{cpu}, Linux {name}", stage2, fwb
        self.findings: list[Finding] = []
        self.lane: NestedLane | None = None
        self._has_driver = False

    async def run(self, kernel: LinuxImage, cpu: str, scheme: str = "") -> None:
        """Boot both Linuxes, run it all, and turn them off. ``scheme``: what the kernel is told to follow, if anything.

        Raises what `booted_linux` raises.
        """
        self._has_driver = "ramoops" in load_order(kernel.modules, ("ramoops",))
        async with booted_linux(kernel, cpu, (f"linux:{scheme}" if scheme else "linux",)) as up:
            hello = await up.guest.hello()
            driver = [each for each in up.guest.last.transactions if _is_drivers(each)]
            await _dirty(up)
            self.lane = lane = NestedLane(up.guest, up.probe, hello, fwb=self.fwb)
            await self._driver(lane, up, driver)
            patches = {name: Patch(PLACES[name], self.stage2[name], None) for name, _ in _BATTERIES}
            whole = [Range(bar.index, 0, bar.size // PAGE, Backing.DEVICE, 0) for bar in LAYOUT.bars]
            await lane.map(Installation(patches), whole, self.cpu)
            await self._descriptors(lane, up)
            for name, s1 in _BATTERIES:
                await self._battery(lane, name, s1)
            for s1 in (NGNRE, NORMAL_NC):
                if not await self._unaligned(lane, up, s1):
                    return  # the virtual machine is lost, and the machine turned off
            await up.guest.off()
            await up.vm.wait()

    async def _driver(self, lane: NestedLane, up: BootedLinux, accesses: list[Transaction]) -> None:
        """The mapping of Debian's driver: its type in the guest's tables, the stage 2 behind it, the accesses made."""
        name = "ramoops, by ioremap_wc"
        effective = combine(NORMAL_NC, self.stage2[_DRIVER.name], self.fwb)
        expected = f"stage 1 44 over stage 2 {self.stage2[_DRIVER.name]:x}: {effective}; reads and writes, all aligned"
        if not self._has_driver:
            self.findings.append(Finding.unobservable(self.cpu, "linux", name, expected, _NO_DRIVER))
            return
        where = lane.hello.physical(_DRIVER.bar, _DRIVER.offset)
        if not lane.hello.mapping:
            observed = "the driver has mapped nothing"
        else:
            observed = await self._mapping(up, lane.hello.mapping, where)
        kinds = {each.write for each in accesses}
        aligned = all(each.offset % each.size == 0 for each in accesses)
        said = {0: "nothing", 1: "reads or writes alone", 2: "reads and writes"}[len(kinds)]
        observed += f"; {said}, {'all aligned' if aligned else 'some of them unaligned'}"
        self.findings.append(Finding.of(self.cpu, "linux", name, expected, observed))

    async def _mapping(self, up: BootedLinux, virtual: int, where: int) -> str:
        async with up.stub:
            tables = await read_tables(up.stub, [where])
            stage1 = await kernel_mapping(up.stub, tables, virtual)
        leaf = tables.pages[where]
        if stage1 is None or leaf is None:
            return f"stage 1 {stage1} over stage 2 {leaf}"
        if stage1.address != where:
            return f"stage 1 leads to {stage1.address:#x}, not {where:#x}"
        effective = combine(stage1.type, leaf.memattr, tables.fwb)
        return f"stage 1 {stage1.type} over stage 2 {leaf.memattr:x}: {effective}"

    async def _descriptors(self, lane: NestedLane, up: BootedLinux) -> None:
        """Have stage 2 map all pages, which an access that crosses pages would else make twice; what they are."""
        places = [PLACES[name] for name in dict(_BATTERIES)]
        look = await lane.look(up.stub, places)
        for place in places:
            pages = [look.tables.pages[lane.hello.physical(place.bar, offset)] for offset in mapped_pages(place)]
            found = {None if page is None else page.memattr for page in pages}
            if found != {self.stage2[place.name]}:
                lane.problem(f"{self.cpu}, {place.name}", f"stage 2 must be {self.stage2[place.name]:x}, not {found}")

    async def _battery(self, lane: NestedLane, name: str, s1: MemoryType) -> None:
        nibble = self.stage2[name]
        ops = lane.survivable(_OPS if name == _WINDOW else SHORT, s1, nibble)
        size = "full" if name == _WINDOW else "short"
        path = _PATHS[s1].replace("2", str(PLACES[name].bar))
        where = f"{path}: battery of a process on {name}"
        ran = await lane.guest_battery(name, s1, ops, size, f"{self.cpu}, {where}")
        effective = combine(s1, nibble, self.fwb)
        verdict = lane.batteries[ran.key].verdict if ran.trace else Verdict.DISAGREE
        self.findings.append(
            Finding(
                "kvm", self.cpu, "linux", where, f"as the architecture has it for {effective}, {s1} over {nibble:x}",
                f"{ran.experiments} experiments, {ran.transactions} transactions at the device", verdict, "", ran.key,
            )
        )  # fmt: skip

    async def _unaligned(self, lane: NestedLane, up: BootedLinux, s1: MemoryType) -> bool:
        """What an unaligned store of a process comes to; whether the guest lives on."""
        name = f"{_PATHS[s1]}: unaligned store of a process"
        lost = not s1.is_device and decode_stage2(self.stage2[_WINDOW], self.fwb).type.is_device
        fault = s1.is_device
        expected = _LOST if lost else "SIGBUS 1 (BUS_ADRALN)" if fault else "works"
        expected += f"; the device gets {'nothing' if lost or fault else '8x1'}"
        place = RANGES[_WINDOW]
        order = Experiment(0, INDEX["str-x+1"], 0, MAIR.index(s1.byte), place.bar, place.offset)
        up.probe.endpoint.recorder.drain()
        alive = True
        try:
            (result,) = (await up.guest.run([order])).results
            log = up.guest.last.transactions
            number, code = result.esr >> 40 & 0xFF, result.esr >> 32 & 0xFF
            alignment = " (BUS_ADRALN)" if code == 1 else ""
            ended = "works" if result.status == Status.DONE else f"{signal_name(number)} {code}{alignment}"
        except QemuError:
            log, alive = up.probe.endpoint.recorder.drain(), False
            await up.vm.wait()
            if not any(_EFAULT in line for line in up.vm.console_tail()):
                raise
            ended = _LOST
        stores = [each for each in log if each.region == place.bar]
        got = f"{len(stores)}x{stores[0].size}" if stores else "nothing"
        self.findings.append(Finding.of(self.cpu, "linux", name, expected, f"{ended}; the device gets {got}"))
        return alive


async def _dirty(up: BootedLinux) -> None:
    """Store to each page of the windows through each mapping.

    Where the hardware does not note that a page was written (FEAT_HAFDBS), Linux takes a fault at the first store: in
    the midst of one that crosses pages, which then begins again.
    """
    store = INDEX["str-x"]
    places = {name: RANGES[name] for name, s1 in _BATTERIES if s1 == NORMAL_NC}
    for s1 in (NGNRE, NORMAL_NC):
        for place in places.values():
            pages = range(place.offset, place.offset + place.size, PAGE)
            await up.guest.run([Experiment(0, store, 0, MAIR.index(s1.byte), place.bar, at + SLOT) for at in pages])


def _is_drivers(each: Transaction) -> bool:
    return each.region == _DRIVER.bar and 0 <= each.offset - _DRIVER.offset < _DRIVER.size
