"""The `kvm` lane on released kernels, under a real QEMU: what each does with a BAR, and a wrong claim is caught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyvfio_user.guest.cli import main


def kvm(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["kvm", *arguments], prog_name="pyvfio-user")


def proofs(report: dict[str, Any], way: str) -> set[tuple[str, str, bool]]:
    """What stage 2 is and should be where it was mapped in this way, and whether the story is one."""
    return {(each["memattr"], each["wanted"], each["story"]) for each in report["proofs"] if each["way"] == way}


TAGS = {"memslot over a BAR with MTE", "memslot over RAM with MTE"}
DOORBELL = "upcase: ring, DMA, MSI-X by irqfd"
UNOBSERVABLE = {"6.1": {*TAGS, DOORBELL}, "6.12": TAGS, "7.3": {DOORBELL}}
"""What a kernel cannot show: MTE is of -cpu max alone, and its messages do not reach its guests."""


@pytest.mark.parametrize(
    ("kernel", "cpu", "scheme", "nibble", "ram"),
    [
        ("6.1", "neoverse-n1", "status-quo", "1", "f"),
        ("6.12", "neoverse-n1", "vma-allow-any-uncached", "5", "f"),
        ("7.3", "max", "vma-allow-any-uncached", "5", "6"),
    ],
)
def test_a_released_kernel_is_named(kernel: str, cpu: str, scheme: str, nibble: str, ram: str, tmp_path: Path) -> None:
    done = kvm("--kernel", kernel, "--cpu", cpu, "--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    (report,) = json.loads((tmp_path / "report").read_text())
    assert (report["scheme"], report["expected"]) == (scheme, scheme)
    assert f": {scheme} (seen alike: " in done.output
    assert proofs(report, "vfio") == proofs(report, "vfio pieces") == {(nibble, nibble, True)}
    assert proofs(report, "sysfs") == proofs(report, "sysfs wc") == {("1", "1", True)}
    assert proofs(report, "ram") == {(ram, ram, True)}
    assert len(report["cells"]) == 8 * 7
    assert {cell["verdict"] for cell in report["cells"]} == {"agree"}
    assert {cell["accesses"] for cell in report["cells"]} <= {"agree", "known-deviation"}
    found = {(each["kind"], each["verdict"]): each for each in report["findings"]}
    assert {kind for kind, verdict in found if verdict == "disagree"} == set()
    assert len([each for each in report["findings"] if each["kind"] == "rule"]) == 15
    assert found["change", "agree"]["lane"] == "kvm"
    unseen = {each["name"] for each in report["findings"] if each["verdict"] == "unobservable"}
    assert unseen == UNOBSERVABLE[kernel]


def test_a_wrong_expectation_is_caught(tmp_path: Path) -> None:
    done = kvm("--kernel", "6.12", "--expect", "status-quo", "--json", str(tmp_path / "report"))
    assert done.exit_code == 1
    (report,) = json.loads((tmp_path / "report").read_text())
    assert report["scheme"] == "vma-allow-any-uncached", "what it is found to be does not depend on what is expected"
    assert proofs(report, "vfio") == {("5", "1", True)}
    assert any(problem.endswith("vfio, wc-trapped: stage 2 must be 1, not 5") for problem in report["problems"])
    assert {cell["accesses"] for cell in report["cells"] if cell["s1"] == "44"} == {"disagree"}


def test_a_kernel_that_is_none_is_skipped_by_a_bisection(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("CONFIG_KVM=y\n")
    (tmp_path / "Image").write_bytes(b"")
    done = kvm("--kernel", str(tmp_path / "Image"), "--config", str(tmp_path / "config"))
    assert done.exit_code == 125
    assert "the kernel lacks CONFIG_VFIO, CONFIG_VFIO_PCI, CONFIG_VFIO_IOMMU_TYPE1, " in done.output
    assert "what to do: switch on what it lacks" in done.output
