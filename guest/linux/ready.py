"""All that a boot of a Linux needs but its devices: files, command line, and QEMU's command."""

from __future__ import annotations

import shlex
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import payload
from ..errors import KernelError
from ..machines import PATIENT, load_config
from ..operation import PAGE
from ..provision.qemu import find_qemu
from . import programs
from .config import MODULES, PLATFORM, check_config, embedded_config, gunzip, machine_for, read_config, unobservable
from .devicetree import add_node, add_properties, cells
from .image import image_size
from .initramfs import archive
from .modules import load_order
from .nested import MEMORY_HUGE_PAGES, nested_files

_MAGIC_AT, _MAGIC = 56, b"ARM\x64"
"""Where an Image says that it is one (Linux, arch/arm64/booting.rst)."""
_OURS = "first-process"
"""Before the words for the first process: a kernel hands it those that it does not know itself, too (6.1: nokaslr)."""
BASE = "console=ttyAMA0 loglevel=3 panic=-1 iommu.passthrough=1 cryptomgr.notests=1"
"""What every kernel is told. Tests of its own ciphers would take it 0.5 s."""
_HUGE_PAGES = 8
"""What the bare-metal guest has as RAM."""
_HOST_BRIDGE, _PROBE_SLOT = "pcie@10000000", 1
"""Its node in the device tree, and the probe's device number."""
_IOMMU, _IOMMU_HANDLE = "virtio_mmio@a003e00", 0x10_0000
"""The virtio device that machine `kvm` adds has QEMU's last transport; the number is none that QEMU gives to a node."""
_CLOCK, _REGISTERS = "pl031@9010000", "9010000.registers"
"""The real-time clock's node, and what the same registers are called once vfio-platform may have them."""


@dataclass(frozen=True)
class LinuxImage:
    """A kernel to boot, with the folder of its modules and its .config where they are known.

    ``append`` is put on its command line.
    """

    image: Path
    modules: Path | None = None
    config: Path | None = None
    append: str = ""


@dataclass(frozen=True)
class Ready:
    """A machine, and what it boots. ``tree`` is its device tree where that is not QEMU's own.

    ``unobservable`` says of what the kernel cannot show why not. ``platform``: it gives away a platform device.
    """

    kernel: LinuxImage
    cpu: str
    machine: str
    unobservable: dict[str, str]
    platform: bool
    initramfs: bytes
    huge_pages: int
    tree: bytes | None
    program: Path

    @property
    def interrupts(self) -> bool:
        """Whether interrupts of devices reach virtual machines: not where the devices bypass an IOMMU."""
        return self.machine != "kvm-bypass"

    def options(self, folder: Path, devices: Sequence[str], ways: Sequence[str]) -> list[str]:
        """QEMU's options for the kernel, with files that are put into this folder, and the gdbstub there.

        ``devices`` are as in 0x1234:0xbe50; without, the first process waits for some.
        """
        (folder / "initramfs").write_bytes(self.initramfs)
        words = [BASE, f"hugepages={self.huge_pages}", self.kernel.append]
        if self.platform and devices:
            words += ["vfio_platform.reset_required=0", "--", _OURS, *devices, f"platform:{_REGISTERS}", *ways]
        else:
            words += ["--", _OURS, *devices, *ways]
        extra = ["-kernel", str(self.kernel.image), "-initrd", str(folder / "initramfs"), "-append", " ".join(words)]
        extra += ["-gdb", f"unix:{folder / 'gdb'},server=on,wait=off"]
        if self.cpu == "max":
            extra += ["-machine", "mte=on"]
        if self.tree is not None:
            (folder / "dtb").write_bytes(self.tree)
            extra += ["-dtb", str(folder / "dtb")]
        return extra

    def command(self, sockets: Sequence[Path], extra: Sequence[str]) -> list[str]:
        """QEMU's command, with the devices at these sockets."""
        return load_config(self.machine).command(self.program, sockets, cpu=self.cpu, properties=PATIENT, extra=extra)


