"""Runs the bare-metal guest on a plan file, by semihosting: no probe, and ivshmem's RAM as the BAR under test."""

from __future__ import annotations

import shlex
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyvfio_user.guest.hello import pack_hello
from pyvfio_user.guest.payload import build

VENDOR, DEVICE = 0x1AF4, 0x1110
"""QEMU's ivshmem-plain: BAR 2 is 1 MiB of RAM, 64-bit and prefetchable."""

SELECT = pack_hello(VENDOR, DEVICE)


@dataclass(frozen=True)
class Finished:
    """How a run of the guest ended."""

    status: int
    console: str
    answers: list[bytes]
    command: str


def _answers(path: Path) -> list[bytes]:
    data, answers = path.read_bytes() if path.exists() else b"", []
    while data:
        (length,) = struct.unpack_from("<I", data)
        answers.append(data[4 : 4 + length])
        data = data[4 + length :]
    return answers


def run_plan(
    qemu: Path,
    folder: Path,
    messages: Sequence[bytes],
    *,
    cpu: str = "max",
    machine: str = "virt,virtualization=on,gic-version=3",
    kernel: Path | None = None,
    semihosting: bool = True,
) -> Finished:
    """Boot the guest, let it answer these messages, and wait until it has turned the machine off."""
    plan, out = folder / "plan", folder / "out"
    plan.write_bytes(b"".join(struct.pack("<I", len(message)) + message for message in messages))
    if cpu == "max" and "virtualization=on" in machine:
        machine += ",mte=on"
    command = [str(qemu), "-M", machine, "-cpu", cpu, "-m", "256M", "-nodefaults", "-display", "none"]
    command += ["-serial", "stdio", "-kernel", str(kernel or build())]
    command += ["-object", "memory-backend-memfd,id=bar,size=1M,share=on", "-device", "ivshmem-plain,memdev=bar"]
    if semihosting:
        command += ["-semihosting-config", f"enable=on,target=native,arg=plan,arg={plan},arg={out}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    return Finished(done.returncode, done.stdout + done.stderr, _answers(out), shlex.join(command))
