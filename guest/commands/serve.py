"""`pyvfio-user serve`: one device, on a socket."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..catalogue import create_device
from ..machines import device_option
from .common import prepare_timeline, run, served, timeline_options, write_timeline

if TYPE_CHECKING:
    from ...bridge.endpoint import HasEndpoint


@click.command()
@click.argument("device", metavar="NAME|MODULE:CLASS")
@click.option("--socket", "path", required=True, type=click.Path(path_type=Path), help="Where clients connect.")
@click.option("--any-user", is_flag=True, help="Serve clients of other users too; the socket's mode is then 0666.")
@click.option(
    "--spin-us",
    type=click.IntRange(0, 1_000_000),
    help="Microseconds to look for the next message before sleeping, where that paid lately; 0 is never. Default: 50.",
)
@click.option(
    "--assume",
    "assumptions",
    multiple=True,
    metavar="barN+OFFSET:SIZE=TYPE[,barrier]",
    help="Let posted writes there wait, merge and change places as this type permits; "
    "barrier: the driver has a DMB before each, as writel. All BARs are trapped then.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Picks the order; the same, the same one.")
@timeline_options
def serve(
    device: str,
    path: Path,
    any_user: bool,
    spin_us: int | None,
    assumptions: Sequence[str],
    seed: int,
    page: Path | None,
    perfetto: Path | None,
    most: int | None,
) -> None:
    """Serve one device on a socket, for QEMU or any other vfio-user client, until Ctrl-C.

    NAME is a device that ships (probe, upcase, bench); MODULE:CLASS is one of your own, found from the current folder.

    With --html or --perfetto the run is drawn when it ends: accesses, what waits, TLPs, handlers and interrupts. All
    BARs are trapped then, too.
    """
    from ...bridge.explore.served import Reordered
    from ...bridge.explore.watched import Watch
    from ..assumptions import parse

    instance = create_device(device)
    types = [parse(each) for each in assumptions]
    if not page and not perfetto:
        shown = Reordered(instance, types, seed=seed) if types else instance
        run(_until_stopped(shown, device, path, any_user), spin_us)
    prepare_timeline(page, perfetto)
    assumed = f"seed {seed}, assumed: {', '.join(assumptions)}" if types else "nothing is assumed of the driver"
    watch = Watch(type(instance).__name__, assumed, most=most, title=f"{device}, served")
    try:
        run(_until_stopped(Reordered(instance, types, seed=seed, watch=watch), device, path, any_user), spin_us)
    finally:
        write_timeline(watch.timeline(), page, perfetto)


async def _until_stopped(device: HasEndpoint, name: str, path: Path, any_user: bool) -> int:
    async with served(device, path, any_user=any_user):
        click.echo(f"serving {name} on {path}; to attach it, give QEMU:")
        click.echo(f"  -device {shlex.quote(device_option(path.absolute()))}")
        await asyncio.get_running_loop().create_future()
    return 0
