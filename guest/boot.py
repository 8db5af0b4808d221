"""Boot the bare-metal guest with a probe served to it, and turn it off at the end."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bridge.server import serve
from ..devices.probe import Probe
from .commander import Guest
from .hello import Hello
from .machines import PATIENT, load_config
from .payload import build
from .provision.qemu import find_qemu
from .qemu import Qemu

_TIMEOUT = 300.0
"""Seconds after which a run's QEMU is ended, whatever it does."""


@dataclass(frozen=True)
class Booted:
    """A guest that said hello, the probe it is reached through, and QEMU's command, quoted for a shell."""

    guest: Guest
    probe: Probe
    hello: Hello
    command: str


def machine_for(cpu: str) -> str:
    """The machine's config: memory tagging can only be on for a CPU that has it."""
    return "el2" if cpu == "max" else "el2-no-fwb"


@contextlib.asynccontextmanager
async def booted(cpu: str, probe: Probe | None = None, extra: Sequence[str] = ()) -> AsyncIterator[Booted]:
    """Serve a probe (a new one unless given), boot the guest on one of QEMU's CPUs, and turn it off at the end.

    ``extra`` is given to QEMU too.

    Raises:
        QemuError: QEMU ended too early, or did not answer in time; the message has its command and console.
        ProvisionError: There is no QEMU or no compiler.
    """
    probe = probe or Probe()
    image = await asyncio.to_thread(build)
    program = find_qemu().require().path
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-") as folder:
        path = Path(folder) / "probe.sock"
        options = ["-kernel", str(image), *extra]
        command = load_config(machine_for(cpu)).command(program, [path], cpu=cpu, properties=PATIENT, extra=options)
        async with serve(probe, path), Qemu(command, timeout=_TIMEOUT) as vm:
            guest = Guest(probe.mailbox, vm.bounded)
            yield Booted(guest, probe, await guest.hello(), shlex.join(command))
            await guest.off()
            await vm.wait()
