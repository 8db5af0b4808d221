"""Compiling what runs in guests and in QEMU: once, kept in the user's cache under a name of all that went into it."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import BuildError
from .provision.cache import cache_directory

_TIMEOUT_SECONDS = 300


def kept(name: str, parts: object, compile_in: Callable[[Path], Path], suffix: str = "") -> Path:
    """Return the file in the cache that was made of `parts`, whose `repr` tells them all; make it if it is not there.

    `compile_in` makes it in an empty folder, and is let raise what it raises.
    """
    target = cache_directory() / f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:20]}{suffix}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            # Renamed into place, so that a build going on in another process never sees half a file.
            os.replace(compile_in(Path(folder)), target)
    return target


def run_compiler(what: str, command: Sequence[str], folder: Path, source: str | None = None) -> None:
    """Run a compiler in a folder, with `source` on its standard input. Raises `BuildError` unless it succeeds.

    Ctrl-C at the terminal is for whoever builds, not for the compiler: ended by it, it would seem to refuse the source.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            input=source,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"the compiler of {what} must run: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BuildError(f"{what} must compile; {shlex.join(command)} ended with {done.returncode}:\n{said}")
