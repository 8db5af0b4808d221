"""Builds the fuzzers: the hot path's sources, what surrounds them, and one entry point each."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
HOT_PATH = HERE.parent.parent / "bridge" / "hotpath"
WORLD = ("world.c", "client.c", "device.c", "input.c", "transfers.c")
# What each fuzzer needs besides the hot path.
FUZZERS: Mapping[str, Sequence[str]] = {
    "receive": (*WORLD, "receive.c"),
    "session": (*WORLD, "records.c", "session.c"),
    "dma": ("input.c", "records.c", "dma.c"),
    "echo": ("input.c", "records.c", "echo.c"),
    "ring": ("input.c", "records.c", "ring.c"),
    "bells": ("input.c", "records.c", "bells.c"),
}
FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-g1", "-O1", "-fno-omit-frame-pointer", "-pthread"),
    *("-Wall", "-Wextra", "-Werror"),
)
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZE_THREADS = ("-fsanitize=thread",)


def hot_path() -> list[Path]:
    """The hot path's sources."""
    return [path for path in sorted(HOT_PATH.glob("*.c")) if not path.name.startswith("_")]


def compile_each(
    sources: Sequence[Path], compiler: str, folder: Path, flags: Sequence[str] = SANITIZE
) -> dict[Path, Path]:
    """Compiles each source into `folder`; the objects.

    Raises:
        subprocess.CalledProcessError: the compiler failed; it said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    objects = {source: folder / f"{source.parent.name}-{source.stem}.o" for source in sources}
    for source, compiled in objects.items():
        command = [compiler, *FLAGS, *flags, f"-I{HOT_PATH}", f"-I{HERE}", "-c", str(source), "-o", str(compiled)]
        subprocess.run(command, check=True)
    return objects


def link(objects: Iterable[Path], compiler: str, program: Path, flags: Sequence[str] = SANITIZE) -> Path:
    """Links objects to `program`, which it returns.

    Raises:
        subprocess.CalledProcessError: the compiler failed; it said why.
    """
    subprocess.run([compiler, *FLAGS, *flags, *map(str, objects), "-o", str(program)], check=True)
    return program


def sources_of(fuzzer: str) -> list[Path]:
    """All sources of one of `FUZZERS`."""
    return [*hot_path(), *(HERE / name for name in FUZZERS[fuzzer])]


def build(
    fuzzer: str, compiler: str, folder: Path, *, flags: Sequence[str] = SANITIZE, sources: Sequence[str] = ()
) -> Path:
    """Builds one of `FUZZERS` into `folder`; the program.

    Raises:
        subprocess.CalledProcessError: the compiler failed; it said why.
    """
    objects = compile_each(
        [*sources_of(fuzzer), *(HERE / name for name in sources)], compiler, folder / "objects", flags
    )
    return link(objects.values(), compiler, folder / fuzzer, flags)
