"""`pyvfio-user qemu`: a machine with devices attached, traced if wanted."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..catalogue import create_device
from ..machines import PATIENT, load_config
from .common import DEVICE_HELP, make_room, prepare_timeline, run, served, timeline_options, write_timeline

if TYPE_CHECKING:
    from ...bridge.endpoint import HasEndpoint
    from ...bridge.explore.watched import Watch
    from ..reordering import Reordering

_MOST_REORDERED = 16


@click.command()
@click.argument("config")
@click.option("--device", "-d", "names", multiple=True, metavar="NAME|MODULE:CLASS", help=DEVICE_HELP)
@click.option("--cpu", help="The CPU, instead of the machine's own.")
@click.option("--print", "only_print", is_flag=True, help="Only print the command; serve and start nothing.")
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), help="Record the guest's accesses to BARs here."
)
@click.option(
    "--reorder",
    type=int,
    metavar="SEED",
    help="Let the guest's posted writes to the devices wait, merge and change places, as the types and barriers permit "
    "that the tracer sees; SEED picks how.",
)
@click.option(
    "--speculate",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="CHANCE",
    help="With --reorder: of a read that nobody made, before each access, where the type permits it.",
)
@timeline_options
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def qemu(
    config: str,
    names: Sequence[str],
    cpu: str | None,
    only_print: bool,
    trace: Path | None,
    reorder: int | None,
    speculate: float,
    page: Path | None,
    perfetto: Path | None,
    most: int | None,
    extra: Sequence[str],
) -> None:
    """Start QEMU as CONFIG describes it, with devices attached, in the foreground.

    CONFIG is a machine that ships (see `pyvfio-user machines`) or a config file. What follows `--` is given to QEMU:

    \b
        pyvfio-user qemu el2 --device probe -- -kernel Image

    With --trace every access to a BAR is recorded, with the memory type that the guest's own tables give it, and the
    barriers between; `pyvfio-user trace` shows it. QEMU's plugin interface must be version 7 (QEMU 11).

    With --reorder the devices see what the guest posts to trapped regions in an order, gathered in a way, that the
    architecture permits: with the same SEED the same one, if the guest makes the same accesses. The last line has
    digests: where what was made is the same, so is what arrived. With --html or --perfetto the run is drawn at its end,
    for one device: accesses, what waits, TLPs, handlers and interrupts.
    """
    if speculate and reorder is None:
        raise click.UsageError("--speculate must come with --reorder SEED, not alone")
    if reorder is not None and not 1 <= len(names) <= _MOST_REORDERED:
        raise click.UsageError(f"--reorder must have 1 to {_MOST_REORDERED} devices, not {len(names)}")
    if (page or perfetto) and (reorder is None or len(names) != 1):
        raise click.UsageError("--html and --perfetto must come with --reorder SEED and one --device")
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
                shown: Sequence[HasEndpoint] = devices
                slots: Sequence[int] = ()
                options: Sequence[str] = ()
                if reorder is not None:
                    watch = stack.enter_context(_drawn(names[0], config, reorder, page, perfetto, most))
                    ways = _reordered(program, [*zip(names, devices, strict=True)], reorder, speculate, trace, watch)
                    front = await stack.enter_async_context(ways)
                    shown, slots, options = front.fronts, front.slots, front.options
                elif trace:
                    options = stack.enter_context(_traced(program, trace))
                for device, path in zip(shown, sockets, strict=True):
                    await stack.enter_async_context(served(device, path))
                patience = None if reorder is None else PATIENT
                words = [*options, *extra]
                command = machine.command(program, sockets, cpu=cpu, properties=patience, slots=slots, extra=words)
                click.echo(f"$ {shlex.join(command)}", err=True)
                return await run_in_foreground(command)

    run(session())


@contextlib.contextmanager
def _drawn(
    device: str, machine: str, seed: int, page: Path | None, perfetto: Path | None, most: int | None
) -> Iterator[Watch | None]:
    """What draws the run, at its end; None when nothing is to be drawn."""
    if page is None and perfetto is None:
        yield None
        return
    from ...bridge.explore.watched import Watch

    prepare_timeline(page, perfetto)
    subtitle = f"machine {machine}, seed {seed}"
    watch = Watch(device.rpartition(":")[2], subtitle, title=f"{device}, in a guest", types="the tracer's", most=most)
    try:
        yield watch
    finally:
        write_timeline(watch.timeline(), page, perfetto)


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
            _say_lost(said.lost)


def _say_lost(lost: int) -> None:
    if lost:
        click.echo(f"trace: {lost:,} more were lost: they came faster than they were written", err=True)


@contextlib.asynccontextmanager
async def _reordered(
    program: Path,
    devices: Sequence[tuple[str, HasEndpoint]],
    seed: int,
    speculate: float,
    trace: Path | None,
    watch: Watch | None,
) -> AsyncIterator[Reordering]:
    """Reorder what the devices' guest posts; say at the end what came of it."""
    from ..reordering import reordering
    from ..tracing import require_api, written

    require_api(program)
    make_room(trace)
    front: Reordering | None = None
    with contextlib.ExitStack() as files:
        lost = lambda: front.labels.dropped if front else 0  # noqa: E731
        keep = files.enter_context(written(trace, lost)).write if trace else None
        served = [device for _, device in devices]
        async with reordering(served, seed, speculate=speculate, keep=keep, watch=watch) as front:
            yield front
        for (name, _), each in zip(devices, front.fronts, strict=True):
            click.echo(f"reorder: {name}, seed {seed}: {each.tally}", err=True)
        if trace:
            click.echo(f"trace: {front.labels.events:,} events in {trace}", err=True)
        _say_lost(front.labels.dropped)
