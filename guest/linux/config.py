"""What a kernel must have to be looked at: its configuration compared with what is needed, before it is booted."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import KernelError

MODULES = ("virtio_pci", "vfio_pci", "vfio_iommu_type1", "virtio_iommu")
"""Loaded, with what they need, where they are modules."""
_NEEDED = (
    "KVM",
    "VFIO",
    "VFIO_PCI",
    "VFIO_IOMMU_TYPE1",
    "PCI_HOST_GENERIC",
    "BLK_DEV_INITRD",
    "DEVTMPFS",
    "HUGETLBFS",
    "SERIAL_AMBA_PL011_CONSOLE",
)
_IOMMUS = ("VIRTIO_IOMMU", "ARM_SMMU_V3", "VFIO_NOIOMMU")

_SHOWN_BY = {
    "platform devices by vfio": ("VFIO_PLATFORM", "the kernel lacks CONFIG_VFIO_PLATFORM"),
    "cacheable BARs": (
        "NVGRACE_GPU_VFIO_PCI",
        "the kernel has no driver that maps a BAR cacheable: it lacks CONFIG_NVGRACE_GPU_VFIO_PCI",
    ),
}
"""What shows only with an option, and what to say without it."""


def read_config(path: Path) -> dict[str, str]:
    """The options of a .config that are on, without CONFIG_, with their values. Raises `KernelError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KernelError(f"{path} must be the kernel's .config: {error}", "name the .config, or none") from error
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))


def check_config(options: dict[str, str], *, modules: bool) -> None:
    """Say what the kernel lacks. ``modules``: they are at hand, so that an option may be `m`.

    Raises:
        KernelError: It lacks something; the message has all of it.
    """
    lacking = [name for name in _NEEDED if name not in options]
    if not any(name in options for name in _IOMMUS):
        lacking.append(" or ".join(_IOMMUS))
    if lacking:
        raise KernelError(f"the kernel lacks CONFIG_{', CONFIG_'.join(lacking)}", "switch on what it lacks")
    outside = [name for name in _NEEDED if options[name] == "m"]
    if outside and not modules:
        raise KernelError(f"CONFIG_{', CONFIG_'.join(outside)} are modules", "name their folder with --modules")


def unobservable(options: dict[str, str]) -> dict[str, str]:
    """What a kernel with these options cannot show, and why; nothing is said of one whose options are not known."""
    return {what: why for what, (option, why) in _SHOWN_BY.items() if options and option not in options}


def machine_for(options: dict[str, str], modules: dict[str, bytes]) -> str:
    """The machine whose IOMMU the kernel has a driver for. Without a configuration the modules tell."""
    if options:
        return "kvm" if "VIRTIO_IOMMU" in options else "kvm-bypass"
    return "kvm" if not modules or "virtio_iommu" in modules else "kvm-bypass"
