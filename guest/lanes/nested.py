"""The `kvm` lane with a Linux as the virtual machine: a process of it, at EL0, runs batteries on what sysfs maps.

resourceN is Device-nGnRE, resourceN_wc Normal Non-cacheable; a fault is a signal, whose ESR Linux tells.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from ...bridge.attributes import MemoryType
from ...bridge.recorder import Transaction
from ...devices.mailbox import Submission
from ..expectation import Mapping, expect
from ..judge import Judge, Judgement
from ..operation import Op
from ..plan import Experiment, Range, Result, Status
from ..results import Verdict
from .installation import Installation
from .kvm import KvmLane
from .lane import Lane, Ran
from .places import Place
from .trials import Modes, Trial

MODES: Modes = ((0, False), (0, True))
_BUS_ALIGNMENT = (signal.SIGBUS, 1)  # BUS_ADRALN


class NestedLane(KvmLane):
    """Drives the process. A MAIR that is not ours is no mistake here, for stage 1 is Linux' own."""

    async def map(self, installation: Installation, ranges: Sequence[Range], where: str) -> None:
        """Have the VMM map ``ranges``, whose memattr is a `Backing`; batteries run on the installation's patches."""
        await self.guest.install(ranges)
        self._installation = installation

    def survivable(self, ops: Sequence[Op], s1: MemoryType, s2: int) -> tuple[Op, ...]:
        """The operations that must not be taken to EL2, where KVM could not run them and the machine would be lost."""
        mapping = Mapping(s1, s2, self.fwb)

        def survives(op: Op) -> bool:
            instructions = expect(op, mapping, 0, self._implementation).instructions
            return all(outcome.level != 2 for each in instructions for outcome in each.permitted)

        return tuple(op for op in ops if survives(op))

    async def guest_battery(self, name: str, s1: MemoryType, ops: tuple[Op, ...], size: str, where: str) -> Ran:
        """Run a battery at EL0 on a patch, judged as under the patch's stage 2."""
        s2 = self._installation.patches[name].stage2
        return await self.battery(name, s1, s2, ops, size, where, at=(), modes=MODES)

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
        """As in every lane; and an alignment fault must be the signal that Linux makes of it."""
        number, code = result.esr >> 40 & 0xFF, result.esr >> 32 & 0xFF
        result = result._replace(esr=result.esr & 0xFFFF_FFFF)
        found, device = Lane.judge(self, trial, order, result, place, judge, log, submission)
        if result.status != Status.FAULT:
            return found, device
        observed = f"{found.observed}, {signal_name(number)} {code}"
        if (number, code) != _BUS_ALIGNMENT and found.verdict is Verdict.AGREE:
            why = f"the signal must be SIGBUS 1 (BUS_ADRALN), not {signal_name(number)} {code}"
            return found._replace(observed=observed, verdict=Verdict.DISAGREE, why=why), device
        return found._replace(observed=observed), device


def signal_name(number: int) -> str:
    """SIGBUS for 7."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
