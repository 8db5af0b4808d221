"""What the commands share: where they print, how they run, and devices that are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalogue import SHIPPED

if TYPE_CHECKING:
    from ...bridge.endpoint import HasEndpoint
    from ...bridge.timeline import Timeline

_TERMINATED = 128 + signal.SIGTERM

DEVICE_HELP = f"A device that ships ({', '.join(SHIPPED)}), or a class of your own as MODULE:CLASS."


@contextlib.asynccontextmanager
async def served(device: HasEndpoint, path: Path, *, any_user: bool = False) -> AsyncIterator[None]:
    """Serve a device while the block runs.

    Raises:
        ClickException: The socket cannot be made.
    """
    from ...bridge.server import serve as serve_device

    try:
        server = serve_device(device, path, any_user=any_user)
        await server.__aenter__()
    except OSError as error:
        raise click.ClickException(f"cannot serve on {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        await server.__aexit__(None, None, None)


def make_room(*files: Path | None) -> None:
    """Make the folders, and the files empty: one that cannot be written is said before the run, not after it."""
    for path in filter(None, files):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from error


def timeline_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that draws a timeline: `page`, `perfetto` and `most`."""
    file = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--html", "page", type=file, help="Draw a timeline into this page, to look at in a browser."),
        click.option("--perfetto", type=file, help="Draw a timeline into this file, for Perfetto's viewer."),
        click.option(
            "--most",
            type=click.IntRange(1),
            metavar="N",
            help="Events in a timeline; those after them are counted. Default: 10,000.",
        ),
    ):
        command = option(command)
    return command


def prepare_timeline(page: Path | None, perfetto: Path | None) -> None:
    """Say before a run what would keep `write_timeline` from writing after it; raises as that does."""
    for file, needs in ((page, "jinja2"), (perfetto, "perfetto")):
        if file is not None:
            importlib.import_module(needs)
    make_room(page, perfetto)


def write_timeline(timeline: Timeline, page: Path | None, perfetto: Path | None) -> None:
    """Write a timeline into these files, and say so.

    Raises:
        ClickException: A file cannot be written.
        ModuleNotFoundError: The extra `guest` is not installed.
    """
    if page is not None:
        from ..report.timeline import render

        _write(page, render(timeline).encode())
    if perfetto is not None:
        from ..report.perfetto import trace

        _write(perfetto, trace(timeline))
    shown = f"timeline: {timeline.events:,} events in {' and '.join(str(each) for each in (page, perfetto) if each)}"
    click.echo(shown + (f", {timeline.left_out:,} left out" if timeline.left_out else ""), err=True)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from error


def console() -> Any:
    """Return a console for standard output that does not fold what a program reads."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240)


def run(session: Any, spin_us: int | None = None) -> None:
    """Run a coroutine on the bridge's own event loop; SIGTERM cancels it, as Ctrl-C does. Exits with its result."""
    from ...bridge import loop

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

    raise SystemExit(loop.run(bounded(), spin_us=loop.SPIN_US if spin_us is None else spin_us))
