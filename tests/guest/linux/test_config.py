"""What a kernel's configuration tells before it is booted: what it lacks, its machine, what it cannot show."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pyvfio_user.guest.errors import KernelError
from pyvfio_user.guest.linux.config import (
    check_config,
    embedded_config,
    gunzip,
    machine_for,
    read_config,
    unobservable,
)

BUILT_IN = (
    *("KVM", "VFIO", "VFIO_PCI", "VFIO_IOMMU_TYPE1", "PCI_HOST_GENERIC", "BLK_DEV_INITRD", "DEVTMPFS", "HUGETLBFS"),
    *("SERIAL_AMBA_PL011_CONSOLE", "VIRTIO_MMIO", "VIRTIO_IOMMU"),
)
FULL = dict.fromkeys(BUILT_IN, "y")


def refusal(options: dict[str, str], modules: tuple[str, ...] = (), folder: Path | None = None) -> tuple[str, str]:
    with pytest.raises(KernelError) as caught:
        check_config(options, modules, folder)
    return caught.value.what, caught.value.remedy


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in FULL.items() if name not in names}


def test_one_that_has_all() -> None:
    check_config(FULL, (), None)
    check_config({**FULL, "VFIO": "m", "VFIO_PCI": "m"}, ("vfio_pci",), Path("modules"))


@pytest.mark.parametrize("iommu", ["VIRTIO_IOMMU", "ARM_SMMU_V3", "VFIO_NOIOMMU"])
def test_any_iommu_will_do(iommu: str) -> None:
    check_config({**without("VIRTIO_IOMMU"), iommu: "y"}, (), None)


def test_all_that_is_lacking_is_named_with_what_to_switch_on() -> None:
    assert refusal(without("KVM", "VFIO_PCI")) == (
        "the kernel lacks CONFIG_KVM, CONFIG_VFIO_PCI",
        "switch on what it lacks (scripts/config -e KVM -e VFIO_PCI), and build it anew",
    )
    for one in ("VIRTIO_IOMMU", "VIRTIO_MMIO"):
        assert refusal(without(one)) == (
            "the kernel lacks CONFIG_VIRTIO_IOMMU with CONFIG_VIRTIO_MMIO or CONFIG_ARM_SMMU_V3 or CONFIG_VFIO_NOIOMMU",
            "switch on what it lacks (scripts/config -e VIRTIO_IOMMU -e VIRTIO_MMIO, say), and build it anew",
        )


def test_what_cannot_be_a_module() -> None:
    assert refusal({**FULL, "KVM": "m", "DEVTMPFS": "m"}) == (
        "CONFIG_KVM, CONFIG_DEVTMPFS must be built in (=y), not modules",
        "switch it on (scripts/config -e KVM -e DEVTMPFS)",
    )


def test_modules_that_are_not_at_hand() -> None:
    options = {**FULL, "VFIO_PCI": "m", "VIRTIO_IOMMU": "m"}
    named = "name their folder with --modules"
    assert refusal(options) == (
        "CONFIG_VFIO_PCI, CONFIG_VIRTIO_IOMMU are modules, and no folder of modules was named", named
    )  # fmt: skip
    assert refusal(options, ("vfio_pci",), Path("lib")) == (
        "CONFIG_VIRTIO_IOMMU are modules, and lib has none of them", named
    )  # fmt: skip


def test_the_machine_has_the_iommu_that_the_kernel_has_a_driver_for() -> None:
    assert machine_for(FULL, ()) == "kvm"
    for lacking in ("VIRTIO_IOMMU", "VIRTIO_MMIO"):
        assert machine_for({**without(lacking), "ARM_SMMU_V3": "y"}, ()) == "kvm-bypass"
        assert machine_for({**without(lacking), "ARM_SMMU_V3": "y", "VFIO_NOIOMMU": "y"}, ()) == "kvm-noiommu"
    assert [machine_for({}, modules) for modules in ((), ("virtio_iommu",), ("vfio_pci",))] == [
        "kvm", "kvm", "kvm-bypass"
    ]  # fmt: skip


def test_what_cannot_be_shown_and_why() -> None:
    assert unobservable(FULL, ()) == {
        "platform devices by vfio": "the kernel lacks CONFIG_VFIO_PLATFORM and CONFIG_VFIO_NOIOMMU",
        "cacheable BARs": "the kernel has no driver that maps a BAR cacheable: it lacks CONFIG_NVGRACE_GPU_VFIO_PCI",
    }
    unknown = "the kernel's options are not known: name its .config with --config"
    assert unobservable({}, ()) == {"platform devices by vfio": unknown, "cacheable BARs": unknown}


def test_what_it_takes_to_give_away_a_platform_device() -> None:
    able = {**FULL, "VFIO_PLATFORM": "y", "VFIO_NOIOMMU": "y", "NVGRACE_GPU_VFIO_PCI": "y"}
    assert unobservable(able, ()) == {}
    lacking = {name: value for name, value in able.items() if name != "VFIO_NOIOMMU"}
    assert unobservable(lacking, ()) == {"platform devices by vfio": "the kernel lacks CONFIG_VFIO_NOIOMMU"}
    module = {**able, "VFIO_PLATFORM": "m"}
    check_config(module, (), None)  # the rest can be looked at
    assert unobservable(module, ("vfio_platform",)) == {}
    assert unobservable(module, ("vfio_pci",)) == {
        "platform devices by vfio": "CONFIG_VFIO_PLATFORM is a module, which is not among those that were named "
        "with --modules"
    }


class TestReading:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text('# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D="text"\n')
        assert read_config(tmp_path / "config") == {"B": "y", "C": "m", "D": '"text"'}

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text("hello\n")
        with pytest.raises(KernelError, match=r"config must be the kernel's \.config, not a file without options"):
            read_config(tmp_path / "config")
        with pytest.raises(KernelError, match=r"absent must be the kernel's \.config: .*No such file"):
            read_config(tmp_path / "absent")

    def test_what_an_image_carries(self) -> None:
        inside = b"code" + b"IKCFG_ST" + gzip.compress(b"CONFIG_KVM=y\nCONFIG_VFIO=m\n") + b"IKCFG_ED" + b"more"
        assert embedded_config(inside) == {"KVM": "y", "VFIO": "m"}
        assert embedded_config(gunzip(gzip.compress(inside))) == {"KVM": "y", "VFIO": "m"}

    def test_images_that_carry_none(self) -> None:
        assert embedded_config(b"code and nothing else") == {}
        assert embedded_config(b"the text IKCFG_ST alone") == {}
        assert embedded_config(b"IKCFG_ST" + gzip.compress(b"CONFIG_KVM=y\n" * 99)[:-30] + b"\xff" * 40) == {}
        assert gunzip(b"\x1f\x8b broken") == b""
