"""Boot a Linux whose VMM gives the probe to virtual machines, with the bare-metal guest in each."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...bridge.server import serve
from ...devices.device import Device
from ...devices.mailbox import Submission
from ...devices.probe import Probe
from .. import payload
from ..commander import Guest
from ..errors import KernelError, QemuError
from ..gdbstub import GdbStub
from ..machines import load_config
from ..provision.qemu import find_qemu
from ..qemu import Qemu
from . import programs
from .config import MODULES, check_config, embedded_config, gunzip, machine_for, read_config, unobservable
from .devicetree import add_node, cells
from .initramfs import archive
from .modules import load_order
from .nested import MEMORY_HUGE_PAGES, nested_files

_T = TypeVar("_T")
_TIMEOUT, _TIMEOUT_WAY = 120.0, 15.0
"""Seconds, and more for each way to run the VMM, after which a run's QEMU is ended, whatever it does."""
_BOOT = 60.0
"""Seconds until the first virtual machine must have been started."""
_ANSWER = 60.0
"""Seconds that a virtual machine may take for one answer."""
_MAGIC_AT, _MAGIC = 56, b"ARM\x64"
"""Where an Image says that it is one (Linux, arch/arm64/booting.rst)."""
_HOST_BRIDGE, _PROBE_SLOT = "pcie@10000000", 2
"""Its node in the device tree, and the probe's device number: the virtio-iommu comes first."""
_BASE = "console=ttyAMA0 loglevel=3 panic=-1 iommu.passthrough=1"
_HUGE_PAGES = 8
"""What the bare-metal guest has as RAM."""


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
class BootedLinux:
    """A Linux on its way up: the guest answers when its virtual machine runs. ``command`` is QEMU's, quoted.

    ``unobservable`` says of what the kernel cannot show why not.
    """

    guest: Guest
    probe: Probe
    stub: GdbStub
    vm: Qemu
    command: str
    interrupts: bool
    """Whether interrupts of devices reach virtual machines: only behind a virtio-iommu."""
    unobservable: dict[str, str]


@contextlib.asynccontextmanager
async def booted_linux(
    kernel: LinuxImage,
    cpu: str,
    ways: Sequence[str],
    others: Sequence[Device] = (),
    probe: Probe | None = None,
    nodes: Sequence[Mapping[str, bytes]] = (),
    *,
    machine: str | None = None,
) -> AsyncIterator[BootedLinux]:
    """Serve a probe (a new one unless given) and other devices, and boot the kernel.

    The VMM runs once for each of ``ways``: "vfio", "sysfs", "linux". For "linux" the virtual machine is a Linux of the
    same kernel, else the bare-metal guest. It has all the devices, the probe first; the VMM takes up to four. ``nodes``
    are properties of ``others`` for the device tree, which is then QEMU's with these added.
    ``machine`` is by default one whose IOMMU the kernel has a driver for.

    Raises:
        KernelError: The kernel, its modules or its configuration cannot be used.
        QemuError: QEMU ended too early, or did not answer in time; the message has its command and console.
        ProvisionError: There is no QEMU or no compiler.
    """
    options = await asyncio.to_thread(_options, kernel)
    modules = load_order(kernel.modules, MODULES)
    if options:
        check_config(options, modules, kernel.modules)
    machine = machine or machine_for(options, modules)
    contents = await asyncio.to_thread(_contents, modules)
    huge_pages = _HUGE_PAGES
    if "linux" in ways:
        contents |= await asyncio.to_thread(nested_files, kernel.image, kernel.modules)
        huge_pages = MEMORY_HUGE_PAGES
    program = find_qemu().require().path
    probe = probe or Probe()
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-") as name:
        folder = Path(name)
        (folder / "initramfs").write_bytes(archive(contents))
        devices = [probe, *others]
        numbers = [f"{device.identity.vendor:#06x}:{device.identity.device:#06x}" for device in devices]
        words = " ".join([_BASE, f"hugepages={huge_pages}", kernel.append, "--", *numbers, *ways])
        extra = ["-kernel", str(kernel.image), "-initrd", str(folder / "initramfs"), "-append", words]
        extra += ["-gdb", f"unix:{folder / 'gdb'},server=on,wait=off"]
        if cpu == "max":
            extra += ["-machine", "mte=on"]
        if machine == "kvm-bypass":
            extra += ["-dtb", str(await asyncio.to_thread(_device_tree, program, cpu, folder / "dtb"))]
        elif nodes:
            tree = await asyncio.to_thread(_described, load_config(machine).command(program, cpu=cpu), nodes, folder)
            extra += ["-dtb", str(tree)]
        sockets = [folder / f"{index}.sock" for index in range(len(devices))]
        command = load_config(machine).command(program, sockets, cpu=cpu, extra=extra)
        async with contextlib.AsyncExitStack() as stack:
            for device, socket in zip(devices, sockets, strict=True):
                await stack.enter_async_context(serve(device, socket))
            vm = await stack.enter_async_context(Qemu(command, timeout=_TIMEOUT + _TIMEOUT_WAY * len(ways)))
            stub, behind = GdbStub(folder / "gdb", vm.lost), machine == "kvm"
            guest = Guest(probe.mailbox, _Patience(vm, stub).answered)
            yield BootedLinux(guest, probe, stub, vm, shlex.join(command), behind, unobservable(options))


