"""Look at kernels for a person, or for `git bisect run`: found or fetched, booted one after the other, shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console

from ..bridge.errors import DefinitionError
from ..bridge.schemes import SCHEMES
from .errors import KernelError, MatrixError
from .kvm import EXPECTED, KernelReport, run_kernel
from .linux.boot import LinuxImage
from .payload import PayloadError
from .provision.errors import ProvisionError
from .provision.kernel import provide_kernel
from .provision.progress import Progress
from .report.kernel import show

AS_EXPECTED, OTHERWISE, UNTESTED = 0, 1, 125
"""Exit statuses: the last has `git bisect run` skip the commit."""


def find(name: str, modules: Path | None, config: Path | None) -> tuple[str, LinuxImage]:
    """The release and the image of a kernel that is named, or lies at a path. Raises `ProvisionError`."""
    if "/" in name or Path(name).is_file():
        return Path(name).name, LinuxImage(Path(name), modules, config)
    kernel = provide_kernel(Progress(), name)
    return kernel.release, LinuxImage(kernel.image, kernel.modules, kernel.config)


async def look_at(
    kernels: Sequence[str],
    modules: Path | None,
    config: Path | None,
    expect: str | None,
    cpu: str,
    json: Path | None,
    console: Console,
) -> int:
    """Run, show, write the reports as JSON; return the exit status. Raises DefinitionError for an unknown scheme."""
    if expect is not None and expect not in SCHEMES:
        raise DefinitionError(f"scheme must be one of {', '.join(SCHEMES)}, not {expect}")
    reports: list[KernelReport] = []
    status = AS_EXPECTED
    for name in kernels:
        try:
            release, image = find(name, modules, config)
            report = await run_kernel(release, image, cpu, expected=expect or EXPECTED.get(name))
        except (KernelError, MatrixError, PayloadError, ProvisionError) as error:
            click.echo(f"Error: {name} could not be looked at: {error}", err=True)
            return UNTESTED
        reports.append(report)
        show(report, console)
        if report.problems or report.scheme is None:
            status = OTHERWISE
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(reports), indent=1))
        console.print(f"JSON: {json}", highlight=False)
    return status
