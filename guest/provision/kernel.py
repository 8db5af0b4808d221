"""An arm64 Linux kernel to boot as a guest, unmodified: Debian's, with its modules, fetched into the user's cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_directory, locked, staging
from .errors import ProvisionError
from .progress import Progress

SUITES = ("bookworm",)
"""6.1, whose modules are not compressed. Each suite may need packages of those before it."""
PACKAGE = "linux-image-cloud-arm64"
_REMEDY = "boot a kernel of your own"


@dataclass(frozen=True)
class Kernel:
    """A kernel's image, the folder of its modules, and its release, as `uname -r` says it."""

    image: Path
    modules: Path
    release: str


def find_kernel() -> Kernel | None:
    """The kernel in the cache, the newest if there are several."""
    for image in sorted(_folder().glob("*/boot/vmlinuz-*"), reverse=True):
        release = image.name.removeprefix("vmlinuz-")
        return Kernel(image, image.parents[1] / "lib/modules" / release, release)
    return None


def _folder() -> Path:
    return cache_directory() / "kernel"


def provide_kernel(progress: Progress) -> Kernel:
    """Return the kernel in the cache; fetch Debian's when there is none (50 MB). Raises `ProvisionError`."""
    if found := find_kernel():
        return found
    with locked(_folder(), lambda: progress.note("waiting for another set-up, which is fetching a kernel")):
        return find_kernel() or _fetch(progress)


def _fetch(progress: Progress) -> Kernel:
    with staging(_folder()) as stage:
        versions = apt.fetch(
            apt.machine_archive(_REMEDY),
            [PACKAGE],
            stage / "root",
            architecture="arm64",
            suites=SUITES,
            work=stage / "apt",
            progress=progress,
            remedy=_REMEDY,
        )
        new = stage / "new"
        new.mkdir()
        for part in ("boot", "lib/modules"):
            shutil.move(stage / "root" / part, new / part)
        final = _folder() / versions[PACKAGE]
        if final.exists():
            shutil.rmtree(final)
        new.rename(final)
    found = find_kernel()
    if found is None:
        raise ProvisionError(f"{PACKAGE} {versions[PACKAGE]} brought no boot/vmlinuz-*", _REMEDY)
    return found
