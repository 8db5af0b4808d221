"""Kernels as people name them: Debian's by number, fetched once, or the path of an Image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...bridge.errors import DefinitionError
from ..provision.kernel import BUILT as NAME
from ..provision.kernel import RELEASES, find_kernel, provide_kernel
from ..provision.kernel_build import find_built_kernel, provide_built_kernel
from ..provision.progress import Progress
from .job import KernelJob
from .schemes import BUILT

EXPECTED = {"6.1": "status-quo", "6.12": "vma-allow-any-uncached", "7.3": "vma-allow-any-uncached"}
"""The scheme of each released kernel, by the history of Linux: what was merged came with 6.9."""
DEFAULT_CPUS = ("max",)
"""With FEAT_S2FWB; a host without is -cpu neoverse-n1, for one."""


def cached_kernels() -> list[str]:
    """Those that need not be fetched or built."""
    return [*(name for name in RELEASES if find_kernel(name)), *([NAME] if find_built_kernel() else [])]


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
    schemes: Iterable[str] = (),
    linux: bool = False,
) -> Iterator[KernelJob]:
    """One job a kernel and CPU; ``modules`` and ``config`` are of those that are named by a path.
    ``linux``: a Linux is run as virtual machine, too.

    ``schemes`` are those to be shown by the kernel that has them all; none: all that it has.

    Raises:
        ProvisionError: There is no kernel of that name, or it cannot be fetched.
        DefinitionError: The kernel that has them all lacks the scheme that is expected; or ``modules`` or ``config``
            are named without a path to which they belong.
    """
    kernels = tuple(dict.fromkeys(kernels))
    if (modules or config) and not any(map(is_path, kernels)):
        what = "--config" if modules is None else "--modules"
        raise DefinitionError(
            f"{what} must go with the path of an Image, not with {', '.join(kernels)}, which has its own"
        )
    for name in kernels:
        shown = _shown(expect, tuple(schemes)) if name == NAME else ()
        if name == NAME and not shown:
            continue
        if is_path(name):
            release, image = Path(name).name, Path(name)
            own_modules, own_config = modules, config
        else:
            kernel = provide_built_kernel(Progress()) if name == NAME else provide_kernel(Progress(), name)
            release, image, own_modules, own_config = kernel.release, kernel.image, kernel.modules, kernel.config
        for cpu in dict.fromkeys(cpus or DEFAULT_CPUS):
            yield KernelJob(
                name, release, str(image), _text(own_modules), _text(own_config), cpu,
                expect or EXPECTED.get(name), tuple(ranges), append, shown, linux,
            )  # fmt: skip


def _shown(expect: str | None, schemes: tuple[str, ...]) -> tuple[str, ...]:
    """Of the schemes that were built, those that are wanted: the one expected, or of some, or all."""
    if expect is not None and expect not in BUILT:
        raise DefinitionError(f"scheme must be one of {', '.join(BUILT)}, not {expect}")
    wanted = (expect,) if expect else schemes or BUILT
    return tuple(name for name in BUILT if name in wanted)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
