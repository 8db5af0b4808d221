"""Compiles all C with every warning an error, and has the compiler's analyser look at it.

usage: python -m tests.sanitizers.analyse
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pyvfio_user.guest import tracing
from pyvfio_user.guest.errors import BuildError
from pyvfio_user.guest.linux import programs
from pyvfio_user.guest.payload import compile_in, sources
from pyvfio_user.guest.provision.compiler import Compiler, find_compiler, find_linux_compiler

HOT_PATH = Path(__file__).parents[2] / "bridge" / "hotpath"
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror")
ANALYSER = "-fanalyzer"


def supports(command: list[str], flag: str) -> bool:
    """Does a compiler know a flag?"""
    asked = [*command, "-Werror", flag, "-x", "c", "-c", "/dev/null", "-o", "/dev/null"]
    return subprocess.run(asked, capture_output=True).returncode == 0


def compile_hot_path(compiler: str, flags: tuple[str, ...]) -> bool:
    """Compiles each of the extension's sources; did all pass?"""
    passed = True
    for source in sorted(HOT_PATH.glob("*.c")):
        if not source.name.startswith("_"):
            command = [compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", *flags, "-c", str(source), "-o", "/dev/null"]
            passed &= subprocess.run(command).returncode == 0
    return passed


def compile_guest(compiler: Compiler, flags: tuple[str, ...]) -> bool:
    """Compiles the bare-metal guest; did it pass?"""
    with tempfile.TemporaryDirectory() as folder:
        try:
            for el in (1, 2):
                compile_in(Path(folder), compiler, sources(), extra=flags, el=el)
        except BuildError as error:
            print(error, file=sys.stderr)
            return False
    return True


def compile_programs(flags: tuple[str, ...]) -> bool:
    """Compiles the programs that run in a Linux guest; did they pass?"""
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in programs.PROGRAMS:
                programs.compile_in(Path(folder), name, find_linux_compiler(), extra=flags)
        except BuildError as error:
            print(error, file=sys.stderr)
            return False
    return True


def compile_tracer(compiler: str, flags: tuple[str, ...]) -> bool:
    """Compiles the plugin that traces; did it pass?"""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tracing.compile_in(Path(folder), compiler, extra=flags)
        except BuildError as error:
            print(error, file=sys.stderr)
            return False
    return True


def main() -> int:
    """The exit status: 0 when nobody complained."""
    native = os.environ.get("CC", "cc")
    if not supports([native], ANALYSER):
        print(f"missing: a gcc, for {native} knows no {ANALYSER}; install the Debian package gcc", file=sys.stderr)
        return 1
    cross = find_compiler()
    passed = compile_hot_path(native, STRICT) and compile_hot_path(native, ("-Werror", ANALYSER))
    print("the hot path: warnings and analyser", "passed" if passed else "FAILED", flush=True)
    tracer = compile_tracer(native, STRICT) and compile_tracer(native, ("-Werror", ANALYSER))
    print("the tracer: warnings and analyser", "passed" if tracer else "FAILED", flush=True)
    analysed = supports([*cross.command], ANALYSER)
    guest = compile_guest(cross, (*STRICT, ANALYSER) if analysed else STRICT)
    print(f"the guest: warnings{' and analyser' if analysed else ''}", "passed" if guest else "FAILED", flush=True)
    linux = compile_programs(STRICT)
    print(f"the Linux guest's programs: warnings {'passed' if linux else 'FAILED'}", flush=True)
    return 0 if passed and tracer and guest and linux else 1


if __name__ == "__main__":
    sys.exit(main())
