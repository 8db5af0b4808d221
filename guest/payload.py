"""Builds the bare-metal guest: an aarch64 ELF from ``guest/baremetal`` and the sources that `stubs` generates.

The result is kept in the user's cache directory, under a name that depends on everything that went into it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from .stubs import ops_source, probe_header

TARGET_FLAGS = (
    "-std=c11",
    "-O2",
    "-g0",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-mstrict-align",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-nostdlib",
    "-static",
)
_BUILD_TIMEOUT = 300


class PayloadError(RuntimeError):
    """The guest could not be built; the message has the command and what the compiler said."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler for aarch64 without an operating system."""

    name: str
    command: tuple[str, ...]
    flags: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The first line of what it says about itself.

        Raises:
            PayloadError: It does not run.
        """
        return _version(self.command)


@cache
def _version(command: tuple[str, ...]) -> str:
    return _run([*command, "--version"]).splitlines()[0]


def find_compiler() -> Compiler:
    """The compiler to use: ``aarch64-linux-gnu-gcc`` if it is on PATH, else Zig's from the ``ziglang`` package.

    Raises:
        PayloadError: There is neither.
    """
    gcc = shutil.which("aarch64-linux-gnu-gcc")
    if gcc:
        return Compiler("aarch64-linux-gnu-gcc", (gcc,), ("-no-pie", "-Wl,--build-id=none"))
    if importlib.util.find_spec("ziglang") is not None:
        command = (sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-freestanding-none")
        return Compiler("zig cc", command, ("-fno-sanitize=all",))
    raise PayloadError(
        "the guest needs a compiler for aarch64: install the Python package ziglang, or Debian's gcc-aarch64-linux-gnu"
    )


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/pyvfio-user``, by default ``~/.cache/pyvfio-user``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyvfio-user"


def sources() -> dict[str, str]:
    """All sources by file name, the generated ones included."""
    folder = resources.files(__package__) / "baremetal"
    texts = {
        each.name: each.read_text(encoding="utf-8")
        for each in folder.iterdir()
        if each.name.endswith((".c", ".h", ".S", ".ld"))
    }
    if "start.S" not in texts:
        raise PayloadError(f"the guest's sources must be in {folder}, which has none")
    return {**texts, "ops.S": ops_source(), "probe.h": probe_header()}


def build(compiler: Compiler | None = None) -> Path:
    """The guest's ELF, built now or earlier from the same sources by the same compiler.

    Raises:
        PayloadError: There is no compiler, or it refuses the sources.
    """
    chosen = compiler or find_compiler()
    texts = sources()
    digest = hashlib.sha256(repr((chosen, chosen.version, TARGET_FLAGS, sorted(texts.items()))).encode()).hexdigest()
    target = cache_directory() / f"guest-{digest[:20]}.elf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _compile(chosen, texts, target)
    return target


def _compile(compiler: Compiler, texts: dict[str, str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        units = sorted(file for file in texts if file.endswith((".c", ".S")))
        command = [*compiler.command, *compiler.flags, *TARGET_FLAGS, "-Wl,-T,guest.ld", *units, "-o", "guest.elf"]
        _run(command, folder)
        # Renamed into place, so that a build going on in another process never sees half a file.
        os.replace(folder / "guest.elf", target)


def _run(command: list[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PayloadError(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        raise PayloadError(f"{' '.join(command)} failed with status {done.returncode}:\n{done.stderr or done.stdout}")
    return done.stdout
