"""Arm64 Linux kernels to boot as guests, unmodified: Debian's, with their modules, fetched into the user's cache."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_directory, locked, staging
from .errors import ProvisionError
from .progress import Progress

RELEASES = {
    "6.1": ("bookworm",),
    "6.12": ("trixie",),
    "7.3": ("trixie", "trixie-backports"),
}
"""Kernels that Debian has, and the suites that bring each: the last has it, and may need packages of those before."""
BUILT = "schemes"
"""How the kernel is called that `kernel_build` makes."""
DEFAULT = "6.1"
"""The one whose modules are not compressed, and which is the smallest."""
PACKAGE = "linux-image-cloud-arm64"
_REMEDY = "boot a kernel of your own"


@dataclass(frozen=True)
class Kernel:
    """A kernel's image, the folder of its modules, and its release, as `uname -r` says it."""

    image: Path
    modules: Path
    release: str

    @property
    def config(self) -> Path:
        """The .config that it was built with."""
        return self.image.with_name(f"config-{self.release}")


def find_kernel(name: str = DEFAULT) -> Kernel | None:
    """The kernel of `RELEASES` in the cache, the newest if there are several."""
    return max(_cached(name), key=lambda kernel: _numbers(kernel.release), default=None)


def _cached(name: str) -> Iterator[Kernel]:
    for image in _folder().glob(f"*/boot/vmlinuz-{name}.*"):
        release = image.name.removeprefix("vmlinuz-")
        yield Kernel(image, image.parents[1] / "lib/modules" / release, release)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def _folder() -> Path:
    return cache_directory() / "kernel"


def provide_kernel(progress: Progress, name: str = DEFAULT) -> Kernel:
    """Return a kernel of `RELEASES` from the cache; fetch Debian's when it is not there (50 MB).

    Raises:
        ProvisionError: There is no such kernel, or it cannot be fetched.
    """
    if name not in RELEASES:
        known = ", ".join([*RELEASES, BUILT])
        raise ProvisionError(f"kernel must be one of {known}, or the path of an Image, not {name}", _REMEDY)
    if found := find_kernel(name):
        return found
    with locked(_folder(), lambda: progress.note("waiting for another set-up, which is fetching a kernel")):
        return find_kernel(name) or _fetch(progress, name)


def _fetch(progress: Progress, name: str) -> Kernel:
    with staging(_folder()) as stage:
        versions = apt.fetch(
            apt.machine_archive(_REMEDY),
            [PACKAGE],
            stage / "root",
            architecture="arm64",
            suites=RELEASES[name],
            work=stage / "apt",
            progress=progress,
            remedy=_REMEDY,
        )
        new = stage / "new"
        for folder in ("boot", "lib/modules"):
            (new / folder).mkdir(parents=True)
        _gather(stage / "root", new)
        final = _folder() / versions[PACKAGE]
        if final.exists():
            shutil.rmtree(final)
        new.rename(final)
    found = find_kernel(name)
    if found is None:
        raise ProvisionError(f"{PACKAGE} {versions[PACKAGE]} brought no image of Linux {name}", _REMEDY)
    return found


def _gather(root: Path, new: Path) -> None:
    """Take what is needed of unpacked packages. Since 7.3 the image and its configuration lie among the modules."""
    for part in root.glob("boot/*-*"):
        shutil.move(part, new / "boot" / part.name)
    for modules in [*root.glob("lib/modules/*"), *root.glob("usr/lib/modules/*")]:
        for name in ("vmlinuz", "config", "System.map"):
            if (modules / name).is_file():
                shutil.move(modules / name, new / "boot" / f"{name}-{modules.name}")
        shutil.move(modules, new / "lib/modules" / modules.name)
