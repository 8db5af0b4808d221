"""The `kvm` lane: Linux KVM is the hypervisor; its VMM maps a BAR as it is told, and the kernel chooses the stage 2.

What is real: the kernel's policy, QEMU's MMU, faults and device accesses. A virtual machine cannot read the combined
PAR_EL1: the effective type follows from its stage 1 and the descriptor that was found in memory.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ...bridge.attributes import MemoryType
from ...bridge.recorder import Transaction
from ...devices.mailbox import Submission
from ...devices.probe_map import MSIX_TABLE, RANGES, Reg
from ..judge import Judge, Judgement
from ..kvm.gdbstub import GdbStub
from ..kvm.proof import LOAD_WITNESS, WITNESS, Seen
from ..kvm.stage1 import host_types
from ..kvm.stage2 import Tables, read_tables
from ..operation import PAGE, SLOT, Op
from ..plan import MAIR, PLATFORM, Experiment, Range, Result, Status
from ..script import Action, Space, Step
from .installation import Installation
from .lane import IN_THE_WINDOW, Lane, Ran
from .places import RTC_ADDRESS, Place
from .trials import GUEST_MODES, SHORT_MODES, Trial

_SPIN_US = 60_000_000
_SEEN = 0x5EED
_TOUCH_SECONDS = 20.0
"""A page that the guest has not touched in this time, or that the hypervisor does not map, has no descriptor."""
_TOUCHED = 4
"""Offset in a page of the word that is read to have it mapped: no register there changes when it is read."""


class Backing(IntEnum):
    """What pages of a BAR are mapped from: `enum backing` of the bare-metal guest's hypervisor.h."""

    DEVICE = 1
    """The BAR, through vfio or sysfs' resourceN."""
    RAM = 2
    RESOURCE_WC = 3
    NONE = 4
    """Nothing: KVM cannot run an access."""


PLATFORM_DEVICE = 4
"""The platform device's number, behind those of all PCI devices: `DEVICES` of guest/linux/vmm.h."""


def area(bar: int, device: int = 0) -> int:
    """Where the VMM has a BAR of a device, the probe first: `HYPERVISOR_AREA` of the bare-metal guest's sources."""
    return (device + 1) * 0x10_0000_0000 + bar * 0x1_0000_0000


def _mapped_at(bar: int, offset: int) -> int:
    """Where the VMM has a page of the probe, or of the platform device, whose registers are its BAR 0."""
    return area(0, PLATFORM_DEVICE) + offset - RTC_ADDRESS if bar == PLATFORM else area(bar) + offset


def mapped_pages(place: Place) -> list[int]:
    """Offsets of the pages that the VMM lets a range have: that of the MSI-X table it emulates itself."""
    return [at for at in range(place.offset, place.end, PAGE) if (place.bar, at) != (RANGES["msix"].bar, MSIX_TABLE)]


@dataclass(frozen=True)
class Look:
    """What was found in memory: stage 2, and by BAR and offset the VMM's own types (None: they could not be seen)."""

    tables: Tables
    host: Mapping[tuple[int, int], MemoryType | None] | None


class KvmLane(Lane):
    """Drives the guest in one virtual machine. ``seen`` is what came of each witness (`proof`) of the last battery."""

    seen: tuple[Seen, ...] = ()

    async def map(self, installation: Installation, ranges: Sequence[Range], where: str) -> None:
        """Have the VMM map ``ranges``, whose memattr is a `Backing`; batteries run on the installation's patches."""
        context = await self.guest.install(ranges)
        self._installation = installation
        wanted = int.from_bytes(MAIR, "little")
        if context.mair_el1 != wanted or context.current_el != 1:
            self.problem(where, f"MAIR_EL1 must be {wanted:#018x} at EL1, not {context.mair_el1:#018x}")

    async def guest_battery(self, name: str, s1: MemoryType, ops: tuple[Op, ...], size: str, where: str) -> Ran:
        """Run a battery at EL1 and EL0 on a patch, judged as under the patch's stage 2."""
        self.seen = ()
        modes = SHORT_MODES if size == "short" else GUEST_MODES
        s2 = self._installation.patches[name].stage2
        return await self.battery(name, s1, s2, ops, size, where, at=(), modes=modes)

    async def look(self, stub: GdbStub, places: Sequence[Place]) -> Look:
        """The descriptors of all pages of these places, by guest physical address, read while the guest spins.

        Each page is read first, so that the hypervisor maps it.
        """
        spin = Step(Action.WAIT, Space.MMIO, 4, self.hello.physical(0, Reg.SCRATCH), _SEEN, timeout_us=_SPIN_US)
        where = [(place.bar, offset) for place in places for offset in mapped_pages(place)]
        touches = [
            Step(Action.READ, Space.MMIO, 4, self.hello.physical(bar, offset) + _TOUCHED) for bar, offset in where
        ]
        self.probe.bar0.scratch = 0
        spinning = asyncio.create_task(self.guest.script([*touches, spin]))
        try:
            look = await self._look(stub, where)
            await spinning
        finally:
            spinning.cancel()
        return look

    async def _look(self, stub: GdbStub, where: Iterable[tuple[int, int]]) -> Look:
        addresses = {(bar, offset): self.hello.physical(bar, offset) for bar, offset in where}
        async with stub:
            tables = await read_tables(stub, addresses.values())
            deadline = time.monotonic() + _TOUCH_SECONDS
            while None in tables.pages.values() and time.monotonic() < deadline:  # it has not touched all of them yet
                await stub.run_on(0.01)
                tables = await read_tables(stub, addresses.values())
            found = await host_types(stub, [_mapped_at(bar, offset) for bar, offset in addresses])
            self.probe.bar0.scratch = _SEEN
        host = None if found is None else dict(zip(addresses, found.values(), strict=True))
        return Look(tables, host)

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
        """As in every lane; but what was taken to EL2 is known from KVM's log, and FAR not at all."""
        if result.level == 2:
            error = errno.errorcode.get(result.far, str(result.far))
            if result.status == Status.FAULT:
                s1 = MAIR.index(judge.mapping.s1.byte)
                far = self.hello.address(el=trial.el, s1=s1, bar=place.bar, offset=trial.offset) + trial.op.offset
                result = result._replace(far=far)
            found, device = super().judge(trial, order, result, place, judge, log, submission)
            found = found._replace(observed=f"KVM_RUN -{error}, ESR_EL2 {result.esr:08x}")
        else:
            found, device = super().judge(trial, order, result, place, judge, log, submission)
        if trial.op.name == (LOAD_WITNESS if place.platform else WITNESS):
            stored = _stored(place, trial.offset, log) if place.trapped else trial.op.size * (device == IN_THE_WINDOW)
            worked = result.status == Status.DONE
            heard = None if place.unrecorded else stored
            self.seen += (Seen(trial.mode, found.observed, worked, device, heard),)
        return found, device


def _stored(place: Place, slot: int, log: Iterable[Transaction]) -> int:
    """How many bytes of the slot the device was given."""
    mine = (each for each in log if each.write and each.region == place.bar)
    return sum(each.size for each in mine if slot <= each.offset < slot + SLOT)
