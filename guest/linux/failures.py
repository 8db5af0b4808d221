"""Why a Linux did not get as far as its guest: from the console, what is wrong, and what to try."""

from __future__ import annotations

_CAUSES = (
    ("no /dev/kvm", "the kernel needs CONFIG_KVM, and a CPU with EL2 (virtualization=on)"),
    ("has no IOMMU group", "switch on CONFIG_VIRTIO_IOMMU or CONFIG_ARM_SMMU_V3, or CONFIG_VFIO_NOIOMMU"),
    ("has no driver vfio-pci", "switch on CONFIG_VFIO_PCI, or name the folder of its module with --modules"),
    ("has no PCI bus", "switch on CONFIG_PCI_HOST_GENERIC"),
    ("no PCI device", "switch on CONFIG_PCI_HOST_GENERIC; the device may have gone: see the log"),
    ("vfio-pci does not take", "the device has a driver of its own, or its group is not viable"),
    ("vfio has no IOMMU", "switch on CONFIG_VFIO_IOMMU_TYPE1, or name the folder of its module with --modules"),
    ("no huge pages", "switch on CONFIG_HUGETLBFS"),
    ("cannot be loaded", "the modules must be of just this kernel: name their folder with --modules"),
    ("devtmpfs cannot be mounted", "switch on CONFIG_DEVTMPFS"),
    ("Unable to mount root fs", "switch on CONFIG_BLK_DEV_INITRD"),
    ("Kernel panic", "the kernel panics: see above; try another CPU with --cpu, or a newer QEMU"),
    ("must end, not the access does not end", "an access hangs in the virtual machine: see the last message"),
)
_SILENT = "the kernel says nothing: is it an arm64 Image, with CONFIG_SERIAL_AMBA_PL011_CONSOLE?"


def explain(message: str) -> str:
    """A `QemuError`'s message, which has the command and the console, with what to do about it."""
    remedy = next((remedy for text, remedy in _CAUSES if text in message), None)
    if remedy is None:
        remedy = _SILENT if message.rstrip().endswith("(nothing)") else "see the console's last lines"
    return f"{message}\n  what to do: {remedy}"
