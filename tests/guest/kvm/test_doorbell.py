"""A doorbell from end to end in a virtual machine, with and without an IOMMU, and what is said without MSI-X."""

from __future__ import annotations

import pytest

from pyvfio_user.devices.probe import Probe
from pyvfio_user.devices.upcase import Upcase
from pyvfio_user.guest.commander import Guest, StepFailed
from pyvfio_user.guest.hello import Hello, PciFunction
from pyvfio_user.guest.kvm.doorbell import doorbell
from pyvfio_user.guest.kvm.its import Its
from pyvfio_user.guest.kvm.kernels import kernel_jobs
from pyvfio_user.guest.kvm.vmm import Vmm
from pyvfio_user.guest.lanes.kvm import Backing
from pyvfio_user.guest.linux.boot import booted_linux
from pyvfio_user.guest.plan import PLATFORM, Range
from pyvfio_user.guest.script import Action, Outcome, Space, Step, StepStatus
from pyvfio_user.guest.verdict import Verdict

RUNS = "DMA done, interrupt 8192 acknowledged, DOORBELL in RAM; the next wait is in vain"
HELLO = Hello._make((*[0] * 14, -1, (PciFunction(0x1234, 0x11CA, 0, 0, (0,) * 6, (0,) * 6),), 0))


@pytest.mark.asyncio
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("machine", "iommu"), [(None, True), ("kvm-noiommu", False)])
async def test_interrupts_reach_a_guest_and_so_does_a_platform_device(machine: str | None, iommu: bool) -> None:
    """The platform device has no IOMMU before it; where PCI devices have none either, one container has all."""
    (job,) = kernel_jobs(["schemes"], ["neoverse-n1"])
    async with booted_linux(job.files, job.cpu, ("vfio",), [Upcase()], machine=machine) as up:
        assert ("virtio-iommu-device" in up.command, up.interrupts) == (iommu, True)
        hello = await up.guest.hello()
        await up.guest.install([Range(0, 0, 4, Backing.DEVICE, 0), Range(PLATFORM, 0x901_0000, 1, Backing.DEVICE, 0)])
        found = await doorbell(up.guest, hello, Vmm(up.guest, hello), "cpu", interrupts=up.interrupts)
        assert (found.observed, found.verdict) == (RUNS, Verdict.AGREE)
        await up.guest.off()
        await up.vm.wait()


@pytest.mark.asyncio
async def test_a_vfio_that_gives_no_interrupts_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a virtio-iommu-pci on Linux 6.15 and newer: the guest waits in vain for MSI-X to be enabled."""

    async def start(its: Its) -> None:
        return

    async def enable(its: Its, function: PciFunction, vectors: int) -> None:
        raise StepFailed(Step(Action.WAIT, Space.CONFIG, 2, 0), Outcome(StepStatus.TIMEOUT, 0, 0))

    monkeypatch.setattr(Its, "start", start)
    monkeypatch.setattr(Its, "enable", enable)
    guest = Guest(Probe().mailbox)
    found = await doorbell(guest, HELLO, Vmm(guest, HELLO), "cpu", interrupts=True)
    assert (found.observed, found.verdict) == ("vfio does not enable MSI-X", Verdict.DISAGREE)


@pytest.mark.asyncio
async def test_devices_that_bypass_an_iommu_are_not_tried() -> None:
    guest = Guest(Probe().mailbox)
    found = await doorbell(guest, HELLO, Vmm(guest, HELLO), "cpu", interrupts=False)
    assert (found.observed, found.verdict) == ("", Verdict.UNOBSERVABLE)
    assert "SMMUv3 that the device bypasses" in found.note
