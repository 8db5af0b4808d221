"""Builds the bare-metal guest: an aarch64 ELF from ``guest/baremetal`` and the sources that `stubs` generates.

It runs at EL2, as its own hypervisor, or at EL1 as a virtual machine of another one.

The result is kept in the user's cache directory, under a name that depends on everything that went into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from .compiling import kept, run_compiler
from .errors import BuildError
from .provision.compiler import Compiler, find_compiler
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
    "-nostdlib",
    "-static",
)
_KIND_FLAGS = {
    # GCC would make memset's own loop a call of memset.
    "gcc": ("-no-pie", "-Wl,--build-id=none", "-fno-tree-loop-distribute-patterns"),
    "zig": ("-fno-sanitize=all",),
}
_OTHERS = {2: ("hypervisor.c",), 1: ("stage2.c", "timer.c")}
"""The sources that are not for the guest at an exception level."""


def sources() -> dict[str, str]:
    """All sources by file name, the generated ones included."""
    folder = resources.files(__package__) / "baremetal"
    texts = {
        each.name: each.read_text(encoding="utf-8")
        for each in folder.iterdir()
        if each.name.endswith((".c", ".h", ".S", ".ld"))
    }
    if "start.S" not in texts:
        raise BuildError(f"the guest's sources must be in {folder}, which has none")
    return {**texts, "ops.S": ops_source(), "probe.h": probe_header()}


def build(compiler: Compiler | None = None, *, el: int = 2) -> Path:
    """The guest's ELF for an exception level, built now or earlier from the same sources by the same compiler.

    Raises:
        BuildError: The compiler refuses the sources, or cannot be run.
        ProvisionError: There is no compiler.
    """
    chosen = compiler or find_compiler()
    texts = sources()
    parts = (el, chosen.kind, chosen.version, _KIND_FLAGS[chosen.kind], TARGET_FLAGS, sorted(texts.items()))
    return kept("guest", parts, lambda folder: compile_in(folder, chosen, texts, el=el), ".elf")


def compile_in(
    folder: Path, compiler: Compiler, texts: Mapping[str, str], extra: Sequence[str] = (), *, el: int = 2
) -> Path:
    """The ELF compiled in this folder from these sources for an exception level, with `extra` flags for the compiler.

    Raises:
        BuildError: The compiler refuses the sources, or cannot be run.
    """
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    units = sorted(file for file in texts if file.endswith((".c", ".S")) and file not in _OTHERS[el])
    flags = (*_KIND_FLAGS[compiler.kind], *TARGET_FLAGS, f"-DHOME_EL={el}", *extra, "-Wl,-T,guest.ld")
    run_compiler("the guest", [*compiler.command, *flags, *units, "-o", "guest.elf"], folder)
    return folder / "guest.elf"
