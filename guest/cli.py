"""The command line, `pyvfio-user`. A user's mistake is one line, never a traceback; Ctrl-C ends both sides (130)."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..bridge.errors import DefinitionError, StreamError
from .catalogue import SHIPPED, UnknownDevice, create_device
from .errors import KernelError, MatrixError, QemuError, TraceError, missing_extra
from .machines import ConfigError, config_names, device_option, load_config
from .provision.errors import ProvisionError

if TYPE_CHECKING:
    from ..bridge.endpoint import HasEndpoint

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM


_MISTAKES = (
    ConfigError,
    UnknownDevice,
    DefinitionError,
    ProvisionError,
    QemuError,
    KernelError,
    MatrixError,
    StreamError,
    TraceError,
)


class _Commands(click.Group):
    """Turns the errors that a user can cause into messages, and Ctrl-C into exit status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        except _MISTAKES as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if message := missing_extra(error, "this command"):
                raise click.ClickException(message) from error
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pyvfio-user")
def main() -> None:
    """PCIe devices in Python over vfio-user, and guests that exercise every Arm memory type against them."""


_DEVICE_HELP = f"A device that ships ({', '.join(SHIPPED)}), or a class of your own as MODULE:CLASS."


@main.command()
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
def serve(device: str, path: Path, any_user: bool, spin_us: int | None, assumptions: Sequence[str], seed: int) -> None:
    """Serve one device on a socket, for QEMU or any other vfio-user client, until Ctrl-C.

    NAME is a device that ships (probe, upcase, bench); MODULE:CLASS is one of your own, found from the current folder.
    """
    from ..bridge.explore.served import Reordered
    from .assumptions import parse

    instance = create_device(device)
    types = [parse(each) for each in assumptions]
    shown = Reordered(instance, types, seed=seed) if types else instance
    _run(_serve_until_stopped(shown, device, path, any_user), spin_us)


async def _serve_until_stopped(device: HasEndpoint, name: str, path: Path, any_user: bool) -> int:
    async with _served(device, path, any_user=any_user):
        click.echo(f"serving {name} on {path}; to attach it, give QEMU:")
        click.echo(f"  -device {shlex.quote(device_option(path.absolute()))}")
        await asyncio.get_running_loop().create_future()
    return 0


@contextlib.asynccontextmanager
async def _served(device: HasEndpoint, path: Path, *, any_user: bool = False) -> AsyncIterator[None]:
    from ..bridge.server import serve as serve_device

    try:
        server = serve_device(device, path, any_user=any_user)
        await server.__aenter__()
    except OSError as error:
        raise click.ClickException(f"cannot serve on {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        await server.__aexit__(None, None, None)


@main.command()
@click.argument("config")
@click.option("--device", "-d", "names", multiple=True, metavar="NAME|MODULE:CLASS", help=_DEVICE_HELP)
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
    from .provision.qemu import find_qemu

    program = find_qemu().require().path
    if only_print:
        sockets = [Path(f"{name.replace(':', '.')}.sock").absolute() for name in names]
        for name, path in zip(names, sockets, strict=True):
            click.echo(f"# first: pyvfio-user serve {shlex.quote(name)} --socket {shlex.quote(str(path))}", err=True)
        click.echo(shlex.join(machine.command(program, sockets, cpu=cpu, extra=extra)))
        return

    async def session() -> int:
        from .qemu import run_in_foreground

        with tempfile.TemporaryDirectory(prefix="pyvfio-user-") as folder:
            sockets = [Path(folder) / f"{number}.sock" for number in range(len(devices))]
            async with contextlib.AsyncExitStack() as stack:
                for device, path in zip(devices, sockets, strict=True):
                    await stack.enter_async_context(_served(device, path))
                options = stack.enter_context(_traced(program, trace)) if trace else []
                command = machine.command(program, sockets, cpu=cpu, extra=[*options, *extra])
                click.echo(f"$ {shlex.join(command)}", err=True)
                return await run_in_foreground(command)

    _run(session())


@contextlib.contextmanager
def _traced(program: Path, path: Path) -> Iterator[list[str]]:
    """Record into a file what QEMU writes when it is given the options; say at the end how much."""
    from .tracing import Recorded, Tracer, recording, require_api

    require_api(program)
    _make_room(path)
    with Tracer() as tracer:
        said = Recorded()
        try:
            with recording(tracer, path, said):
                yield tracer.options
        finally:
            click.echo(f"trace: {said.events:,} events in {path}", err=True)
            if said.lost:
                click.echo(f"trace: {said.lost:,} more were lost: they came faster than they were written", err=True)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--symbols",
    "-s",
    "symbol_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="ELF|MAP",
    help="Names functions: an ELF, a System.map, or a copy of the guest's /proc/kallsyms; repeatable.",
)
@click.option("--bar", "bars", multiple=True, type=click.IntRange(0, 5), help="Only this BAR (default: all).")
@click.option("--config", is_flag=True, help="Configuration space, too.")
@click.option("--functions", is_flag=True, help="One line for all accesses of a function to the same BAR and type.")
def trace(file: Path, symbol_files: Sequence[Path], bars: Sequence[int], config: bool, functions: bool) -> None:
    """Show a trace that `qemu --trace` recorded: who accessed what, as which memory type, with which barriers between.

    S1 is the guest's stage 1, S2 the MemAttr of its stage 2 (a prime: FWB=1), type what the architecture makes of both.
    """
    from ..bridge.stream import read_trace
    from .report.trace import chosen, show_events, show_functions, show_summary
    from .symbols import load_symbols

    symbols = load_symbols(symbol_files)
    events = list(read_trace(file))
    shown = list(chosen(events, config=config, bars=frozenset(bars)))
    show = show_functions if functions else show_events
    show(shown, symbols, _console())
    show_summary(file, events, len(shown), _console())


