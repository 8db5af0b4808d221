"""Every scheme as a kernel that boots: its stage 2 and the host's own mapping, held to the proposals by hand."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NORMAL_NC, MemoryType
from pyvfio_user.bridge.schemes import SCHEMES
from pyvfio_user.devices.probe_map import RANGES
from pyvfio_user.guest.claims import CLAIMS
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.kvm.change import JUST_THOSE
from pyvfio_user.guest.kvm.kernels import kernel_jobs
from pyvfio_user.guest.kvm.schemes import BUILT, look_at
from pyvfio_user.guest.provision.kernel_build import provide_built_kernel
from pyvfio_user.guest.provision.progress import Progress
from pyvfio_user.guest.results import Matrix, Verdict

NIBBLES = {NGNRNE: "0", NGNRE: "1", GRE: "3", NORMAL_NC: "5"}
"""MemAttr of stage 2, the same with FWB and without for these (Arm ARM DDI 0487, D8.6)."""
DEVICE, DEVICE_NGNRE, DEVICE_GRE, NC = "00", "04", "0c", "44"
"""Bytes of MAIR_ELx."""
HOST = {
    "prefetchable-wc": lambda name: NC if RANGES[name].bar == 2 else DEVICE,
    "vfio-descriptor": lambda name: {"wc-mapped": NC, "wc-trapped": DEVICE_GRE}.get(name, DEVICE),
    "pgprot-maybe-wc": lambda name: DEVICE_GRE,
    "pgprot-device": lambda name: DEVICE_NGNRE,
    "mmap-writecombine": lambda name: {"wc-mapped": NC, "wc-trapped": NC}.get(name, DEVICE),
    "mmap-writecombine-vetted": lambda name: {"wc-mapped": NC, "wc-trapped": DEVICE_GRE}.get(name, DEVICE),
}
"""What the VMM's own mapping is where it asks for what the device stands, by the column "host user mapping" of the
proposals; elsewhere vfio-pci's pgprot_noncached, Device-nGnRnE."""
PATCHED = [scheme for scheme in BUILT if scheme != "cacheable-follow"]
CASES = {"asking": "vfio", "nothing": "vfio, nothing asked", "changed": "vfio, page opened"}


SYSFS = {
    "vma-allow-any-uncached": ("1", "1"),
    "prefetchable-wc": ("1", "5"),
    "mmap-writecombine": ("1", "5"),
    "pgprot-device": ("5", "1"),
}
"""Stage 2 over sysfs' resourceN, which Linux maps Device-nGnRE, and resourceN_wc, which it maps Normal-NC: a scheme
that reads the user mapping takes either for VFIO's."""
PLATFORM = {"normal-nc-all": "5", "pgprot-device": "0"}
"""Stage 2 of a device that vfio-platform gives away, where it is not Device-nGnRE, for a VMM that asks nothing of it:
one scheme changes all that is not memory, one takes pgprot_noncached for Device-nGnRnE."""
PLATFORM_ASKED = {"vmm-opt-in": "5", "permit-wc": "5", "trap": "5"}
"""The same for a VMM that asks for all there is: a memslot's flag and permissions by page know no bus, while
MAP_WRITECOMBINE is the VFIO driver's to follow, and that one does not."""
CHANGES = {
    "mmap-writecombine": "nothing asked: stage 2 1; WRITE_COMBINE: stage 2 5; nothing asked: stage 2 1",
    "mmap-writecombine-vetted": "nothing asked: stage 2 1; WRITE_COMBINE: stage 2 3; nothing asked: stage 2 1",
    "permit-wc": "nothing asked: stage 2 1; WRITE_COMBINE: stage 2 3; WRITE_COMBINE|SPECULATION: stage 2 5; "
    "nothing asked: stage 2 1",
    "trap": "granted: stage 2 5; given back: stage 2 1; granted again: stage 2 5",
}
"""Pages of `wc-trapped` while the guest stores to them: what is asked for, and what it is then."""


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """Built now if nobody has: `make test` does it first, and shows how far it is."""
    provide_built_kernel(Progress())


def kvm(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["kvm", "--kernel", "schemes", *arguments], prog_name="pyvfio-user")


