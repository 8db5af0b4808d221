"""The `kvm` lane: Linux KVM is the hypervisor; its VMM maps a BAR as it is told, and the kernel chooses the stage 2.

What is real: the kernel's policy, QEMU's MMU, faults and device accesses. A virtual machine cannot read the combined
PAR_EL1: the effective type follows from its stage 1 and the descriptor that was found in memory.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from enum import IntEnum

from ...bridge.attributes import MemoryType
from ...bridge.recorder import Transaction
from ...devices.mailbox import Submission
from ...devices.probe_map import Reg
from ..gdbstub import GdbStub
from ..judge import Judge, Judgement
from ..operation import PAGE, Op
from ..plan import MAIR, Experiment, Range, Result, Status
from ..script import Action, Space, Step
from ..stage2 import Tables, read_tables
from .installation import Installation
from .lane import Lane, Ran
from .places import Place
from .trials import GUEST_MODES, SHORT_MODES, Trial

_SPIN_US = 60_000_000
_SEEN = 0x5EED


class Backing(IntEnum):
    """What pages of a BAR are mapped from: `enum backing` of the bare-metal guest's hypervisor.h."""

    DEVICE = 1
    """The BAR, through vfio or sysfs' resourceN."""
    RAM = 2
    RESOURCE_WC = 3
    NONE = 4
    """Nothing: KVM cannot run an access."""


class KvmLane(Lane):
    """Drives the guest in one virtual machine."""

    async def map(self, installation: Installation, ranges: Sequence[Range], where: str) -> None:
        """Have the VMM map ``ranges``, whose memattr is a `Backing`; batteries run on the installation's patches."""
        context = await self.guest.install(ranges)
        self._installation = installation
        wanted = int.from_bytes(MAIR, "little")
        if context.mair_el1 != wanted or context.current_el != 1:
            self.problem(where, f"MAIR_EL1 must be {wanted:#018x} at EL1, not {context.mair_el1:#018x}")

    async def guest_battery(self, name: str, s1: MemoryType, ops: tuple[Op, ...], size: str, where: str) -> Ran:
        """Run a battery at EL1 and EL0 on a patch, judged as under the patch's stage 2."""
        modes = SHORT_MODES if size == "short" else GUEST_MODES
        s2 = self._installation.patches[name].stage2
        return await self.battery(name, s1, s2, ops, size, where, at=(), modes=modes)

    async def stage2(self, stub: GdbStub, places: Sequence[Place]) -> Tables:
        """The descriptors of all pages of these places, by guest physical address, read while the guest spins."""
        spin = Step(Action.WAIT, Space.MMIO, 4, self.hello.physical(0, Reg.SCRATCH), _SEEN, timeout_us=_SPIN_US)
        touches = [
            Step(Action.READ, Space.MMIO, 4, self.hello.physical(place.bar, offset))
            for place in places
            for offset in range(place.arena_offset, place.arena_offset + place.arena_size, PAGE)
        ]
        self.probe.bar0.scratch = 0
        spinning = asyncio.create_task(self.guest.script([*touches, spin]))
        try:
            tables = await self._look(stub, [step.address for step in touches])
            await spinning
        finally:
            spinning.cancel()
        return tables

    async def _look(self, stub: GdbStub, addresses: Sequence[int]) -> Tables:
        async with stub:
            tables = await read_tables(stub, addresses)
            while None in tables.pages.values():  # the guest has not touched all of them yet
                await stub.run_on(0.01)
                tables = await read_tables(stub, addresses)
            self.probe.bar0.scratch = _SEEN
        return tables

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
        if result.level != 2:
            return super().judge(trial, order, result, place, judge, log, submission)
        error = errno.errorcode.get(result.far, str(result.far))
        if result.status == Status.FAULT:
            s1 = MAIR.index(judge.mapping.s1.byte)
            far = self.hello.address(el=trial.el, s1=s1, bar=place.bar, offset=trial.offset) + trial.op.offset
            result = result._replace(far=far)
        found, device = super().judge(trial, order, result, place, judge, log, submission)
        return found._replace(observed=f"KVM_RUN -{error}, ESR_EL2 {result.esr:08x}"), device
