"""A kernel that cannot be looked at: what is wrong, the console, QEMU's command, what to try; each under a real one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyvfio_user.devices import PciId
from pyvfio_user.devices.probe import Probe
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.errors import MatrixError
from pyvfio_user.guest.kvm.kernel import run_kernel
from pyvfio_user.guest.kvm.kernels import kernel_jobs
from pyvfio_user.guest.linux import boot, ready
from pyvfio_user.guest.linux.failures import explain
from pyvfio_user.guest.provision.kernel import provide_kernel
from pyvfio_user.guest.provision.kernel_build import provide_built_kernel
from pyvfio_user.guest.provision.progress import Progress


async def failure(append: str = "", *, modules: Path | None = None, probe: Probe | None = None) -> str:
    """Why 6.1 cannot be looked at: the message for people."""
    kernel = provide_kernel(Progress(), "6.1")
    (job,) = kernel_jobs([str(kernel.image)], ["neoverse-n1"], modules=modules or kernel.modules, append=append)
    with pytest.raises(MatrixError) as caught:
        await run_kernel(job, lambda done, steps, what: None, probe)
    text = str(caught.value)
    assert re.search(r"^QEMU's command:\n  \S*qemu-system-aarch64 .* -append '", text, re.MULTILINE), text
    return text


def told(text: str, *, wrong: str, console: str, remedy: str) -> None:
    """The message says these, in this order: first what is wrong, a line of the console, at the end what to do."""
    assert re.match(wrong, text), text
    assert re.search(rf"^the console's last lines:(\n  \| .*)*\n  \| .*{console}", text, re.MULTILINE), text
    assert text.splitlines()[-1] == f"  what to do: {remedy}"


@pytest.mark.asyncio
async def test_a_kernel_that_panics() -> None:
    told(
        await failure("rdinit=/guest.elf"),
        wrong="Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000004\nQEMU ended with ",
        console="el0t_64_sync",
        remedy="the kernel panics: see above; try another CPU with --cpu, or a newer QEMU",
    )


@pytest.mark.asyncio
async def test_a_kernel_without_a_root() -> None:
    told(
        await failure("rdinit=/nothing"),
        wrong="Kernel panic - not syncing: VFS: Unable to mount root fs",
        console="prepare_namespace",
        remedy="switch on CONFIG_BLK_DEV_INITRD",
    )


@pytest.mark.asyncio
async def test_no_kvm() -> None:
    told(
        await failure("kvm-arm.mode=none"),
        wrong="the kernel has no /dev/kvm\n",
        console=r"  kernel: \[ .*KVM disabled from command line",
        remedy="the kernel needs CONFIG_KVM=y, and EL2: see its own lines; no kvm-arm.mode=none, no nokvm",
    )


@pytest.mark.asyncio
@pytest.mark.timeout(2400)
async def test_no_vfio_platform_in_a_kernel_that_is_configured_with_it() -> None:
    image = provide_built_kernel(Progress()).image
    (job,) = kernel_jobs([str(image)], ["neoverse-n1"], append="initcall_blacklist=vfio_platform_driver_init")
    with pytest.raises(MatrixError) as caught:
        await run_kernel(job, lambda done, steps, what: None)
    told(
        str(caught.value),
        wrong="the kernel has no driver vfio-platform\n",
        console="  kernel: .*initcall vfio_platform_driver_init blacklisted",
        remedy="switch on CONFIG_VFIO_PLATFORM, or name the folder of its module with --modules",
    )


@pytest.mark.asyncio
async def test_no_iommu() -> None:
    told(
        await failure("initcall_blacklist=arm_smmu_driver_init"),
        wrong=r"vfio-pci does not take 0000:00:01.0 \(Invalid argument\): it has no IOMMU group\n",
        console="  kernel: .*initcall arm_smmu_driver_init blacklisted",
        remedy="switch on CONFIG_VIRTIO_IOMMU with CONFIG_VIRTIO_MMIO, or CONFIG_ARM_SMMU_V3, or CONFIG_VFIO_NOIOMMU",
    )


class Accelerator(Probe):
    """Has the numbers of a device that vfio-pci has on its list of those that it does not take (DH895XCC)."""

    identity = PciId(vendor=0x8086, device=0x0435, class_code=0x058000)


@pytest.mark.asyncio
async def test_a_device_that_vfio_refuses() -> None:
    told(
        await failure(probe=Accelerator()),
        wrong=r"vfio-pci does not take 0000:00:01.0 \(its probe fails\): it has an IOMMU group\n",
        console="  kernel: .*vfio.*8086:0435.*denylist",
        remedy="see vfio's own lines: the driver may refuse this device, or its group not be viable",
    )


@pytest.mark.asyncio
async def test_no_vfio(tmp_path: Path) -> None:
    told(
        await failure(modules=tmp_path),
        wrong="the kernel has no driver vfio-pci\n",
        console=r"pyvfio-user init: FAILED: the kernel has no driver vfio-pci(\n  \|   kernel: .*(kvm|iommu).*)+$",
        remedy="switch on CONFIG_VFIO_PCI, or name the folder of its module with --modules",
    )


@pytest.mark.asyncio
async def test_modules_of_another_kernel() -> None:
    told(
        await failure(modules=provide_kernel(Progress(), "6.12").modules),
        wrong=r"module \d\d-\w+\.ko cannot be loaded: Exec format error\n",
        console="FAILED",
        remedy="the modules must be of just this kernel: name their folder with --modules",
    )


def test_a_cpu_that_qemu_does_not_know() -> None:
    done = CliRunner().invoke(main, ["kvm", "--kernel", "6.1", "--cpu", "nosuch"])
    assert done.exit_code == 125
    what = "QEMU must make a device tree, not say: unable to find CPU model 'nosuch'"
    assert re.search(rf"^{what}\nQEMU's command:\n  \S*qemu-system-aarch64 ", done.output, re.MULTILINE), done.output
    assert "\n  what to do: use another --cpu, or another QEMU\n" in done.output
    assert re.search(rf"^disagree: .* could not be looked at: {what}$", done.output, re.MULTILINE)


def spinning(code: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """The L1 image, with a guest whose first instruction is another."""
    made = ready._contents

    def contents(modules: dict[str, bytes]) -> dict[str, bytes]:
        files = made(modules)
        guest = files["guest.elf"]
        entry = int.from_bytes(guest[24:32], "little")
        table = int.from_bytes(guest[32:40], "little")
        offset, address = (int.from_bytes(guest[table + at : table + at + 8], "little") for at in (8, 24))
        at = offset + entry - address
        return {**files, "guest.elf": guest[:at] + code + guest[at + len(code) :]}

    return contents


@pytest.mark.asyncio
async def test_a_virtual_machine_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "_contents", spinning(b"\x00\x00\x00\x14"))  # b .
    monkeypatch.setattr(boot, "_ANSWER", 0.5)
    told(
        await failure(),
        wrong=r"the virtual machine must answer within 0.5 s, not hang at EL[12], PC 0x\w+\n",
        console="pyvfio-user vmm: vfio",
        remedy="it hangs, or KVM does: at EL1 or EL0 in an access, else in KVM; try another --cpu",
    )


@pytest.mark.asyncio
async def test_a_kernel_that_hangs_while_it_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "_contents", spinning(b"\x00\x00\x00\x14"))
    monkeypatch.setattr(boot, "_BOOT", 4.0)
    told(
        await failure("loglevel=8 rdinit=/guest.elf"),
        wrong=r"the kernel must start its virtual machine within 4 s, not hang at EL[0-2], PC 0x\w+\n",
        console=r"\[ +\d+\.\d{6}\] \w",
        remedy="it hangs while it boots: see its last lines; try another --cpu",
    )


def test_the_command_line_has_it_in_its_report_and_its_status(tmp_path: Path) -> None:
    arguments = ["kvm", "--kernel", "6.1", "--append", "kvm-arm.mode=none", "--json", str(tmp_path / "found")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 125
    found = json.loads((tmp_path / "found").read_text())
    (kernel,) = found["kernels"]
    assert kernel["scheme"] is None
    assert kernel["failure"].startswith("the kernel has no /dev/kvm\n")
    (problem,) = found["problems"]
    assert problem == f"Linux {kernel['release']}, -cpu max could not be looked at: the kernel has no /dev/kvm"
    assert "what to do: the kernel needs CONFIG_KVM=y, and EL2" in done.output


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "Image must be an arm64 Image, or Image.gz"),
        (b"\x7fELF" + bytes(100), "Image must be an arm64 Image, or Image.gz"),
        (None, "Image must be an arm64 Image: No such file or directory"),
    ],
    ids=["empty", "vmlinux", "absent"],
)
def test_a_file_that_is_no_image_is_skipped_by_a_bisection(tmp_path: Path, content: bytes | None, wrong: str) -> None:
    if content is not None:
        (tmp_path / "Image").write_bytes(content)
    done = CliRunner().invoke(main, ["kvm", "--kernel", str(tmp_path / "Image")])
    assert done.exit_code == 125
    assert f"{wrong}\n  what to do: name the file arch/arm64/boot/Image" in done.output


@pytest.mark.parametrize("length", [64, 3_000_000, 25_000_000])
def test_a_truncated_image(tmp_path: Path, length: int) -> None:
    image = provide_kernel(Progress(), "6.12").image.read_bytes()
    (tmp_path / "Image").write_bytes(image[:length])
    done = CliRunner().invoke(main, ["kvm", "--kernel", str(tmp_path / "Image")])
    assert done.exit_code == 125
    said = rf"Image must be whole, [\d,]+ bytes, not {length:,}\n  what to do: copy or build it again$"
    assert re.search(said, done.output, re.MULTILINE), done.output


@pytest.mark.asyncio
async def test_words_that_a_kernel_does_not_know_are_not_for_the_first_process() -> None:
    """6.1 hands it its own `nokaslr`: what is needed comes behind that."""
    told(
        await failure("nokaslr kvm-arm.mode=none"),
        wrong="the kernel has no /dev/kvm\n",
        console=r"  kernel: \[ .*KVM disabled from command line",
        remedy="the kernel needs CONFIG_KVM=y, and EL2: see its own lines; no kvm-arm.mode=none, no nokvm",
    )


@pytest.mark.parametrize("error", ["QEMU ended", "the kernel must start its virtual machine within 60 s"])
def test_a_kernel_that_says_nothing(error: str) -> None:
    assert explain(f"{error}\nthe console's last lines: (nothing)").endswith(
        "what to do: the kernel says nothing: is it a whole arm64 Image, with CONFIG_SERIAL_AMBA_PL011_CONSOLE, "
        "and --cpu a 64-bit one? --append earlycon=pl011,0x9000000 has it speak earlier"
    )


def test_a_message_without_a_cause() -> None:
    assert explain("QEMU ended\nthe console's last lines:\n  | words").endswith(
        "what to do: see the console's last lines"
    )
