"""What the commands share: where they print, how they run, and devices that are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalogue import SHIPPED

if TYPE_CHECKING:
    from ...bridge.endpoint import HasEndpoint

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