@main.command()
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
    from .matrix_view import view_matrix

    _make_room(json_file, page)

    async def session() -> int:
        found = await view_matrix(schemes, cpus, ranges, json=json_file, page=page, console=_console())
        return 1 if found.problems else 0

    _run(session())


@main.command()
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
    from .kernels import look_at

    _make_room(json_file)
    _run(look_at(kernels, modules, config, expect, cpu, json_file, _console()))


@main.command()
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
    from .push_run import Push, run_push
    from .report.push import show
    from .workload import Barrier, Idiom

    _make_room(json_file)

    async def session() -> int:
        wanted = Push(cpu, window, Idiom[idiom.upper()], Barrier[barrier.upper()], count)
        report = await run_push(wanted)
        show(report, _console())
        if json_file is not None:
            json_file.write_bytes(report.to_json())
            click.echo(f"JSON: {json_file}")
        return 1 if report.disagrees else 0

    _run(session())


@main.command()
def machines() -> None:
    """List the machines that ship: name, and the config file to copy for one of your own."""
    for name in config_names():
        click.echo(f"{name}\t{load_config(name).path}")


@main.command()
def doctor() -> None:
    """Show what was found of what the guests need, where, and which version; exit status 1 if anything is missing."""
    from .doctor import examine, report

    if not report(examine(), _console()):
        raise SystemExit(1)


@main.command()
@click.option("--quiet", is_flag=True, help="Say nothing when nothing had to be done.")
def setup(quiet: bool) -> None:
    """Fetch what is missing of what the guests need (QEMU) into the user's cache, without root."""
    from .provision.compiler import find_compiler
    from .provision.progress import Progress
    from .provision.qemu import provide_qemu

    qemu = provide_qemu(Progress())
    compiler = find_compiler()
    if not quiet:
        click.echo(f"QEMU {qemu.version}: {qemu.path}")
        click.echo(f"{compiler.kind} {compiler.version}: {shlex.join(compiler.command)}")


def _make_room(*files: Path | None) -> None:
    """Make the folders, and the files empty: one that cannot be written is said before the run, not after it."""
    for path in filter(None, files):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from error


def _console() -> Any:
    """Return a console for standard output that does not fold what a program reads."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240)


def _run(session: Any, spin_us: int | None = None) -> None:
    """Run a coroutine on the bridge's own event loop; SIGTERM cancels it, as Ctrl-C does. Exits with its result."""
    from ..bridge.loop import SPIN_US, run

    async def bounded() -> int:
        task = asyncio.current_task()
        assert task is not None
        terminated = False

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        try:
            result: int = await session
        except asyncio.CancelledError:
            if terminated:
                return _TERMINATED
            raise
        return result

    raise SystemExit(run(bounded(), spin_us=SPIN_US if spin_us is None else spin_us))
