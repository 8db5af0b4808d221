"""`pyvfio-user kvm`: the attribute scheme of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .common import console, make_room, run


@click.command()
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    required=True,
    metavar="V|IMAGE",
    help="A kernel of Debian's (6.1, 6.12, 7.3), or the path of an arm64 Image; repeatable.",
)
@click.option("--modules", type=click.Path(path_type=Path, exists=True), help="The folder of an Image's modules.")
@click.option("--config", type=click.Path(path_type=Path, exists=True), help="An Image's .config.")
@click.option("--expect", metavar="S", help="The scheme that it must have; by default, that of the release, if any.")
@click.option("--cpu", default="neoverse-n1", show_default=True, metavar="C", help="A CPU of QEMU's; max has FWB.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
def kvm(
    kernels: Sequence[str],
    modules: Path | None,
    config: Path | None,
    expect: str | None,
    cpu: str,
    json_file: Path | None,
) -> None:
    """Name the attribute scheme that a kernel implements, and prove it: boot it, and give the probe to its guests.

    For `git bisect run`: exit status 0 when all is as expected, 1 when it is not, 125 when it could not be looked at.
    """
    from ..kernels import look_at

    make_room(json_file)
    run(look_at(kernels, modules, config, expect, cpu, json_file, console()))
