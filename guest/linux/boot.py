"""Boot a Linux whose VMM gives the probe to virtual machines, with the bare-metal guest in each."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import tempfile
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...bridge.server import serve
from ...devices.device import Device
from ...devices.mailbox import Submission
from ...devices.probe import Probe
from ..commander import Guest
from ..errors import QemuError
from ..kvm.gdbstub import GdbStub
from ..qemu import Qemu
from .ready import LinuxImage, prepare
from .snapshot import go_on, snapshot, wake

__all__ = ["BootedLinux", "LinuxImage", "booted_linux"]

_T = TypeVar("_T")
_TIMEOUT, _TIMEOUT_WAY = 120.0, 15.0
"""Seconds, and more for each way to run the VMM, after which a run's QEMU is ended, whatever it does."""
BY_VFIO = ("vfio",)
"""How snapshots are prepared: what is done with the devices is said when they come, and all of it is by vfio."""
_BOOT = 60.0
"""Seconds until the first virtual machine must have been started."""
_ANSWER = 60.0
"""Seconds that a virtual machine may take for one answer."""


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
    """Whether interrupts of devices reach virtual machines: not where the devices bypass an IOMMU."""
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
    going_on: bool = False,
) -> AsyncIterator[BootedLinux]:
    """Serve a probe (a new one unless given) and other devices, and boot the kernel.

    The VMM runs once for each of ``ways``: "vfio", "sysfs", "linux", or one of them with a scheme, "vfio:trap". For
    "linux" the virtual machine is a Linux of the same kernel, else the bare-metal guest. It has all the devices, the
    probe first; the VMM takes up to four. ``nodes`` are properties of ``others`` for the device tree, which is then
    QEMU's with these added.
    ``machine`` is by default one whose IOMMU the kernel has a driver for. ``going_on``: from a snapshot of the booted
    kernel, which is taken when it is wanted first; ``nodes`` are then not to be had.

    Raises:
        KernelError: The kernel, its modules or its configuration cannot be used.
        QemuError: QEMU ended too early, or did not answer in time; the message has its command and console.
        ProvisionError: There is no QEMU or no compiler.
    """
    ready = await asyncio.to_thread(prepare, kernel, cpu, BY_VFIO if going_on else ways, nodes, machine)
    probe = probe or Probe()
    devices = [probe, *others]
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-") as name:
        folder = Path(name)
        numbers = [f"{each.identity.vendor:#06x}:{each.identity.device:#06x}" for each in devices]
        extra = ready.options(folder, () if going_on else numbers, BY_VFIO if going_on else ways)
        if going_on:
            extra += go_on(await snapshot(ready, BY_VFIO))
        sockets = [folder / f"{index}.sock" for index in range(len(devices))]
        command = ready.command(sockets, extra)
        async with contextlib.AsyncExitStack() as stack:
            for device, socket in zip(devices, sockets, strict=True):
                await stack.enter_async_context(serve(device, socket))
            vm = await stack.enter_async_context(Qemu(command, timeout=_TIMEOUT + _TIMEOUT_WAY * len(ways)))
            stub = GdbStub(folder / "gdb", vm.lost, vm.describe)
            if going_on:
                await wake(vm, stub, " ".join(ways))
            guest = Guest(probe.mailbox, _Patience(vm, stub).answered)
            yield BootedLinux(guest, probe, stub, vm, shlex.join(command), ready.interrupts, ready.unobservable)


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
