"""A Linux in a virtual machine of its own kernel's KVM: its processes' BARs, and a driver's, under a real QEMU."""

from __future__ import annotations

import pytest

from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.kvm.kernels import kernel_jobs
from pyvfio_user.guest.kvm.nested import Nested
from pyvfio_user.guest.verdict import Verdict

RANGES = ("control", "wc-mapped", "wc-trapped", "dynamic")
SIGNAL = "SIGBUS 1 (BUS_ADRALN); the device gets nothing"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kernel", "nibble", "driver", "store"),
    [
        (
            "6.1",
            1,
            "stage 1 44 over stage 2 1: 04",
            "the virtual machine is lost: KVM_RUN -EFAULT; the device gets nothing",
        ),
        ("6.12", 5, "stage 1 44 over stage 2 5: 44", "works; the device gets 8x1"),
    ],
)
async def test_a_linux_and_its_processes(kernel: str, nibble: int, driver: str, store: str) -> None:
    (job,) = kernel_jobs([kernel], ["neoverse-n1"])
    nested = Nested(job.release, job.cpu, dict.fromkeys(RANGES, nibble), fwb=False)
    await nested.run(job.files, job.cpu)
    assert nested.lane is not None and nested.lane.tally.problems == []
    found = {finding.name: finding for finding in nested.findings}
    assert all(finding.verdict in (Verdict.AGREE, Verdict.KNOWN_DEVIATION) for finding in found.values())
    assert found["ramoops, by ioremap_wc"].observed == f"{driver}; reads and writes, all aligned"
    assert found["resource2: unaligned store of a process"].observed == SIGNAL
    assert found["resource2_wc: unaligned store of a process"].observed == store
    batteries = [name for name in found if ": battery of a process on " in name]
    assert len(batteries) == 5
    assert all(nested.lane.batteries[found[name].battery or ""].rows for name in batteries)


@pytest.mark.asyncio
async def test_a_wrong_claim_is_caught() -> None:
    """6.1 claimed to relax: what must not fault does, and the machine is lost at once."""
    (job,) = kernel_jobs(["6.1"], ["neoverse-n1"])
    nested = Nested(job.release, job.cpu, dict.fromkeys(RANGES, 5), fwb=False)
    with pytest.raises(QemuError, match=r"^QEMU ended with exit status 0\n") as caught:
        await nested.run(job.files, job.cpu)
    assert nested.lane is not None
    assert any("stage 2 must be 5, not {1}" in problem for problem in nested.lane.tally.problems)
    assert "KVM_RUN ended with Bad address" in str(caught.value)
