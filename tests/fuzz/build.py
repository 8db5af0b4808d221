"""Builds the fuzzers: the hot path's sources, the world around it, and one entry point each."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
HOT_PATH = HERE.parent.parent / "bridge" / "hotpath"
FUZZERS = ("receive", "session")
WORLD = ("device.c", "world.c", "maps.c")
FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fno-omit-frame-pointer"),
    *("-Wall", "-Wextra", "-Werror"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)


def build(fuzzer: str, compiler: str, folder: Path, *, flags: Sequence[str] = (), sources: Sequence[str] = ()) -> Path:
    """Builds one of `FUZZERS` into `folder`; the program.

    Raises:
        subprocess.CalledProcessError: the compiler failed; it said why.
    """
    program = folder / fuzzer
    hot_path = [path for path in sorted(HOT_PATH.glob("*.c")) if not path.name.startswith("_")]
    ours = [HERE / name for name in (*WORLD, *sources, f"{fuzzer}.c")]
    command = [compiler, *FLAGS, *flags, f"-I{HOT_PATH}", *map(str, [*hot_path, *ours]), "-o", str(program)]
    subprocess.run(command, check=True)
    return program
