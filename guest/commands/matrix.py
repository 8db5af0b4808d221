"""`pyvfio-user matrix`: every attribute scheme, run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .common import console, make_room, run


@click.command()
@click.option(
    "--lane",
    "lanes",
    multiple=True,
    metavar="L",
    help="el2: our own code is the hypervisor; kvm: Linux is. Default: el2, and kvm with cached kernels; repeatable.",
)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="V|IMAGE",
    help="For lane kvm: 6.1, 6.12, 7.3 (Debian's), schemes (built here), or the path of an Image; repeatable.",
)
@click.option(
    "--scheme", "schemes", multiple=True, metavar="S", help="A scheme (default: all), or all-pairs; repeatable."
)
@click.option(
    "--cpu",
    "cpus",
    multiple=True,
    metavar="C",
    help="A CPU of QEMU's (default: max; for el2 cortex-a76 too); repeatable.",
)
@click.option("--range", "ranges", multiple=True, metavar="R", help="A range of the layout (default: all); repeatable.")
@click.option("--orders", is_flag=True, help="Work out, too, what each type permits of a payload and its doorbell.")
@click.option("--profile", metavar="P", help="Whose write buffers --orders runs (default: wc-64x4).")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="How many runs of them (default: 1000).")
@click.option("--claims", is_flag=True, help="Name the probes behind each answer of the scorecard.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to look at here.")
def matrix(
    lanes: Sequence[str],
    kernels: Sequence[str],
    schemes: Sequence[str],
    cpus: Sequence[str],
    ranges: Sequence[str],
    orders: bool,
    profile: str | None,
    seeds: int | None,
    claims: bool,
    json_file: Path | None,
    page: Path | None,
) -> None:
    """Run the attribute schemes against the probe device, in guests under QEMU; exit status 1 if anything disagrees.

    --orders adds what is modelled and cannot be seen under QEMU: for each effective type that was reached, in how many
    ways a payload of 64 bytes and its doorbell may arrive, with each barrier and each way to store it, whether the
    doorbell can overtake, and how often the payload is one TLP under a named profile of write buffers.
    """
    from ..jobs import ALL_PAIRS
    from ..matrix_view import Shown, choose_jobs, view_jobs
    from ..orders.attach import Ordered

    if not orders and (profile, seeds) != (None, None):
        raise click.UsageError("--profile and --seeds are options of --orders")
    wanted = Ordered(profile or Ordered.profile, seeds or Ordered.seeds) if orders else None
    make_room(json_file, page)
    jobs = choose_jobs(lanes, schemes, cpus, ranges, kernels)

    async def session() -> int:
        how = Shown(console(), json_file, page, claims=claims)
        found = await view_jobs(jobs, how, orders=wanted, explicit=ALL_PAIRS in schemes)
        return 1 if found.problems else 0

    run(session())
