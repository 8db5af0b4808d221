"""A Linux as the virtual machine: what the VMM loads, and the machine that it has (`vgic.c`, `bus.c`, `vcpu.c`)."""

from __future__ import annotations

from pathlib import Path

from . import programs
from .fdt import Node, Value, cells, flatten
from .initramfs import archive
from .modules import load_order

RAM, RAM_SIZE, INITRD = 0x4000_0000, 0x0800_0000, 0x4600_0000
MEMORY_HUGE_PAGES = RAM_SIZE // 0x20_0000
_GIC, _MSI = 1, 2
_PPI_LOW = 8
_COMMAND_LINE = (
    "earlycon=pl011,0x9000000 keep_bootcon loglevel=4 panic=-1 norandmaps no_hash_pointers hugepages=1 rdinit=/process"
)


def nested_files(image: Path, modules: Path | None) -> dict[str, bytes]:
    """The files that the VMM loads, by their paths in its own initramfs.

    Raises:
        KernelError: A module cannot be read.
    """
    order = load_order(modules, ("ramoops",))
    numbered = {f"modules/{number:02}-{name}.ko": module for number, (name, module) in enumerate(order.items())}
    initrd = archive({"process": programs.build("process").read_bytes(), **numbered})
    return {"l2/Image": image.read_bytes(), "l2/initrd": initrd, "l2/dtb": tree(len(initrd))}


def tree(initrd_size: int) -> bytes:
    """The device tree of the VMM's machine: GICv3 with ITS, timer, PSCI, a PCI host bridge by ECAM."""
    ppis = [word for number in (13, 14, 11, 10) for word in (1, number, _PPI_LOW)]
    gic = Node(
        "interrupt-controller@8000000",
        {
            "compatible": "arm,gic-v3",
            "interrupt-controller": None,
            "#interrupt-cells": 3,
            "#address-cells": 2,
            "#size-cells": 2,
            "ranges": None,
            "reg": (*cells(0x0800_0000), *cells(0x1_0000), *cells(0x080A_0000), *cells(0x2_0000)),
            "phandle": _GIC,
        },
        (
            Node(
                "msi-controller@8080000",
                {
                    "compatible": "arm,gic-v3-its",
                    "msi-controller": None,
                    "#msi-cells": 1,
                    "reg": (*cells(0x0808_0000), *cells(0x2_0000)),
                    "phandle": _MSI,
                },
            ),
        ),
    )
    pci = Node(
        "pcie@3f000000",
        {
            "compatible": "pci-host-ecam-generic",
            "device_type": "pci",
            "#address-cells": 3,
            "#size-cells": 2,
            "bus-range": (0, 0),
            "reg": (*cells(0x3F00_0000), *cells(0x10_0000)),
            "ranges": (0x0200_0000, *cells(0x1000_0000), *cells(0x1000_0000), *cells(0x2EFF_0000)),
            "msi-map": (0, _MSI, 0, 0x1_0000),
            "dma-coherent": None,
        },
    )
    chosen: dict[str, Value] = {
        "bootargs": _COMMAND_LINE,
        "linux,initrd-start": cells(INITRD),
        "linux,initrd-end": cells(INITRD + initrd_size),
    }
    cpu = Node("cpu@0", {"device_type": "cpu", "compatible": "arm,armv8", "reg": 0, "enable-method": "psci"})
    return flatten(
        Node(
            "",
            {
                "compatible": "linux,dummy-virt",
                "#address-cells": 2,
                "#size-cells": 2,
                "interrupt-parent": _GIC,
            },
            (
                Node("chosen", chosen),
                Node("memory@40000000", {"device_type": "memory", "reg": (*cells(RAM), *cells(RAM_SIZE))}),
                Node("cpus", {"#address-cells": 1, "#size-cells": 0}, (cpu,)),
                Node("psci", {"compatible": ("arm,psci-1.0", "arm,psci-0.2"), "method": "hvc"}),
                Node("timer", {"compatible": "arm,armv8-timer", "interrupts": ppis, "always-on": None}),
                gic,
                pci,
            ),
        )
    )
