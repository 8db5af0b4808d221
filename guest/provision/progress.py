"""How a set-up says what it is doing: a moving bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_LONG_SECONDS = 15.0


class Progress:
    """Shows the steps of a set-up, on standard error unless a console is given."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)

    def note(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[float], None]]:
        """Show one step while the block runs; yields a function that takes the share done, 0.0 to 1.0."""
        start = time.monotonic()
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            with Bar(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(title, total=1.0)
                yield lambda share: bar.update(task, completed=share)
        else:
            self.note(f"{title} ...")
            yield self._quarters(title, start)
        self.note(f"{title}: {time.monotonic() - start:.1f} s")

    def _quarters(self, title: str, start: float) -> Callable[[float], None]:
        """A function that prints a line at each quarter of a step that takes longer than some seconds."""
        due = [0.75, 0.5, 0.25]

        def share(done: float) -> None:
            if due and done >= due[-1]:
                quarter = due.pop()
                if time.monotonic() - start > _LONG_SECONDS:
                    self.note(f"{title}: {quarter:.0%}")

        return share
