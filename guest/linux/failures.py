"""Why a Linux did not get as far as its guest: from the console, what is wrong, and what to try."""

from __future__ import annotations

import re

_CAUSES = (
    ("no /dev/kvm", "the kernel needs CONFIG_KVM=y, and EL2: see its own lines; no kvm-arm.mode=none, no nokvm"),
    (
        "virtual machine must answer",
        "it hangs, or KVM does: at EL1 or EL0 in an access, else in KVM; try another --cpu",
    ),
    (
        "the kernel must start its virtual machine",
        "it hangs while it boots: see its last lines; try another --cpu",
    ),
    ("driver vfio-platform", "switch on CONFIG_VFIO_PLATFORM, or name the folder of its module with --modules"),
    ("vfio-platform does not take", "see vfio's own lines: it may want a function that resets the device"),
    (
        "has no IOMMU group",
        "switch on CONFIG_VIRTIO_IOMMU with CONFIG_VIRTIO_MMIO, or CONFIG_ARM_SMMU_V3, or CONFIG_VFIO_NOIOMMU",
    ),
    ("has no driver vfio-pci", "switch on CONFIG_VFIO_PCI, or name the folder of its module with --modules"),
    ("has no PCI bus", "switch on CONFIG_PCI_HOST_GENERIC"),
    ("no PCI device", "switch on CONFIG_PCI_HOST_GENERIC; the device may have gone: see the log"),
    ("vfio-pci does not take", "see vfio's own lines: the driver may refuse this device, or its group not be viable"),
    ("/dev/vfio/vfio cannot be opened", "switch on CONFIG_VFIO_CONTAINER and CONFIG_VFIO_GROUP"),
    ("the kernel does not take scheme", "it is not a kernel of `make kernel`, or has no such scheme"),
    ("vfio has no IOMMU", "switch on CONFIG_VFIO_IOMMU_TYPE1, or name the folder of its module with --modules"),
    ("no huge pages", "switch on CONFIG_HUGETLBFS"),
    ("cannot be loaded", "the modules must be of just this kernel: name their folder with --modules"),
    ("devtmpfs cannot be mounted", "switch on CONFIG_DEVTMPFS"),
    ("Unable to mount root fs", "switch on CONFIG_BLK_DEV_INITRD"),
    ("Kernel panic", "the kernel panics: see above; try another CPU with --cpu, or a newer QEMU"),
    ("must end, not the access does not end", "an access hangs in the virtual machine: see the last message"),
    ("pyvfio-user vmm: FAILED", "see what the VMM says of KVM or vfio: a rule of the kernel's may have changed"),
)
_SILENT = (
    "the kernel says nothing: is it a whole arm64 Image, with CONFIG_SERIAL_AMBA_PL011_CONSOLE, and --cpu a "
    "64-bit one? --append earlycon=pl011,0x9000000 has it speak earlier"
)

_SAID = re.compile(r"^  \| (?:pyvfio-user (?:init|vmm|guest): FAILED: |.*(?=Kernel panic))(.*)$", re.MULTILINE)
"""How our programs, and a kernel, say on the console why they end."""


def explain(message: str) -> str:
    """A `QemuError`'s message, which has the command and the console, with what is wrong and what to do about it."""
    said = _SAID.search(message)
    if said:
        message = f"{said[1]}\n{message}"
    if message.rstrip().endswith("(nothing)"):
        remedy = _SILENT
    else:
        remedy = next((remedy for text, remedy in _CAUSES if text in message), "see the console's last lines")
    return f"{message}\n  what to do: {remedy}"
