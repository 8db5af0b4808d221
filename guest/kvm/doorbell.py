"""A whole doorbell scenario in a virtual machine: text in RAM, its address to the device, the doorbell, DMA, MSI-X.

The interrupt is the device's own: its message goes to the kernel's vfio, an eventfd, KVM's irqfd and GICv3, and ends in
the guest's vector, which acknowledges it.
"""

from __future__ import annotations

from ...devices.upcase import Upcase
from ..commander import Guest, StepFailed
from ..findings import Finding
from ..hello import Hello
from ..script import Action, Space, Step, StepStatus
from .its import Its
from .vmm import Vmm

_ADDRESS, _LENGTH, _STATUS, _RING = 0x00, 0x08, 0x0C, 0x10
_TEXT = b"doorbell"
_EXPECTED = "DMA done, interrupt 8192 acknowledged, DOORBELL in RAM; the next wait is in vain"
_NAME = "upcase: ring, DMA, MSI-X by irqfd"
BYPASS = (
    "the kernel has no driver for virtio-iommu, and does not do without: behind an SMMUv3 that the device bypasses, "
    "the kernel gives it an address of the SMMU's for its messages"
)
_REFUSED = "vfio does not enable MSI-X"


async def doorbell(guest: Guest, hello: Hello, vmm: Vmm, cpu: str, *, interrupts: bool) -> Finding:
    """Run it; ``interrupts``: whether they can reach a virtual machine of this kernel's at all."""
    if not interrupts:
        return Finding.unobservable(cpu, "doorbell", _NAME, _EXPECTED, BYPASS)
    function = hello.find(Upcase.identity.vendor, Upcase.identity.device)
    its = Its(guest, hello)
    await its.start()
    try:
        await its.enable(function, 1)
    except StepFailed as error:
        if error.outcome.status is not StepStatus.TIMEOUT:
            raise
        return Finding.of(cpu, "doorbell", _NAME, _EXPECTED, _REFUSED)
    text, bar = hello.scratch, function.bars[0]
    outcomes = await guest.script(
        [
            Step(Action.WRITE, Space.RAM, 8, text, int.from_bytes(_TEXT, "little")),
            Step(Action.WRITE, Space.MMIO, 8, bar + _ADDRESS, await vmm.dma(text)),
            Step(Action.WRITE, Space.MMIO, 2, bar + _LENGTH, len(_TEXT)),
            Step(Action.WRITE, Space.MMIO, 4, bar + _RING, 1),
            Step(Action.INTERRUPT, Space.MMIO, 4, 0, timeout_us=5_000_000),
            Step(Action.READ, Space.MMIO, 4, bar + _STATUS),
            Step(Action.READ, Space.RAM, 8, text),
            Step(Action.INTERRUPT, Space.MMIO, 4, 0, timeout_us=10_000),
        ]
    )
    *_, taken, status, read, again = outcomes
    done = "done" if (status.status, status.value) == (StepStatus.DONE, 1) else f"status {status.value}"
    number = "none" if taken.status is not StepStatus.DONE else f"{taken.value} acknowledged"
    content = read.value.to_bytes(8, "little").decode(errors="replace")
    quiet = "in vain" if again.status is StepStatus.TIMEOUT else f"interrupt {again.value}"
    observed = f"DMA {done}, interrupt {number}, {content} in RAM; the next wait is {quiet}"
    return Finding.of(cpu, "doorbell", _NAME, _EXPECTED, observed)
