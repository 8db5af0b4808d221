"""Builds the programs that run in the Linux guest: static, for aarch64, kept in the user's cache.

Their names in the cache depend on everything that went into them.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ..payload import PayloadError
from ..provision.cache import cache_directory
from ..provision.compiler import Compiler, find_linux_compiler

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-pthread", "-s", "-Wall", "-Wextra", "-Wconversion")
_VMM = "main vcpu bus device pci msix vgic memory remap rules failure asking"
PROGRAMS = {
    "init": ("init.c",),
    "vmm": tuple(f"{name}.c" for name in _VMM.split()),
}
_HEADERS = ("vmm.h",)
_SHARED = ("plan.h", "hypervisor.h")
"""Headers of the bare-metal guest."""
_TIMEOUT_SECONDS = 300


def _texts() -> dict[str, str]:
    here: Traversable = resources.files(__package__)
    bare = resources.files("pyvfio_user.guest") / "baremetal"
    own = [name for units in PROGRAMS.values() for name in units] + list(_HEADERS)
    return {
        **{name: (here / name).read_text(encoding="utf-8") for name in own},
        **{name: (bare / name).read_text(encoding="utf-8") for name in _SHARED},
    }


def build(program: str, compiler: Compiler | None = None) -> Path:
    """The program's ELF, built now or earlier from the same sources by the same compiler.

    Raises:
        PayloadError: The compiler refuses the sources, or cannot be run.
        ProvisionError: There is no compiler.
    """
    chosen = compiler or find_linux_compiler()
    texts = _texts()
    parts = (program, chosen.kind, chosen.version, FLAGS, PROGRAMS[program], sorted(texts.items()))
    target = cache_directory() / f"{program}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:20]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            os.replace(compile_in(Path(folder), program, chosen), target)
    return target


def compile_in(folder: Path, program: str, compiler: Compiler, extra: Sequence[str] = ()) -> Path:
    """The program compiled in this folder, with `extra` flags for the compiler. Raises `PayloadError`."""
    for name, text in _texts().items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [*compiler.command, *FLAGS, *extra, *PROGRAMS[program], "-o", program]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PayloadError(f"the guest's compiler must run: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise PayloadError(f"{program} must compile; {shlex.join(command)} ended with {done.returncode}:\n{said}")
    return folder / program