def claimed(scheme: str, part: str, case: str) -> str:
    """Stage 2 as it was written down from the proposals, of a range or of a part of one such as `dynamic[1]`."""
    name, _, rest = part.partition("[")
    page = int(rest.rstrip("]").partition(":")[0] or 0)
    return NIBBLES[CLAIMS[scheme].stage2(name, RANGES[name].bar, page, case)]


@pytest.mark.timeout(2400)
def test_every_scheme_is_as_it_was_proposed(tmp_path: Path) -> None:
    """One boot with FWB shows all; the table walk, the guest and the device agree on each range in each case."""
    done = kvm("--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode((tmp_path / "report").read_bytes(), type=Matrix)
    assert [kernel.scheme for kernel in found.kernels] == [kernel.expected for kernel in found.kernels] == list(BUILT)
    assert set(SCHEMES) - set(BUILT) == {"vfio-wc-uapi"}
    assert {kernel.fwb for kernel in found.kernels} == {1}
    for scheme in PATCHED:
        proofs = [proof for proof in found.proofs if proof.scheme == scheme]
        for case, way in CASES.items():
            seen = {proof.range: proof.memattr for proof in proofs if proof.way == way}
            assert seen == {part: claimed(scheme, part, case) for part in seen}, (scheme, case)
            whole = {part.partition("[")[0] for part in seen}
            assert whole == set(RANGES) or (case != "asking" and not seen)
        assert bool([proof for proof in proofs if proof.way == CASES["nothing"]]) == CLAIMS[scheme].opt_in
        opened = [proof.range for proof in proofs if proof.way == CASES["changed"] and "[" in proof.range]
        assert opened == (["dynamic[0]", "dynamic[1]", "dynamic[2:16]"] if CLAIMS[scheme].opened else [])
        assert [proof.quarrel for proof in proofs if proof.quarrel] == []
        hosts = {cell.range: cell.observed for cell in found.host if (cell.scheme, cell.case) == (scheme, "asking")}
        for name in RANGES:
            assert hosts[name] == HOST.get(scheme, lambda name: DEVICE)(name), (scheme, name)
    for scheme, others in SYSFS.items():
        proofs = [proof for proof in found.proofs if proof.scheme == scheme and proof.way.startswith("sysfs")]
        assert [(proof.way, proof.memattr) for proof in proofs] == [*zip(("sysfs", "sysfs wc"), others, strict=True)]
    platform = {proof.scheme: proof.memattr for proof in found.proofs if proof.way == "gicv2"}
    assert platform == {
        "status-quo": "1", "normal-nc-all": "5", "vma-allow-any-uncached": "1", "pgprot-device": "1"
    }  # fmt: skip
    asked = {**PLATFORM, **PLATFORM_ASKED}
    for way, nibbles in (("vfio-platform", PLATFORM), ("vfio-platform, all asked", asked)):
        seen = {proof.scheme: proof.memattr for proof in found.proofs if proof.way == way}
        assert seen == {scheme: nibbles.get(scheme, "1") for scheme in PATCHED}, way
    hosts = {cell.scheme: cell.observed for cell in found.host if cell.range == "platform"}
    assert hosts == dict.fromkeys(PATCHED, DEVICE), "no scheme has vfio-platform map otherwise than pgprot_noncached"
    for scheme in PATCHED:
        answer = found.scorecard[scheme]["platform"]
        assert (answer["how"], answer["value"]) == ("seen", {"guest": scheme not in PLATFORM, "host": True}), scheme
    by_kind = {
        kind: {each.cpu.partition("(")[2].rstrip(")"): each.observed for each in found.findings if each.kind == kind}
        for kind in ("change", "rule")
    }
    assert by_kind == {
        "change": {scheme: f"{seen}; {JUST_THOSE}; beside it: unchanged" for scheme, seen in CHANGES.items()},
        "rule": {"mmap-writecombine": "taken"},
    }
    cacheable = {proof.range: proof.memattr for proof in found.proofs if proof.way == "vfio, cacheable asked"}
    assert cacheable == {"wc-mapped": "6"}, "MAP_CACHEABLE: Write-Back, forced by FWB"
    coherent(found, usemem="6")
    verdicts = {cell.verdict for cell in found.cells} | {cell.accesses for cell in found.cells}
    assert verdicts == {Verdict.AGREE, Verdict.KNOWN_DEVIATION, Verdict.UNOBSERVABLE}
    assert {cell.verdict for cell in found.cells} == {Verdict.AGREE, Verdict.KNOWN_DEVIATION}
    untried = {cell.range for cell in found.cells if cell.accesses is Verdict.UNOBSERVABLE and cell.scheme in PATCHED}
    assert all(name.startswith("bar") for name in untried), "all types are tried, but on pages that no range claims"
    assert found.vanished == ()


def coherent(found: Matrix, usemem: str | None) -> None:
    """The real nvgrace-gpu: `resmem` Normal-NC on both sides, `usemem` Write-Back with FWB; without, no memslot."""
    proofs = [proof for proof in found.proofs if proof.scheme == "cacheable-follow"]
    assert {(proof.range, proof.memattr) for proof in proofs} == {("resmem", "5")} | {
        ("usemem", memattr) for memattr in [usemem] if memattr
    }
    for proof in proofs:
        device = MemoryType.parse(proof.way.partition("s1=")[2]).is_device
        assert (proof.effect == "works", proof.device) == (
            (False, "no byte changed") if device else (True, "bytes 1 to 8 changed")
        )
    hosts = {cell.range: cell.observed for cell in found.host if cell.scheme == "cacheable-follow"}
    assert hosts == {"resmem": "44", **({"usemem": "ff"} if usemem else {})}


@pytest.mark.timeout(2400)
def test_a_cacheable_mapping_is_refused_without_fwb(tmp_path: Path) -> None:
    done = kvm("--expect", "cacheable-follow", "--cpu", "neoverse-n1", "--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode((tmp_path / "report").read_bytes(), type=Matrix)
    coherent(found, usemem=None)
    cells = [cell for cell in found.cells if cell.range == "usemem"]
    assert len(cells) == 7
    assert {(cell.verdict, cell.note) for cell in cells} == {(Verdict.REFUSED, "KVM: refused with EINVAL")}


@pytest.mark.timeout(2400)
def test_a_host_that_does_not_run_at_el2_does_not_show_its_own_mapping(tmp_path: Path) -> None:
    """Cortex-A72 has no FEAT_VHE: its processes' tables are not in use while a virtual machine runs."""
    done = kvm("--expect", "cacheable-follow", "--cpu", "cortex-a72", "--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode((tmp_path / "report").read_bytes(), type=Matrix)
    assert [(cell.range, cell.type, cell.observed, cell.verdict) for cell in found.host] == [
        ("resmem", "44", None, Verdict.UNOBSERVABLE)
    ]


@pytest.mark.timeout(2400)
def test_pages_that_are_asked_to_be_cacheable_have_no_memslot_without_fwb(tmp_path: Path) -> None:
    """KVM could not keep them coherent: kvm_arch_prepare_memory_region() refuses the slot."""
    done = kvm("--expect", "mmap-writecombine", "--cpu", "neoverse-n1", "--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode((tmp_path / "report").read_bytes(), type=Matrix)
    assert [(each.name, each.observed) for each in found.findings if each.kind == "rule"] == [
        ("memslot over pages mapped MAP_CACHEABLE", "-EINVAL")
    ]
    assert {proof.way for proof in found.proofs if "cacheable" in proof.way} == set()


@pytest.mark.timeout(2400)
def test_scenarios_of_single_schemes_go_on_from_one_snapshot() -> None:
    """Each in its own virtual machine, with the driver that its scheme needs: what stage 2 is for a VMM that asks
    nothing, and what it becomes in the scheme's own way."""
    for scheme, unasked in {"trap": "1", "vfio-descriptor": "3", "pgprot-maybe-wc": "5"}.items():
        done = kvm("--expect", scheme, "--scenario", "doorbell", "--scenario", "changes")
        assert done.exit_code == 0, done.output
        text = re.sub(r"[\s│]+", " ", done.output)
        assert f"({scheme})" in text
        assert "interrupt 8192 acknowledged, DOORBELL in RAM" in text
        assert f"vfio: stage 2 {unasked}; RAM: stage 2 6; vfio: stage 2 {unasked}; {JUST_THOSE}" in text
        assert (CHANGES.get(scheme, "granted") in text) == (scheme == "trap")


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("scheme", ["normal-nc-all", "vmm-opt-in", "vfio-descriptor"])
def test_a_linux_as_the_virtual_machine(scheme: str, tmp_path: Path) -> None:
    """Its VMM asks for nothing. The last store, unaligned and Normal-NC, is its end under stage 2 of a Device type."""
    done = kvm("--expect", scheme, "--cpu", "neoverse-n1", "--linux-guest", "--json", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode((tmp_path / "report").read_bytes(), type=Matrix)
    linux = {each.name: each for each in found.findings if each.kind == "linux"}
    assert linux["ramoops, by ioremap_wc"].verdict is Verdict.UNOBSERVABLE
    assert linux["resource2: unaligned store of a process"].observed == "SIGBUS 1 (BUS_ADRALN); the device gets nothing"
    lost = "the virtual machine is lost: KVM_RUN -EFAULT; the device gets nothing"
    assert linux["resource2_wc: unaligned store of a process"].observed == (
        "works; the device gets 8x1" if scheme == "normal-nc-all" else lost
    )
    assert len(linux) == 8


@pytest.mark.timeout(2400)
def test_a_policy_that_does_the_contrary_is_caught(tmp_path: Path) -> None:
    """Device becomes Normal-NC, and Normal-NC Device: the kernel names itself as before, and every witness says no."""
    report = tmp_path / "report"
    options = ("--expect", "vmm-opt-in", "--cpu", "neoverse-n1", "--append", "kvm.bar_scheme_inverted=Y")
    done = kvm(*options, "--json", str(report))
    assert done.exit_code == 1, done.output
    found = msgspec.json.decode(report.read_bytes(), type=Matrix)
    assert [(kernel.scheme, kernel.judged_by, kernel.fwb) for kernel in found.kernels] == [(None, "vmm-opt-in", 0)]
    (release,) = {kernel.release for kernel in found.kernels}
    for name, wanted, seen in (("wc-trapped", "5", "1"), ("strict", "1", "5"), ("control", "1", "5")):
        assert f"Linux {release}, vfio, {name}: stage 2 must be {wanted}, not {seen}" in found.problems
        cells = {cell.s1: cell for cell in found.cells if (cell.range, cell.case) == (name, "asking")}
        assert (cells[NC].verdict, cells[NC].accesses) == (Verdict.DISAGREE, Verdict.DISAGREE)
    assert {proof.memattr for proof in found.proofs if proof.way == CASES["nothing"]} == {"5"}
    assert f"Linux {release}, vfio-platform, platform: stage 2 must be 1, not 5" in found.problems


def test_a_scheme_that_the_kernel_does_not_have() -> None:
    done = kvm("--expect", "vfio-wc-uapi")
    assert done.exit_code == 125
    assert done.output == f"Error: scheme must be one of {', '.join(BUILT)}, not vfio-wc-uapi\n"


@pytest.mark.asyncio
async def test_an_image_of_ones_own_carries_its_options_and_is_looked_at_with_every_driver_it_has() -> None:
    """By its path alone: CONFIG_IKCONFIG tells that it has nvgrace-gpu and vfio-platform."""
    image = provide_built_kernel(Progress()).image
    (job,) = kernel_jobs([str(image)], ranges=["wc-trapped"])
    assert (job.config, job.expected, job.schemes) == (None, None, ())
    found = await look_at(job, lambda done, steps, what: None)
    assert found.problems == ()
    own, coherent = found.kernels
    assert (own.scheme, coherent.scheme) == ("vma-allow-any-uncached", "cacheable-follow")
    assert "normal-nc-all" not in own.alike
    assert own.unobservable == {}
    shown = {(proof.way, proof.memattr) for proof in found.proofs if proof.kernel == own.release}
    assert shown == {
        ("vfio", "5"),
        ("vfio pieces", "5"),
        ("vfio-platform", "1"),
        ("ram", "6"),
        ("sysfs", "1"),
        ("sysfs wc", "1"),
        ("gicv2", "1"),
    }
    usemem = {proof.memattr for proof in found.proofs if proof.kernel == coherent.release and proof.range == "usemem"}
    assert usemem == {"6"}, "Write-Back, forced by FWB (Arm ARM DDI 0487, D8.6)"