def prepare(
    kernel: LinuxImage,
    cpu: str,
    ways: Sequence[str],
    nodes: Sequence[Mapping[str, bytes]] = (),
    machine: str | None = None,
) -> Ready:
    """Make it ready. ``nodes`` are properties of the devices that follow the probe, for the device tree.

    ``machine`` is by default one whose IOMMU the kernel has a driver for.

    Raises:
        KernelError: The kernel, its modules or its configuration cannot be used.
        ProvisionError: There is no QEMU or no compiler.
    """
    options = _options(kernel)
    modules = load_order(kernel.modules, MODULES)
    if options:
        check_config(options, modules, kernel.modules)
    by_sysfs = all(way.startswith("sysfs") for way in ways)
    contents, huge_pages = _contents({} if by_sysfs else modules), _HUGE_PAGES
    if any(way.partition(":")[0] == "linux" for way in ways):
        contents |= nested_files(kernel.image, kernel.modules)
        huge_pages = MEMORY_HUGE_PAGES
    machine, program = machine or machine_for(options, modules), find_qemu().require().path
    reasons = unobservable(options, modules)
    platform = PLATFORM not in reasons and any(way.partition(":")[0] == "vfio" for way in ways)
    tree = _tree(program, cpu, machine, nodes, platform=platform)
    return Ready(kernel, cpu, machine, reasons, platform, archive(contents), huge_pages, tree, program)


def _options(kernel: LinuxImage) -> dict[str, str]:
    """The kernel's configuration, as it was named or as the image has it; nothing where neither is."""
    options = read_config(kernel.config) if kernel.config else {}
    try:
        image = kernel.image.read_bytes()
    except OSError as error:
        what = f"{kernel.image} must be an arm64 Image: {error.strerror}"
        raise KernelError(what, "name the file arch/arm64/boot/Image") from error
    plain = gunzip(image)
    if plain[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC:
        raise KernelError(f"{kernel.image} must be an arm64 Image, or Image.gz", "name the file arch/arm64/boot/Image")
    if (size := image_size(plain)) > len(plain):
        raise KernelError(f"{kernel.image} must be whole, {size:,} bytes, not {len(plain):,}", "copy or build it again")
    return options or embedded_config(plain)


def _contents(modules: dict[str, bytes]) -> dict[str, bytes]:
    built = {name: programs.build(name).read_bytes() for name in programs.PROGRAMS}
    numbered = {f"modules/{number:02}-{name}.ko": module for number, (name, module) in enumerate(modules.items())}
    return {**built, "guest.elf": payload.build(el=1).read_bytes(), **numbered}


def _tree(
    program: Path, cpu: str, machine: str, nodes: Sequence[Mapping[str, bytes]], *, platform: bool
) -> bytes | None:
    """A machine's device tree, with a node for each device that follows the probe; None: it is QEMU's own."""
    if machine == "kvm-bypass":
        tree = _bypassed(program, cpu)
    elif machine == "kvm" or nodes or platform:
        tree = _dump(load_config(machine).command(program, cpu=cpu), "")
    else:
        return None
    if machine == "kvm":  # QEMU describes the IOMMU that is a PCI device alone
        tree = add_properties(tree, _IOMMU, {"#iommu-cells": cells(1), "phandle": cells(_IOMMU_HANDLE)})
        tree = add_properties(tree, _HOST_BRIDGE, {"iommu-map": cells(0, _IOMMU_HANDLE, 0, 0x10000)})
    for slot, properties in enumerate(nodes, start=_PROBE_SLOT + 1):
        tree = add_node(tree, _HOST_BRIDGE, f"device@{slot:x},0", {"reg": cells(slot << 11, 0, 0, 0, 0), **properties})
    if platform:
        address, name = _REGISTERS.split(".")
        registers = {"compatible": b"pyvfio-user,registers\0", "reg": cells(0, int(address, 16), 0, PAGE)}
        tree = add_properties(tree, _CLOCK, {"status": b"disabled\0"})
        tree = add_node(tree, "", f"{name}@{address}", registers)
    return tree


def _bypassed(program: Path, cpu: str) -> bytes:
    """The device tree of a machine with an SMMUv3 that no device bypasses; cut to what is used of it."""
    machine = "virt,virtualization=on,gic-version=3,iommu=smmuv3,"
    tree = _dump([str(program), "-cpu", cpu, "-m", "512M", "-nodefaults", "-display", "none"], machine)
    header = struct.unpack(">10I", tree[:40])  # Devicetree Specification, 5.2: the strings come last
    size = header[3] + header[8]
    return tree[:4] + struct.pack(">I", size) + tree[8:size]


def _dump(command: list[str], machine: str) -> bytes:
    """The device tree that QEMU makes with this command, without seeds, which are others each time."""
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-") as folder:
        path = Path(folder) / "dtb"
        command = [*command, "-machine", f"{machine}dtb-randomness=off,dumpdtb={path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode:
            said = done.stderr.strip().removeprefix(f"{Path(command[0]).name}: ")
            what = f"QEMU must make a device tree, not say: {said}\nQEMU's command:\n  {shlex.join(command)}"
            raise KernelError(what, "use another --cpu, or another QEMU")
        return path.read_bytes()
