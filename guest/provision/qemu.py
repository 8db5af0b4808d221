"""Finding a QEMU that has the vfio-user client, or fetching Debian's newest build of it.

A QEMU serves when `--version` is at least 10.1, `-device help` lists vfio-user-pci and the qtest accelerator starts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_directory
from .errors import ProvisionError
from .part import Debian, Host, ask, cached, fetch, find_or_make, first_that_serves, host, write_script
from .progress import Progress

VARIABLE = "QEMU_SYSTEM_AARCH64"
PROGRAM = "qemu-system-aarch64"
MINIMUM = (10, 1)
_SUITES = ("trixie", "trixie-backports")
_REMEDY = (
    f"install QEMU {MINIMUM[0]}.{MINIMUM[1]} or newer built with vfio-user-pci (in Debian: qemu-system-arm of "
    f"{_SUITES[-1]} or a later release) and put {PROGRAM} on PATH, or name it in ${VARIABLE}"
)
_DEBIAN = Debian("QEMU", ["qemu-system-arm"], _SUITES, _REMEDY)


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
    first = ask([path, "--version"]).partition("\n")[0]
    match = re.search(r"version (\d+)\.(\d+)(\.\d+)*", first)
    if match is None:
        raise ValueError(f"{path} must be a QEMU, not something whose --version is {first[:80]!r}")
    version = match[0].removeprefix("version ")
    if (int(match[1]), int(match[2])) < MINIMUM:
        raise ValueError(f"{path} must be QEMU {MINIMUM[0]}.{MINIMUM[1]} or newer, not {version}")
    if 'name "vfio-user-pci"' not in ask([path, "-device", "help"]):
        raise ValueError(f"{path} (QEMU {version}) must have the device vfio-user-pci; it was built without")
    quit_at_once = '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
    options = ["-machine", "none", "-accel", "qtest", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    ask([path, *options], quit_at_once)
    return version


def _folder() -> Path:
    return cache_directory() / "qemu"


def _candidates() -> Iterator[tuple[str, Path]]:
    named = os.environ.get(VARIABLE)
    if named:
        yield "environment", Path(shutil.which(named) or named).absolute()
    on_path = shutil.which(PROGRAM)
    if on_path:
        yield "PATH", Path(on_path).absolute()
    for wrapper in cached(_folder(), PROGRAM):
        yield "cache", wrapper


def find_qemu() -> Search:
    """Look in $QEMU_SYSTEM_AARCH64, on PATH and in the cache, in this order; the first that passes `check` is taken."""
    return Search(*first_that_serves(_candidates(), lambda each: QemuBinary(each[1], check(each[1]), each[0])))


def provide_qemu(progress: Progress) -> QemuBinary:
    """Return the QEMU to use; fetch Debian's newest into the cache when there is none. Raises `ProvisionError`."""
    search = find_qemu()
    for reason in search.rejected:
        progress.note(f"passed over: {reason}")
    if search.found is not None:
        return search.found

    def fetched() -> QemuBinary:
        here = host(_DEBIAN)
        return fetch(_DEBIAN, _folder(), here.architecture, lambda new: _prepare(new, here), _checked, progress)

    return find_or_make(_folder(), lambda: find_qemu().found, fetched, progress, "fetching QEMU")


def _checked(path: Path) -> QemuBinary:
    return QemuBinary(path, check(path), "cache")


def _prepare(new: Path, here: Host) -> str:
    wrapper = f"""#!/bin/sh
# Runs the QEMU of a newer Debian release with that release's own loader, libraries and modules; takes QEMU's options.
root=$(dirname "$(readlink -f "$0")")/root
export QEMU_MODULE_DIR="$root/{here.libraries}/qemu"
exec "$root/{here.loader}" --library-path "$root/{here.libraries}" "$root/usr/bin/{PROGRAM}" \\
  -L "$root/usr/share/qemu" "$@"
"""
    write_script(new / PROGRAM, wrapper)
    return PROGRAM
