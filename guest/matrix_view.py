"""Run the matrix for a person: progress while it runs, tables at the end, the reports on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..bridge.attributes import MemoryType
from .matrix import run_matrix
from .orders.answers import QUESTIONS as ORDER_QUESTIONS
from .orders.attach import Ordered
from .report import html, terminal
from .results import Matrix
from .scorecard import QUESTIONS


async def view_matrix(
    schemes: Sequence[str],
    cpus: Sequence[str],
    ranges: Sequence[str],
    *,
    orders: Ordered | None = None,
    json: Path | None,
    page: Path | None,
    console: Console,
) -> Matrix:
    """Run, show, and write the files asked for. Raises what `run_matrix` raises, and OSError for a file."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"), console=Console(stderr=True), transient=True,
    ) as bars:  # fmt: skip
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, steps: int, what: str) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=steps, what=what)
            bars.update(tasks[name], completed=done, total=steps, what=what)

        matrix = await run_matrix(schemes, cpus, ranges, orders=orders, progress=progress)
    questions = QUESTIONS if matrix.orders is None else {**QUESTIONS, **ORDER_QUESTIONS}
    terminal.show(matrix, console, questions)
    if json is not None:
        json.write_bytes(matrix.to_json())
        console.print(f"JSON: {json}", highlight=False)
    if page is not None:
        page.write_text(html.render(matrix, types=_type_names(matrix), questions=questions), encoding="utf-8")
        console.print(f"report to look at: {page}", highlight=False)
    return matrix


def _type_names(matrix: Matrix) -> dict[str, str]:
    """The architecture's names of the attribute bytes that occur."""
    cells = [*matrix.cells, *matrix.pairs]
    found = {byte for cell in cells for byte in (cell.s1, cell.architecture, cell.observed) if byte}
    found |= {cell.type for cell in matrix.host if cell.type}
    found |= {
        byte
        for pair in (matrix.orders.pairs if matrix.orders else {}).values()
        for byte in (pair.payload, pair.doorbell)
    }
    return {byte: MemoryType.parse(byte).name for byte in sorted(found)}
