"""The `el2` lane: the bare-metal guest plays the hypervisor, installs what it is told, and runs the battery.

What is real: QEMU's MMU, faults and device accesses.
"""

from __future__ import annotations

from ...bridge.attributes import MemoryType
from ...devices.probe import Probe
from ..battery import named
from ..commander import Guest
from ..hello import Hello
from ..operation import Op
from ..plan import MAIR, Context, Fault
from .installation import Installation
from .lane import Lane, Ran
from .trials import GUEST_MODES, HOST_MODES, SHORT_MODES

_AT_GUEST = named("at-s1e1r", "at-s1e1w", "at-s12e1r", "at-s12e1w")
_AT_HOST = named("at-s1e2r")


class El2Lane(Lane):
    """Drives one running guest at EL2; ``fwb`` is the setting of all its installations."""

    def __init__(self, guest: Guest, probe: Probe, hello: Hello, *, fwb: bool, faults: Fault = Fault.NONE) -> None:
        super().__init__(guest, probe, hello, fwb=fwb)
        self.faults = faults

    async def install(self, installation: Installation, where: str) -> None:
        """Make these the guest's tables, and check that the guest then has the registers it should have."""
        context = await self.guest.install(installation.ranges(), fwb=self.fwb, faults=self.faults)
        self._installation = installation
        self._check(context, where)

    def _check(self, context: Context, where: str) -> None:
        wanted = int.from_bytes(MAIR, "little")
        for name, value in (("MAIR_EL1", context.mair_el1), ("MAIR_EL2", context.mair_el2)):
            if value != wanted:
                self.problem(where, f"{name} must be {wanted:#018x}, not {value:#018x}")
        if context.fwb != self.fwb:
            self.problem(where, f"HCR_EL2.FWB must be {int(self.fwb)}, not {int(context.fwb)}")
        if context.current_el != 2:
            self.problem(where, f"the guest must take orders at EL2, not EL{context.current_el}")

    async def guest_battery(self, name: str, s1: MemoryType, ops: tuple[Op, ...], size: str, where: str) -> Ran:
        """Run a battery at EL1 and EL0 on a patch, the guest's stage 1 being ``s1``."""
        modes = SHORT_MODES if size == "short" else GUEST_MODES
        s2 = self._installation.patches[name].stage2
        return await self.battery(name, s1, s2, ops, size, where, at=_AT_GUEST, modes=modes)

    async def host_battery(self, name: str, ops: tuple[Op, ...], size: str, where: str) -> Ran:
        """Run a battery at EL2 on a patch, under its host type."""
        host = self._installation.patches[name].host
        assert host is not None, f"{name} has no host mapping"
        return await self.battery(name, host, None, ops, size, where, at=_AT_HOST, modes=HOST_MODES)
