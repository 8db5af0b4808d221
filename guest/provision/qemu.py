"""Finding a QEMU that has the vfio-user client, or fetching Debian's newest build of it.

A QEMU serves when `--version` is at least 10.1, `-device help` lists vfio-user-pci and the qtest accelerator starts.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_directory, locked, staging
from .errors import ProvisionError
from .progress import Progress

VARIABLE = "QEMU_SYSTEM_AARCH64"
PROGRAM = "qemu-system-aarch64"
MINIMUM = (10, 1)
_SUITES = ("trixie", "trixie-backports")
_PROBE_SECONDS = 30
_REMEDY = (
    f"install QEMU {MINIMUM[0]}.{MINIMUM[1]} or newer built with vfio-user-pci (in Debian: qemu-system-arm of "
    f"{_SUITES[-1]} or a later release) and put {PROGRAM} on PATH, or name it in ${VARIABLE}"
)
LOADERS = {
    "amd64": ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
    "arm64": ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
}


@dataclass(frozen=True)
class QemuBinary:
    """A QEMU that passed the checks: its path, its version, and where it was found (`environment`, `PATH`, `cache`)."""

    path: Path
    version: str
    origin: str


@dataclass(frozen=True)
class Search:
    """What a search found, and why each candidate that came before it was passed over."""

    found: QemuBinary | None
    rejected: tuple[str, ...]

    def require(self) -> QemuBinary:
        """Return what was found, or raise `ProvisionError`."""
        if self.found is None:
            why = "".join(f"\n    {reason}" for reason in self.rejected)
            raise ProvisionError(
                f"no QEMU with vfio-user-pci was found in ${VARIABLE}, on PATH or in {cache_directory()}{why}",
                f"run `pyvfio-user setup`, or {_REMEDY}",
            )
        return self.found


def check(path: Path) -> str:
    """Return the version of the QEMU at `path`; raise `ValueError` that says why it cannot serve."""
    first = _run([str(path), "--version"]).partition("\n")[0]
    match = re.search(r"version (\d+)\.(\d+)(\.\d+)*", first)
    if match is None:
        raise ValueError(f"{path} must be a QEMU, not something whose --version is {first[:80]!r}")
    version = match[0].removeprefix("version ")
    if (int(match[1]), int(match[2])) < MINIMUM:
        raise ValueError(f"{path} must be QEMU {MINIMUM[0]}.{MINIMUM[1]} or newer, not {version}")
    if 'name "vfio-user-pci"' not in _run([str(path), "-device", "help"]):
        raise ValueError(f"{path} (QEMU {version}) must have the device vfio-user-pci; it was built without")
    quit_at_once = '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
    options = ["-machine", "none", "-accel", "qtest", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    _run([str(path), *options], quit_at_once)
    return version


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{command[0]} must run, not fail with: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(f"`{shlex.join(command)}` must succeed, not end with: {said}")
    return done.stdout


def _candidates() -> Iterator[tuple[str, Path]]:
    named = os.environ.get(VARIABLE)
    if named:
        yield "environment", Path(shutil.which(named) or named).absolute()
    on_path = shutil.which(PROGRAM)
    if on_path:
        yield "PATH", Path(on_path).absolute()
    for wrapper in sorted((cache_directory() / "qemu").glob(f"*/{PROGRAM}"), key=_age, reverse=True):
        yield "cache", wrapper


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def find_qemu() -> Search:
    """Look in $QEMU_SYSTEM_AARCH64, on PATH and in the cache, in this order; the first that passes `check` is taken."""
    rejected: list[str] = []
    for origin, path in _candidates():
        try:
            return Search(QemuBinary(path, check(path), origin), tuple(rejected))
        except ValueError as reason:
            rejected.append(str(reason))
    return Search(None, tuple(rejected))


def provide_qemu(progress: Progress) -> QemuBinary:
    """Return the QEMU to use; fetch Debian's newest into the cache when there is none. Raises `ProvisionError`."""
    search = find_qemu()
    for reason in search.rejected:
        progress.note(f"passed over: {reason}")
    if search.found is not None:
        return search.found
    folder = cache_directory() / "qemu"
    with locked(folder, lambda: progress.note("waiting for another set-up, which is fetching QEMU")):
        return find_qemu().found or _fetch(folder, progress)


def _fetch(folder: Path, progress: Progress) -> QemuBinary:
    archive = apt.machine_archive(_REMEDY)
    architecture = apt.host_architecture()
    if architecture not in LOADERS:
        raise ProvisionError(f"the host must be amd64 or arm64 for a fetched QEMU, not {architecture}", _REMEDY)
    with staging(folder) as stage:
        apt.fetch(
            archive,
            ["qemu-system-arm"],
            stage / "new/root",
            architecture=architecture,
            suites=_SUITES,
            work=stage / "apt",
            progress=progress,
            remedy=_REMEDY,
        )
        wrapper = stage / "new" / PROGRAM
        wrapper.write_text(_wrapper(architecture))
        wrapper.chmod(0o755)
        try:
            version = check(wrapper)
        except ValueError as reason:
            raise ProvisionError(f"the fetched QEMU cannot be used: {reason}", _REMEDY) from reason
        final = folder / version
        if final.exists():
            shutil.rmtree(final)
        wrapper.parent.rename(final)
    return QemuBinary(final / PROGRAM, version, "cache")


def _wrapper(architecture: str) -> str:
    loader, libraries = LOADERS[architecture]
    return f"""#!/bin/sh
# Runs the QEMU of a newer Debian release with that release's own loader, libraries and modules; takes QEMU's options.
root=$(dirname "$(readlink -f "$0")")/root
export QEMU_MODULE_DIR="$root/{libraries}/qemu"
exec "$root/{loader}" --library-path "$root/{libraries}" "$root/usr/bin/{PROGRAM}" -L "$root/usr/share/qemu" "$@"
"""
