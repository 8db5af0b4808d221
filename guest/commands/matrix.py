"""`pyvfio-user matrix`: every attribute scheme, run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .common import console, make_room, run


@click.command()
@click.option(
    "--scheme", "schemes", multiple=True, metavar="S", help="A scheme (default: all), or all-pairs; repeatable."
)
@click.option(
    "--cpu", "cpus", multiple=True, metavar="C", help="A CPU of QEMU's (default: max, cortex-a76); repeatable."
)
@click.option("--range", "ranges", multiple=True, metavar="R", help="A range of the layout (default: all); repeatable.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to look at here.")
def matrix(
    schemes: Sequence[str], cpus: Sequence[str], ranges: Sequence[str], json_file: Path | None, page: Path | None
) -> None:
    """Run the attribute schemes against the probe device, in guests under QEMU; exit status 1 if anything disagrees."""
    from ..matrix_view import view_matrix

    make_room(json_file, page)

    async def session() -> int:
        found = await view_matrix(schemes, cpus, ranges, json=json_file, page=page, console=console())
        return 1 if found.problems else 0

    run(session())
