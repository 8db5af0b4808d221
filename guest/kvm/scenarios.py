"""What is tried of a kernel besides batteries: its rules, a doorbell from end to end, mappings that change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..findings import Finding
from ..lanes.kvm import Backing, KvmLane
from ..linux.boot import BootedLinux
from .change import State, change
from .doorbell import doorbell
from .rules import rules
from .vmm import Vmm

NAMES = ("rules", "doorbell", "changes")


async def scenarios(
    lane: KvmLane,
    up: BootedLinux,
    cpu: str,
    mapped: int,
    ram: int,
    names: Iterable[str] = NAMES,
    more: Sequence[Sequence[State]] = (),
) -> list[Finding]:
    """Run them in a guest whose VMM has the devices from vfio; its BARs are mapped otherwise afterwards.

    ``mapped`` and ``ram`` are the nibbles that stage 2 must have for pages of a BAR that vfio mapped, and for RAM.
    ``more`` are changes besides, as lists of states.
    """
    wanted = tuple(names)
    found: list[Finding] = []
    if "rules" in wanted:
        found += await rules(lane, cpu)
    if "doorbell" in wanted:
        vmm = Vmm(lane.guest, lane.hello)
        found.append(await doorbell(lane.guest, lane.hello, vmm, cpu, interrupts=up.interrupts))
    if "changes" not in wanted:
        return found
    bar = State("vfio", Backing.DEVICE, f"{mapped:x}")
    memory = State("RAM", Backing.RAM, f"{ram:x}", arrives=False)
    nothing = State("nothing", Backing.NONE, "none", arrives=False)
    changes = [[bar, memory, bar], [bar, nothing], *more]
    return [*found, *[await change(lane, up.stub, cpu, states) for states in changes]]
