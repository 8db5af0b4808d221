"""The state of a machine that has booted and waits for its devices, kept in the user's cache.

It is taken without any device of ours: one that was attached then would be another afterwards, and decode no BARs. So
those that a scenario needs come when it goes on, and Linux finds them by a rescan of the bus.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import QemuError
from ..kvm.gdbstub import GdbStub
from ..machines import load_config
from ..provision.cache import cache_directory
from ..qemu import Qemu
from .ready import BASE, Ready

_TIMEOUT = 120.0
_KEPT = 12
"""States of 60 MB or more: those that were not used for the longest time are removed."""
_READY = "pyvfio-user init: ready for devices"
_UART_FLAGS, _UART_EMPTY = 0x0900_0018, 1 << 4
"""UARTFR of the console, a PL011, and its bit RXFE: nothing was received."""
_E2H = 1 << 34
"""HCR_EL2.E2H: the kernel runs at EL2 itself (FEAT_VHE)."""
_TIMERS = {"CNTHP_CVAL_EL2": 0xD51C_E240, "CNTHV_CVAL_EL2": 0xD51C_E340}
"""What EL2's timers wait for, each with the instruction that writes it from X0: MSR (Arm ARM DDI 0487, C6.2)."""


async def snapshot(ready: Ready, ways: Sequence[str]) -> Path:
    """The state, taken now, or earlier of just the same machine. Raises `QemuError`."""
    folder = cache_directory() / "snapshots"
    found = folder / await asyncio.to_thread(_key, ready, ways)
    if found.exists():
        os.utime(found)
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="taking-", dir=folder) as name:
        command = ready.command((), ready.options(Path(name), (), ways))
        async with Qemu(command, timeout=_TIMEOUT) as vm:
            await vm.wait_for(_READY)
            await save(vm, Path(name) / "state")
        os.replace(Path(name) / "state", found)  # whole or not at all, whoever else takes one
    states = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime)
    for old in states[:-_KEPT]:
        old.unlink(missing_ok=True)
    return found


def _key(ready: Ready, ways: Sequence[str]) -> str:
    """By what a state is told from others."""
    config = load_config(ready.machine).path.read_text(encoding="utf-8")
    version = subprocess.run([str(ready.program), "--version"], capture_output=True, text=True, check=True).stdout
    contents = [ready.kernel.image.read_bytes(), ready.initramfs, ready.tree or b""]
    digests = [hashlib.sha256(each).hexdigest() for each in contents]
    texts = (config, version, ready.cpu, ready.kernel.append, BASE, ready.huge_pages, ways)
    return hashlib.sha256(repr((digests, texts)).encode()).hexdigest()[:20]


async def save(vm: Qemu, path: Path) -> None:
    """Write a machine's state to a file, and stop it; what goes on from there runs at once. Raises `QemuError`."""
    await vm.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    await vm.execute("migrate", uri=f"file:{path}")
    while (state := (await vm.execute("query-migrate"))["status"]) != "completed":
        if state in ("failed", "cancelled"):
            raise QemuError(f"the machine's state must be saved, not {state}\n{vm.describe()}")
        await asyncio.sleep(0.01)


def go_on(path: Path) -> list[str]:
    """QEMU's options to go on from there."""
    return ["-incoming", f"file:{path}"]


async def wake(vm: Qemu, stub: GdbStub, line: str) -> None:
    """Tell a machine that goes on that its devices are there, and by a ``line`` what to do. Raises `QemuError`."""
    while not (await vm.execute("query-status"))["running"]:
        await asyncio.sleep(0.002)
    async with stub:
        vm.type(f"{line}\n")
        while (await stub.memory(_UART_FLAGS, 4))[0] & _UART_EMPTY:  # a CPU that waits for an interrupt runs nothing
            await asyncio.sleep(0.002)
        await _restart_timers(stub)


async def _restart_timers(stub: GdbStub) -> None:
    """Write EL2's timers once more: QEMU 11.1 keeps their registers, but what they wait for never comes.

    A kernel with VHE has its own timer there, and would wait for that before all later ones.
    """
    if not await stub.register("HCR_EL2") & _E2H:  # one that runs at EL1 has EL1's timers, which QEMU does keep
        return
    while await stub.register("CPSR") >> 2 & 3 != 2:
        await stub.run_on(0.001)
    for name, write in _TIMERS.items():
        await stub.execute(write, await stub.register(name))
