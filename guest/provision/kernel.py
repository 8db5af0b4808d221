"""Arm64 Linux kernels to boot as guests, unmodified: Debian's, with their modules, fetched into the user's cache."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_directory
from .errors import ProvisionError
from .part import Debian, fetch, find_or_make
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
    kernels = [_kernel(image) for image in _folder().glob(f"*/{_images(name)}")]
    return max(kernels, key=lambda kernel: _numbers(kernel.release), default=None)


def _images(name: str) -> str:
    return f"boot/vmlinuz-{name}.*"


def _kernel(image: Path) -> Kernel:
    release = image.name.removeprefix("vmlinuz-")
    return Kernel(image, image.parents[1] / "lib/modules" / release, release)


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
    debian = Debian(f"Linux {name}", [PACKAGE], RELEASES[name], _REMEDY)

    def check(folder: Path) -> Kernel:
        image = next(folder.glob(_images(name)), None)
        if image is None:
            raise ValueError(f"{PACKAGE} must bring its image, but there is none")
        return _kernel(image)

    return find_or_make(
        _folder(),
        lambda: find_kernel(name),
        lambda: fetch(debian, _folder(), "arm64", _prepare, check, progress),
        progress,
        "fetching a kernel",
    )


def _prepare(new: Path) -> str:
    """Take what is needed of unpacked packages. Since 7.3 the image and its configuration lie among the modules."""
    root = new / "root"
    for folder in ("boot", "lib/modules"):
        (new / folder).mkdir(parents=True)
    for part in root.glob("boot/*-*"):
        shutil.move(part, new / "boot" / part.name)
    for modules in [*root.glob("lib/modules/*"), *root.glob("usr/lib/modules/*")]:
        for name in ("vmlinuz", "config", "System.map"):
            if (modules / name).is_file():
                shutil.move(modules / name, new / "boot" / f"{name}-{modules.name}")
        shutil.move(modules, new / "lib/modules" / modules.name)
    shutil.rmtree(root)
    return "."
