"""What is tried of a kernel besides batteries: its rules, a doorbell from end to end, mappings that change."""

from __future__ import annotations

from .change import State, change
from .doorbell import doorbell
from .findings import Finding
from .lanes.kvm import Backing, KvmLane
from .linux.boot import BootedLinux
from .rules import rules
from .vmm import Vmm


async def scenarios(lane: KvmLane, up: BootedLinux, cpu: str, mapped: int, ram: int) -> list[Finding]:
    """Run all of them in a guest whose VMM has the devices from vfio; its BARs are mapped otherwise afterwards.

    ``mapped`` and ``ram`` are the nibbles that stage 2 must have for pages of a BAR that vfio mapped, and for RAM.
    """
    found = await rules(lane, cpu)
    found.append(await doorbell(lane.guest, lane.hello, Vmm(lane.guest, lane.hello), cpu, interrupts=up.interrupts))
    bar = State("vfio", Backing.DEVICE, f"{mapped:x}")
    memory = State("RAM", Backing.RAM, f"{ram:x}", arrives=False)
    nothing = State("nothing", Backing.NONE, "none", arrives=False)
    return [*found, *[await change(lane, up.stub, cpu, states) for states in ([bar, memory, bar], [bar, nothing])]]
