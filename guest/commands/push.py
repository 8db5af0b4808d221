"""`pyvfio-user push`: the poll-mode workload."""

from __future__ import annotations

from pathlib import Path

import click

from .common import console, make_room, run


@click.command()
@click.option("--cpu", default="max", show_default=True, metavar="C", help="A CPU of QEMU's.")
@click.option(
    "--window",
    type=click.Choice(["mapped", "trapped"]),
    default="trapped",
    show_default=True,
    help="Memory shared with the guest, or one where the device sees every transaction.",
)
@click.option(
    "--idiom",
    type=click.Choice(["iowrite64", "iowrite32", "st1", "stp", "memcpy"]),
    default="st1",
    show_default=True,
    help="How an entry is copied; memcpy is unaligned, as a C library's.",
)
@click.option(
    "--barrier",
    type=click.Choice(["none", "dmb", "dsb", "dgh"]),
    default="dmb",
    show_default=True,
    help="What stands between an entry and its doorbell.",
)
@click.option("--count", default=1000, show_default=True, metavar="N", help="Entries for each type.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
def push(cpu: str, window: str, idiom: str, barrier: str, count: int, json_file: Path | None) -> None:
    """Push 64-byte entries through the write-combine window at EL0, as a DPDK process does, and ring for each.

    Once for each type that the guest can map the window with; the device checks every entry and its place in the order.
    Exit status 1 if anything disagrees.
    """
    from ..push_run import Push, run_push
    from ..report.push import show
    from ..workload import Barrier, Idiom

    make_room(json_file)

    async def session() -> int:
        wanted = Push(cpu, window, Idiom[idiom.upper()], Barrier[barrier.upper()], count)
        report = await run_push(wanted)
        show(report, console())
        if json_file is not None:
            json_file.write_bytes(report.to_json())
            click.echo(f"JSON: {json_file}")
        return 1 if report.disagrees else 0

    run(session())
