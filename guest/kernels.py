"""Kernels as people name them: Debian's by number, fetched once, or the path of an Image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .kvm import KernelJob
from .provision.kernel import RELEASES, find_kernel, provide_kernel
from .provision.progress import Progress

EXPECTED = {"6.1": "status-quo", "6.12": "vma-allow-any-uncached", "7.3": "vma-allow-any-uncached"}
"""The scheme of each released kernel, by the history of Linux: what was merged came with 6.9."""
DEFAULT_CPUS = ("max",)
"""With FEAT_S2FWB; a host without is -cpu neoverse-n1, for one."""


def cached_kernels() -> list[str]:
    """Those of Debian's kernels that need not be fetched."""
    return [name for name in RELEASES if find_kernel(name)]


def is_path(name: str) -> bool:
    """Whether a kernel is named by a path."""
    return "/" in name or Path(name).is_file()


def kernel_jobs(
    kernels: Iterable[str],
    cpus: Iterable[str] = (),
    ranges: Iterable[str] = (),
    *,
    modules: Path | None = None,
    config: Path | None = None,
    expect: str | None = None,
    append: str = "",
) -> Iterator[KernelJob]:
    """One job a kernel and CPU; ``modules`` and ``config`` are of those that are named by a path.

    Raises:
        ProvisionError: There is no kernel of that name, or it cannot be fetched.
    """
    for name in dict.fromkeys(kernels):
        if is_path(name):
            release, image = Path(name).name, Path(name)
            own_modules, own_config = modules, config
        else:
            kernel = provide_kernel(Progress(), name)
            release, image, own_modules, own_config = kernel.release, kernel.image, kernel.modules, kernel.config
        for cpu in dict.fromkeys(cpus or DEFAULT_CPUS):
            yield KernelJob(
                name, release, str(image), _text(own_modules), _text(own_config), cpu,
                expect or EXPECTED.get(name), tuple(ranges), append,
            )  # fmt: skip


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
