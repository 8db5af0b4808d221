"""`pyvfio-user qemu`: a machine with devices attached, traced if wanted."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ..catalogue import create_device
from ..machines import load_config
from .common import DEVICE_HELP, make_room, run, served


@click.command()
@click.argument("config")
@click.option("--device", "-d", "names", multiple=True, metavar="NAME|MODULE:CLASS", help=DEVICE_HELP)
@click.option("--cpu", help="The CPU, instead of the machine's own.")
@click.option("--print", "only_print", is_flag=True, help="Only print the command; serve and start nothing.")
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), help="Record the guest's accesses to BARs here."
)
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def qemu(
    config: str,
    names: Sequence[str],
    cpu: str | None,
    only_print: bool,
    trace: Path | None,
    extra: Sequence[str],
) -> None:
    """Start QEMU as CONFIG describes it, with devices attached, in the foreground.

    CONFIG is a machine that ships (see `pyvfio-user machines`) or a config file. What follows `--` is given to QEMU:

    \b
        pyvfio-user qemu el2 --device probe -- -kernel Image

    With --trace every access to a BAR is recorded, with the memory type that the guest's own tables give it, and the
    barriers between; `pyvfio-user trace` shows it. QEMU's plugin interface must be version 7 (QEMU 11).
    """
    machine = load_config(config)
    devices = [] if only_print else [create_device(name) for name in names]
    from ..provision.qemu import find_qemu

    program = find_qemu().require().path
    if only_print:
        sockets = [Path(f"{name.replace(':', '.')}.sock").absolute() for name in names]
        for name, path in zip(names, sockets, strict=True):
            click.echo(f"# first: pyvfio-user serve {shlex.quote(name)} --socket {shlex.quote(str(path))}", err=True)
        click.echo(shlex.join(machine.command(program, sockets, cpu=cpu, extra=extra)))
        return

    async def session() -> int:
        from ..qemu import run_in_foreground

        with tempfile.TemporaryDirectory(prefix="pyvfio-user-") as folder:
            sockets = [Path(folder) / f"{number}.sock" for number in range(len(devices))]
            async with contextlib.AsyncExitStack() as stack:
                for device, path in zip(devices, sockets, strict=True):
                    await stack.enter_async_context(served(device, path))
                options = stack.enter_context(_traced(program, trace)) if trace else []
                command = machine.command(program, sockets, cpu=cpu, extra=[*options, *extra])
                click.echo(f"$ {shlex.join(command)}", err=True)
                return await run_in_foreground(command)

    run(session())


@contextlib.contextmanager
def _traced(program: Path, path: Path) -> Iterator[list[str]]:
    """Record into a file what QEMU writes when it is given the options; say at the end how much."""
    from ..tracing import Recorded, Tracer, recording, require_api

    require_api(program)
    make_room(path)
    with Tracer() as tracer:
        said = Recorded()
        try:
            with recording(tracer, path, said):
                yield tracer.options
        finally:
            click.echo(f"trace: {said.events:,} events in {path}", err=True)
            if said.lost:
                click.echo(f"trace: {said.lost:,} more were lost: they came faster than they were written", err=True)
