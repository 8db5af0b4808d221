"""What a kernel must have to be looked at: its configuration compared with what is needed, before it is booted."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from pathlib import Path

from ..errors import KernelError

MODULES = {
    "virtio_mmio": "VIRTIO_MMIO",
    "vfio_pci": "VFIO_PCI",
    "vfio_iommu_type1": "VFIO_IOMMU_TYPE1",
    "virtio_iommu": "VIRTIO_IOMMU",
    "vfio_platform": "VFIO_PLATFORM",
}
"""Loaded, with what they need, where they are modules: each with its option."""
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
_VIRTIO = ("VIRTIO_IOMMU", "VIRTIO_MMIO")
"""What it takes to have the virtio-iommu of machine `kvm`."""
_IOMMUS = ("ARM_SMMU_V3", "VFIO_NOIOMMU")
"""What will do without."""
_START, _GZIP = b"IKCFG_ST", b"\x1f\x8b"
"""What CONFIG_IKCONFIG puts before its gzipped .config (kernel/configs.c), and how all gzip files begin."""

PLATFORM, CACHEABLE = "platform devices by vfio", "cacheable BARs"
"""What not every kernel can show."""
_PLATFORM, _CACHEABLE = ("VFIO_PLATFORM", "VFIO_NOIOMMU"), "NVGRACE_GPU_VFIO_PCI"
"""The options that it takes; no IOMMU stands before a platform device."""
_OPTIONAL = ("VFIO_PLATFORM",)
"""Those of `MODULES` without which a kernel can still be looked at."""


def read_config(path: Path) -> dict[str, str]:
    """The options of a .config that are on, without CONFIG_, with their values. Raises `KernelError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KernelError(f"{path} must be the kernel's .config: {error}", "name the .config, or none") from error
    options = _options(text)
    if not options:
        raise KernelError(f"{path} must be the kernel's .config, not a file without options", "name the .config")
    return options


def embedded_config(image: bytes) -> dict[str, str]:
    """The options that an Image carries itself (CONFIG_IKCONFIG=y); none if it carries none."""
    at = image.find(_START + _GZIP)
    return {} if at < 0 else _options(_unzip(image[at + len(_START) :]).decode("utf-8", "replace"))


def gunzip(image: bytes) -> bytes:
    """An Image.gz unpacked; anything else as it is."""
    return _unzip(image) if image.startswith(_GZIP) else image


def _unzip(data: bytes) -> bytes:
    """What a gzip stream holds, nothing if it is broken; something else may follow it."""
    unzip = zlib.decompressobj(wbits=31)
    try:
        return unzip.decompress(data)
    except zlib.error:
        return b""


def _options(text: str) -> dict[str, str]:
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))


def check_config(options: dict[str, str], modules: Collection[str], folder: Path | None) -> None:
    """Say what the kernel lacks; ``modules`` are those of `MODULES` that ``folder`` has.

    Raises:
        KernelError: It lacks something; the message has all of it.
    """
    lacking = [name for name in _NEEDED if name not in options]
    remedy = " ".join(f"-e {name}" for name in lacking)
    if not all(name in options for name in _VIRTIO) and not any(name in options for name in _IOMMUS):
        lacking.append(f"{' with CONFIG_'.join(_VIRTIO)} or CONFIG_{' or CONFIG_'.join(_IOMMUS)}")
        remedy += " and an IOMMU" if remedy else f"{' '.join(f'-e {name}' for name in _VIRTIO)}, say"
    if lacking:
        what = f"the kernel lacks CONFIG_{', CONFIG_'.join(lacking)}"
        raise KernelError(what, f"switch on what it lacks (scripts/config {remedy}), and build it anew")
    built_in = [name for name in _NEEDED if options[name] == "m" and name not in (*MODULES.values(), "VFIO")]
    if built_in:
        what = f"CONFIG_{', CONFIG_'.join(built_in)} must be built in (=y), not modules"
        raise KernelError(what, f"switch it on (scripts/config {' '.join(f'-e {name}' for name in built_in)})")
    absent = [
        option
        for name, option in MODULES.items()
        if options.get(option) == "m" and name not in modules and option not in _OPTIONAL
    ]
    if absent:
        where = f"{folder} has none of them" if folder else "no folder of modules was named"
        raise KernelError(
            f"CONFIG_{', CONFIG_'.join(absent)} are modules, and {where}", "name their folder with --modules"
        )


def unobservable(options: dict[str, str], modules: Collection[str]) -> dict[str, str]:
    """What is not looked at of a kernel with these options, and why; without options they are not known."""
    if not options:
        return dict.fromkeys(
            (PLATFORM, CACHEABLE), "the kernel's options are not known: name its .config with --config"
        )
    found = {}
    lacking = [name for name in _PLATFORM if name not in options]
    if lacking:
        found[PLATFORM] = f"the kernel lacks CONFIG_{' and CONFIG_'.join(lacking)}"
    elif options[_PLATFORM[0]] == "m" and "vfio_platform" not in modules:
        found[PLATFORM] = f"CONFIG_{_PLATFORM[0]} is a module, which is not among those that were named with --modules"
    if _CACHEABLE not in options:
        found[CACHEABLE] = f"the kernel has no driver that maps a BAR cacheable: it lacks CONFIG_{_CACHEABLE}"
    return found


def machine_for(options: dict[str, str], modules: Collection[str]) -> str:
    """The machine whose IOMMU the kernel has a driver for. Without a configuration the modules tell.

    A kernel that can do without an IOMMU is given none rather than one that the devices bypass, and so gets interrupts.
    """
    if not options:
        return "kvm" if not modules or "virtio_iommu" in modules else "kvm-bypass"
    if all(name in options for name in _VIRTIO):
        return "kvm"
    return "kvm-noiommu" if "VFIO_NOIOMMU" in options else "kvm-bypass"
