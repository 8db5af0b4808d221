"""Builds the programs that run in the Linux guest: static, for aarch64, kept in the user's cache.

Their names in the cache depend on everything that went into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from .. import payload
from ..compiling import kept, run_compiler
from ..provision.compiler import Compiler, find_linux_compiler

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-pthread", "-s", "-Wall", "-Wextra", "-Wconversion")
_VMM = "main vcpu bus device pci msix vgic memory remap rules failure asking"


@dataclass(frozen=True)
class _Program:
    """Sources of this folder, and of the bare-metal guest with what is generated for it; headers are not compiled."""

    own: tuple[str, ...]
    bare: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def texts(self) -> dict[str, str]:
        here: Traversable = resources.files(__package__)
        bare = payload.sources() if self.bare else {}
        return {
            **{name: (here / name).read_text(encoding="utf-8") for name in self.own},
            **{name: bare[name] for name in self.bare},
        }


PROGRAMS = {
    "init": _Program(("init.c", "arrival.c", "platform.c", "init.h")),
    "vmm": _Program((*(f"{name}.c" for name in _VMM.split()), "vmm.h"), ("plan.h", "hypervisor.h")),
    "process": _Program(
        ("process.c", "process_pci.c", "process_driver.c", "process.h"),
        ("main.c", "run.c", "script.c", "mailbox.c", "ops.S", "guest.h", "plan.h", "ops.h", "probe.h", "hypervisor.h"),
        ("-DHOME_EL=0",),
    ),
}


def build(program: str, compiler: Compiler | None = None) -> Path:
    """The program's ELF, built now or earlier from the same sources by the same compiler.

    Raises:
        BuildError: The compiler refuses the sources, or cannot be run.
        ProvisionError: There is no compiler.
    """
    chosen = compiler or find_linux_compiler()
    parts = (program, chosen.kind, chosen.version, FLAGS, PROGRAMS[program], sorted(PROGRAMS[program].texts().items()))
    return kept(program, parts, lambda folder: compile_in(folder, program, chosen))


def compile_in(folder: Path, program: str, compiler: Compiler, extra: Sequence[str] = ()) -> Path:
    """The program compiled in this folder, with `extra` flags for the compiler. Raises `BuildError`."""
    chosen = PROGRAMS[program]
    texts = chosen.texts()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    units = [name for name in texts if not name.endswith(".h")]
    run_compiler(program, [*compiler.command, *FLAGS, *chosen.flags, *extra, *units, "-o", program], folder)
    return folder / program
