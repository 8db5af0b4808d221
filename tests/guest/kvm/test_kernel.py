"""The `kvm` lane on released kernels, under a real QEMU: what each does with a BAR, and whatever is wrong is caught."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from pyvfio_user.bridge.attributes import MEMORY_TYPES
from pyvfio_user.devices.mailbox import Submission
from pyvfio_user.devices.probe import Probe
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.commander import Guest
from pyvfio_user.guest.jobs import JobResult
from pyvfio_user.guest.kvm import stage2
from pyvfio_user.guest.kvm.kernel import run_kernel
from pyvfio_user.guest.kvm.kernels import kernel_jobs
from pyvfio_user.guest.kvm.proof import WITNESS
from pyvfio_user.guest.lanes.kvm import PLATFORM_DEVICE, Backing, area
from pyvfio_user.guest.lanes.places import RTC_ADDRESS
from pyvfio_user.guest.plan import Asked, Experiment, Runs, Status
from pyvfio_user.guest.results import Matrix, Proof, Verdict

HEADER = (Path(__file__).parents[3] / "guest/baremetal/hypervisor.h").read_text(encoding="utf-8")
VMM_HEADER = (Path(__file__).parents[3] / "guest/linux/vmm.h").read_text(encoding="utf-8")
OLD, NEW = "status-quo", "vma-allow-any-uncached"
TAGS = {"memslot over a BAR with MTE", "memslot over RAM with MTE"}
DOORBELL = "upcase: ring, DMA, MSI-X by irqfd"
UNOBSERVABLE = {"6.1": {*TAGS, DOORBELL}, "6.12": TAGS}
"""What a kernel cannot show without MTE, and 6.1 without a virtio-iommu."""
CONTROLS = {"ram": "positive control", "sysfs": "negative control", "sysfs wc": "negative control"}


def kvm(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["kvm", *arguments], prog_name="pyvfio-user")


async def look(name: str = "6.1", *, expect: str | None = None, probe: Probe | None = None) -> JobResult:
    """One kernel on a CPU without FWB, with batteries on one range alone."""
    (job,) = kernel_jobs([name], ["neoverse-n1"], ["wc-trapped"], expect=expect)
    return await run_kernel(job, lambda done, steps, what: None, probe)


def memattrs(proofs: Sequence[Proof], way: str) -> set[tuple[str, str, bool]]:
    """What stage 2 is and should be where it was mapped in this way, and whether all agrees."""
    return {(each.memattr, each.wanted, each.agrees) for each in proofs if each.way == way}


def test_released_kernels_are_named(tmp_path: Path) -> None:
    """Without FWB; `test_matrix` has all three with it."""
    done = kvm("--kernel", "6.1", "--kernel", "6.12", "--cpu", "neoverse-n1", "--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode((tmp_path / "report").read_bytes(), type=Matrix)
    assert [(kernel.name, kernel.scheme, kernel.fwb) for kernel in found.kernels] == [("6.1", OLD, 0), ("6.12", NEW, 0)]
    for kernel, nibble in zip(found.kernels, ("1", "5"), strict=True):
        assert f"Linux {kernel.release}, -cpu neoverse-n1: {kernel.scheme} (seen alike: " in done.output
        proofs = [proof for proof in found.proofs if proof.kernel == kernel.release]
        assert memattrs(proofs, "vfio") == memattrs(proofs, "vfio pieces") == {(nibble, nibble, True)}
        assert memattrs(proofs, "sysfs") == memattrs(proofs, "sysfs wc") == {("1", "1", True)}
        assert memattrs(proofs, "ram") == {("f", "f", True)}
        assert {proof.way: proof.role for proof in proofs} == {
            "vfio": "policy", "vfio pieces": "policy", "gicv2": "platform", **CONTROLS
        }  # fmt: skip
        assert memattrs(proofs, "gicv2") == {("1", "1", True)}
        stored = {proof.device for proof in proofs if (proof.way, proof.range) == ("vfio", "wc-trapped")}
        assert stored == {"nothing | r8" if nibble == "1" else "8x1 | r8 8x1"}
        assert "normal-nc-all" not in kernel.alike, "that scheme relaxes the GIC, too"
        cells = [cell for cell in found.cells if cell.kernel == kernel.release]
        assert {cell.s1 for cell in cells} == {str(kind) for kind in MEMORY_TYPES[:-1]}
        assert {cell.verdict for cell in cells} <= {Verdict.AGREE, Verdict.KNOWN_DEVIATION}
        run = [cell.accesses for cell in cells if not cell.range.startswith("bar")]
        assert len(run) == (8 + 1) * 7, "and the GIC's interface"
        assert {*run} <= {Verdict.AGREE, Verdict.KNOWN_DEVIATION}
        tried = [each for each in found.findings if each.cpu == f"neoverse-n1, Linux {kernel.release}"]
        assert [each.name for each in tried if each.verdict is Verdict.DISAGREE] == []
        assert len([each for each in tried if each.kind == "rule"]) == 15
        assert {each.name for each in tried if each.verdict is Verdict.UNOBSERVABLE} == UNOBSERVABLE[kernel.name]
        assert "change" in {each.kind for each in tried}
        hosts = [cell for cell in found.host if cell.kernel == kernel.release]
        assert {(cell.type, cell.observed, cell.verdict) for cell in hosts} == {("00", "00", Verdict.AGREE)}


def test_the_scorecard_has_what_a_kernel_was_seen_to_do(tmp_path: Path) -> None:
    done = kvm("--kernel", "6.12", "--claims", "--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = msgspec.json.decode((tmp_path / "report").read_bytes())
    card = document["scorecard"][NEW]
    seen = {key for key, answer in card.items() if answer["how"] == "seen"}
    assert {"guest-types", "asks-nothing", "two-ranges", "host-process", "side-effects", "run-time"} <= seen
    assert "platform" not in seen, "no platform device was looked at"
    (release,) = {kernel["release"] for kernel in document["kernels"]}
    assert f"{NEW}: host-process: no, seen in lane kvm by" in done.output
    for key in seen:
        assert card[key]["lane"] == "kvm"
        for probe, pointer in zip(card[key]["probes"], card[key]["cells"], strict=True):
            _, where, number = pointer.split("/")
            cell = document[where][int(number)]
            assert probe.startswith(f"kvm Linux {release} -cpu max FWB=1 {NEW} (asking) {cell['range']} ")
            assert probe.endswith(f": {cell['observed']}")
            assert f"  {probe}" in done.output


class TestWhatIsWrongIsCaught:
    """Each test breaks one thing, and expects the run to name it."""

    @pytest.mark.asyncio
    async def test_another_scheme_than_expected(self) -> None:
        found = await look("6.12", expect=OLD)
        (kernel,) = found.kernels
        assert (kernel.scheme, kernel.judged_by) == (NEW, OLD), "what it is found to be is not what is expected"
        where = f"Linux {kernel.release}"
        assert f"{where}: the scheme must be {OLD}, not {NEW}" in found.problems
        assert f"{where}, vfio, wc-trapped: stage 2 must be 1, not 5" in found.problems
        assert memattrs(found.proofs, "vfio") == {("5", "1", False)}
        cells = [cell for cell in found.cells if (cell.range, cell.s1) == ("wc-trapped", "44")]
        assert {(cell.verdict, cell.accesses) for cell in cells} == {(Verdict.DISAGREE, Verdict.DISAGREE)}

    @pytest.mark.asyncio
    async def test_a_descriptor_that_lies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """6.1 installs Device, and is read as having installed Normal-NC."""
        honest = stage2.look_up

        async def lie(*arguments: Any) -> stage2.Descriptor | None:
            leaf = await honest(*arguments)
            return replace(leaf, memattr=5) if leaf and leaf.memattr == 1 else leaf

        monkeypatch.setattr(stage2, "look_up", lie)
        found = await look()
        quarrels = {proof.way: proof.quarrel for proof in found.proofs}
        says = "the descriptor has MemAttr 5, under which an unaligned access works; the guest saw: KVM_RUN -EFAULT"
        for way in ("vfio", "vfio pieces", "sysfs", "sysfs wc"):
            assert says in quarrels[way], way
        assert quarrels["ram"] == ""
        assert any("vfio, wc-trapped: descriptor, guest and device must tell the same" in p for p in found.problems)

    @pytest.mark.asyncio
    async def test_a_guest_that_lies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It says that unaligned stores worked which did not."""
        honest = Guest.run
        from pyvfio_user.guest.battery import INDEX

        async def lie(guest: Guest, experiments: Sequence[Experiment]) -> Runs:
            ran = await honest(guest, experiments)
            told = [
                result._replace(status=Status.DONE, level=0)
                if order.op == INDEX[WITNESS] and result.status == Status.FAULT
                else result
                for order, result in zip(experiments, ran.results, strict=True)
            ]
            return Runs(ran.context, told)

        monkeypatch.setattr(Guest, "run", lie)
        found = await look()
        quarrel = {proof.way: proof.quarrel for proof in found.proofs}["vfio"]
        assert "MemAttr 1, under which an unaligned access faults; the guest saw: works; the device got: " in quarrel

    @pytest.mark.asyncio
    async def test_a_device_that_lies(self) -> None:
        """It hides the stores that reached it."""
        found = await look("6.12", probe=SilentProbe())
        quarrel = {proof.way: proof.quarrel for proof in found.proofs}["vfio"]
        says = "MemAttr 5, under which an unaligned access works; the guest saw: works; the device got: nothing"
        assert says in quarrel

    @pytest.mark.asyncio
    async def test_a_host_mapping_of_another_type(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pyvfio_user.guest.lanes import kvm as lane

        async def lie(machine: object, addresses: Sequence[int]) -> dict[int, Any]:
            return dict.fromkeys(addresses, MEMORY_TYPES[4])

        monkeypatch.setattr(lane, "host_types", lie)
        found = await look()
        wanted = "the host's own mapping must be Device-nGnRnE, not Normal Non-cacheable"
        assert any(problem.endswith(f"wc-trapped: {wanted}") for problem in found.problems)
        assert {cell.verdict for cell in found.host} == {Verdict.DISAGREE}
        assert found.kernels[0].scheme is None


class SilentProbe(Probe):
    """Leaves writes of single bytes to the trapped window out of its log."""

    def _collect(self, data: bytes) -> Submission:
        whole = super()._collect(data)
        kept = [each for each in whole.transactions if not (each.write and each.region == 2 and each.size == 1)]
        return Submission(whole.data, kept, whole.window)


class TestTheHypervisorsHeader:
    """`guest/baremetal/hypervisor.h` and its other half in Python."""

    def enumeration(self, name: str, prefix: str) -> dict[str, int]:
        (body,) = re.findall(rf"^enum {name} \{{(.*?)^\}}", HEADER, re.MULTILINE | re.DOTALL)
        return {key: int(value, 0) for key, value in re.findall(rf"\b{prefix}_(\w+) = (\w+),", body)}

    def test_what_is_asked(self) -> None:
        assert self.enumeration("ask", "ASK") == {each.name: each.value for each in Asked if each.value}

    def test_backings(self) -> None:
        names = self.enumeration("backing", "BACKING")
        assert {each.name: each.value for each in Backing}.items() <= names.items()

    def test_where_the_platform_device_is(self) -> None:
        (address,) = re.findall(r"#define HYPERVISOR_PLATFORM (0x[0-9a-f]+)ull", HEADER)
        assert int(address, 16) == RTC_ADDRESS
        (number,) = re.findall(r"#define DEVICES (\d)u", VMM_HEADER)
        assert int(number) == PLATFORM_DEVICE

    def test_where_the_vmm_has_a_bar(self) -> None:
        (formula,) = re.findall(r"#define HYPERVISOR_AREA\(device, bar\) (.*)", HEADER)
        terms = formula.replace("ull", "").replace("device", "0")
        for bar in range(6):
            assert area(bar) == eval(terms, {"bar": bar})


def test_a_kernel_that_lacks_something_is_skipped_by_a_bisection(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("CONFIG_KVM=y\n")
    (tmp_path / "Image").write_bytes(bytes(56) + b"ARM\x64" + bytes(4))
    done = kvm("--kernel", str(tmp_path / "Image"), "--config", str(tmp_path / "config"))
    assert done.exit_code == 125
    assert "the kernel lacks CONFIG_VFIO, CONFIG_VFIO_PCI, CONFIG_VFIO_IOMMU_TYPE1, " in done.output
    assert "what to do: switch on what it lacks (scripts/config -e VFIO -e VFIO_PCI " in done.output
