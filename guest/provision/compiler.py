"""Finding the cross compiler that builds the guests' AArch64 payloads."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass

from .errors import ProvisionError

GCC = "aarch64-linux-gnu-gcc"


@dataclass(frozen=True)
class Compiler:
    """A C compiler for AArch64: the start of its command, target chosen; its kind and version."""

    command: tuple[str, ...]
    kind: str  # "gcc" or "zig"
    version: str


def find_compiler() -> Compiler:
    """Return the compiler of bare-metal programs. Raises `ProvisionError`."""
    return _find("aarch64-freestanding-none")


def find_linux_compiler() -> Compiler:
    """Return the compiler of Linux programs: it has a C library and Linux' headers. Raises `ProvisionError`."""
    return _find("aarch64-linux-musl")


def _find(target: str) -> Compiler:
    """aarch64-linux-gnu-gcc when it is on PATH, else the ziglang package's compiler with this target."""
    gcc = shutil.which(GCC)
    if gcc is not None:
        version = subprocess.run([gcc, "-dumpfullversion"], capture_output=True, text=True, check=True)
        return Compiler((gcc,), "gcc", version.stdout.strip())
    if importlib.util.find_spec("ziglang") is not None:
        command = (sys.executable, "-m", "ziglang", "cc", "-target", target)
        return Compiler(command, "zig", importlib.metadata.version("ziglang"))
    raise ProvisionError(
        "no C compiler for AArch64 was found",
        f"install the Python package ziglang, or {GCC} (Debian package gcc-aarch64-linux-gnu)",
    )
