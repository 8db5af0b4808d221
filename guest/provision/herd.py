"""herd7, which runs litmus programs under a formal memory model: the machine's own, or Debian's newest, in the cache.

Only the tests need it, and whoever generates the tables of orders; no guest and no device does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_directory, locked, staging
from .errors import ProvisionError
from .progress import Progress
from .qemu import LOADERS

PROGRAM = "herd7"
PACKAGE = "herdtools7"
MINIMUM = (7, 58)
"""The first that reads memory types in a litmus program."""
_SUITES = ("forky",)
_PROBE_SECONDS = 30
_REMEDY = f"install {PROGRAM} {MINIMUM[0]}.{MINIMUM[1]} or newer (Debian package {PACKAGE} of {_SUITES[-1]}) on PATH"


@dataclass(frozen=True)
class Herd:
    """A herd7 that runs: its path, its version, and the folder of its models, `aarch64.cat` among them."""

    path: Path
    version: str
    models: Path


def check(path: Path) -> Herd:
    """Ask the herd7 at `path` what it is; raise `ValueError` that says why it cannot serve."""
    version = _run(path, "-version").partition(",")[0]
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < MINIMUM:
        raise ValueError(f"{path} must be {PROGRAM} {MINIMUM[0]}.{MINIMUM[1]} or newer, not {version[:80]!r}")
    models = Path(_run(path, "-libdir").strip())
    if not (models / "aarch64.cat").is_file():
        raise ValueError(f"{path} must have its models in {models}, but aarch64.cat is not there")
    return Herd(path, version, models)


def _run(path: Path, option: str) -> str:
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{path} must run, not fail with: {error}") from error
    return done.stdout


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which(PROGRAM):
        yield Path(on_path).absolute()
    yield from sorted(_folder().glob(f"*/{PROGRAM}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _folder() -> Path:
    return cache_directory() / "herd"


def find_herd() -> Herd | None:
    """The first that serves, of PATH and the cache."""
    for path in _candidates():
        try:
            return check(path)
        except ValueError:
            continue
    return None


def provide_herd(progress: Progress) -> Herd:
    """Return the herd7 to use; fetch Debian's newest into the cache when there is none. Raises `ProvisionError`."""
    if found := find_herd():
        return found
    with locked(_folder(), lambda: progress.note("waiting for another set-up, which is fetching herd7")):
        return find_herd() or _fetch(_folder(), progress)


def _fetch(folder: Path, progress: Progress) -> Herd:
    archive = apt.machine_archive(_REMEDY)
    architecture = apt.host_architecture()
    if architecture not in LOADERS:
        raise ProvisionError(f"the host must be amd64 or arm64 for a fetched {PROGRAM}, not {architecture}", _REMEDY)
    with staging(folder) as stage:
        versions = apt.fetch(
            archive,
            [PACKAGE],
            stage / "new/root",
            architecture=architecture,
            suites=_SUITES,
            work=stage / "apt",
            progress=progress,
            remedy=_REMEDY,
        )
        for tool in (stage / "new/root/usr/bin").iterdir():
            if tool.name != PROGRAM:
                tool.unlink()  # 220 MB of tools of which none is used
        wrapper = stage / "new" / PROGRAM
        wrapper.write_text(_wrapper(architecture))
        wrapper.chmod(0o755)
        try:
            check(wrapper)
        except ValueError as reason:
            raise ProvisionError(f"the fetched {PROGRAM} cannot be used: {reason}", _REMEDY) from reason
        final = folder / versions[PACKAGE]
        if final.exists():
            shutil.rmtree(final)
        wrapper.parent.rename(final)
    return check(final / PROGRAM)


def _wrapper(architecture: str) -> str:
    loader, libraries = LOADERS[architecture]
    return f"""#!/bin/sh
# Runs the herd7 of a newer Debian release with that release's own loader, libraries and models; takes herd7's options.
root=$(dirname "$(readlink -f "$0")")/root
exec "$root/{loader}" --library-path "$root/{libraries}" "$root/usr/bin/{PROGRAM}" \\
  -set-libdir "$root/usr/share/herdtools7/herd" "$@"
"""