class _Patience:
    """Waits for what a guest answers, for so long and no longer."""

    def __init__(self, vm: Qemu, stub: GdbStub) -> None:
        self._vm, self._stub = vm, stub
        self._started = False

    async def answered(self, answer: Awaitable[Submission]) -> Submission:
        """The answer. Raises `QemuError`, which says where the machine stands when it is late."""
        if not self._started:
            await self._in_time(
                _BOOT, self._vm.wait_for("pyvfio-user vmm:"), "the kernel must start its virtual machine"
            )
            self._started = True
        return await self._in_time(_ANSWER, self._vm.bounded(answer), "the virtual machine must answer")

    async def _in_time(self, seconds: float, awaited: Awaitable[_T], what: str) -> _T:
        try:
            async with asyncio.timeout(seconds):
                return await awaited
        except TimeoutError as error:
            async with self._stub as stub:
                level, at = await stub.register("CPSR") >> 2 & 3, await stub.register("PC")
            where = f"not hang at EL{level}, PC {at:#x}"
            raise QemuError(f"{what} within {seconds:g} s, {where}\n{self._vm.describe()}") from error


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
    return options or embedded_config(plain)


def _contents(modules: dict[str, bytes]) -> dict[str, bytes]:
    built = {name: programs.build(name).read_bytes() for name in programs.PROGRAMS}
    numbered = {f"modules/{number:02}-{name}.ko": module for number, (name, module) in enumerate(modules.items())}
    return {**built, "guest.elf": payload.build(el=1).read_bytes(), **numbered}


def _described(command: list[str], nodes: Sequence[Mapping[str, bytes]], folder: Path) -> Path:
    """The device tree of the machine that a command starts, with a node for each device that follows the probe."""
    _dump([*command, "-machine", f"dumpdtb={folder / 'dtb'}"])
    tree = (folder / "dtb").read_bytes()
    for slot, properties in enumerate(nodes, start=_PROBE_SLOT + 1):
        tree = add_node(tree, _HOST_BRIDGE, f"device@{slot:x},0", {"reg": cells(slot << 11, 0, 0, 0, 0), **properties})
    (folder / "dtb").write_bytes(tree)
    return folder / "dtb"


def _dump(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise KernelError(f"{shlex.join(command)} must succeed: {done.stderr.strip()}", "use another QEMU or CPU")


def _device_tree(program: Path, cpu: str, path: Path) -> Path:
    """The device tree of a machine with an SMMUv3 that no device bypasses; cut to what is used of it."""
    machine = f"virt,virtualization=on,gic-version=3,iommu=smmuv3,dumpdtb={path}"
    command = [str(program), "-machine", machine, "-cpu", cpu, "-m", "512M", "-nodefaults", "-display", "none"]
    _dump(command)
    tree = path.read_bytes()
    header = struct.unpack(">10I", tree[:40])  # Devicetree Specification, 5.2: the strings come last
    size = header[3] + header[8]
    path.write_bytes(tree[:4] + struct.pack(">I", size) + tree[8:size])
    return path
