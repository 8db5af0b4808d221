"""`pyvfio-user kvm`: the attribute scheme of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .common import console, make_room, run

AS_EXPECTED, OTHERWISE, UNTESTED = 0, 1, 125
"""Exit statuses: the last has `git bisect run` skip the commit."""


@click.command()
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    required=True,
    metavar="V|IMAGE",
    help="A kernel of Debian's (6.1, 6.12, 7.3), schemes (built here), or the path of an arm64 Image; repeatable.",
)
@click.option("--modules", type=click.Path(path_type=Path, exists=True), help="The folder of an Image's modules.")
@click.option("--config", type=click.Path(path_type=Path, exists=True), help="An Image's .config.")
@click.option("--expect", metavar="S", help="The scheme that it must have; by default, that of the release, if any.")
@click.option(
    "--cpu", "cpus", multiple=True, metavar="C", help="A CPU of QEMU's (default: max, which has FWB); repeatable."
)
@click.option("--append", default="", metavar="WORDS", help="For the kernel's command line.")
@click.option("--linux-guest", "linux", is_flag=True, help="Run a Linux of the same kernel as virtual machine, too.")
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(("rules", "doorbell", "changes")),
    help="Only this, at once, from a snapshot of the booted kernel; repeatable.",
)
@click.option("--claims", is_flag=True, help="Name the probes behind each answer of the scorecard.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to look at here.")
def kvm(
    kernels: Sequence[str],
    modules: Path | None,
    config: Path | None,
    expect: str | None,
    cpus: Sequence[str],
    append: str,
    linux: bool,
    scenarios: Sequence[str],
    claims: bool,
    json_file: Path | None,
    page: Path | None,
) -> None:
    """Name the attribute scheme that a kernel implements, and prove it: boot it, and give the probe to its guests.

    For `git bisect run`: exit status 0 when all is as expected, 1 when it is not, 125 when it could not be looked at.
    """
    from ...bridge.errors import DefinitionError
    from ...bridge.schemes import SCHEMES
    from ..errors import BuildError, KernelError, MatrixError
    from ..kvm.kernels import kernel_jobs
    from ..kvm.quick_view import show_scenarios
    from ..matrix_view import Shown, view_jobs
    from ..provision.errors import ProvisionError

    make_room(json_file, page)

    async def session() -> int:
        if scenarios:
            return AS_EXPECTED if await show_scenarios(jobs, scenarios, console()) else OTHERWISE
        found = await view_jobs(jobs, Shown(console(), json_file, page, claims=claims))
        if any(kernel.failure for kernel in found.kernels):
            return UNTESTED
        return OTHERWISE if found.problems else AS_EXPECTED

    try:
        if expect is not None and expect not in SCHEMES:
            raise DefinitionError(f"scheme must be one of {', '.join(SCHEMES)}, not {expect}")
        wanted = kernel_jobs(kernels, cpus, modules=modules, config=config, expect=expect, append=append, linux=linux)
        jobs = [*wanted]  # fetched here: in the event loop Ctrl-C would end apt alone
        run(session())
    except (BuildError, DefinitionError, KernelError, MatrixError, ProvisionError) as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(UNTESTED) from error
