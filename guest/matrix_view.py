"""Run the matrix for a person: progress while it runs, tables at the end, the reports on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from ..bridge.attributes import MemoryType
from ..bridge.errors import DefinitionError
from ..bridge.schemes import SCHEMES
from .jobs import ALL_PAIRS
from .kvm.kernels import EXPECTED, cached_kernels, kernel_jobs
from .matrix import DEFAULT_CPUS, Progress, plan_jobs, run_jobs
from .orders.answers import QUESTIONS as ORDER_QUESTIONS
from .orders.attach import Ordered
from .report import html, terminal
from .results import Matrix
from .scorecard import QUESTIONS
from .worker import AnyJob

LANES = ("el2", "kvm")


def choose_jobs(
    lanes: Sequence[str],
    schemes: Sequence[str],
    cpus: Sequence[str],
    ranges: Sequence[str],
    kernels: Sequence[str],
) -> list[AnyJob]:
    """The jobs of a matrix. Nothing named is everything, but that kernels are not fetched unless lane kvm is named.

    Lane kvm joins when a kernel is named, or when Debian's are cached whose scheme is among those wanted.

    Raises:
        DefinitionError: There is no lane, scheme or range of that name.
        ProvisionError: There is no such kernel, or it cannot be fetched.
    """
    for name in lanes:
        if name not in LANES:
            raise DefinitionError(f"lane must be one of {', '.join(LANES)}, not {name}")
    planned = plan_jobs(schemes or (*SCHEMES, ALL_PAIRS), cpus or DEFAULT_CPUS, ranges)
    jobs: list[AnyJob] = [*planned] if not lanes or "el2" in lanes else []
    if not kernels and "kvm" in lanes:
        kernels = tuple(EXPECTED)
    elif not kernels and not lanes:
        kernels = [name for name in cached_kernels() if not schemes or EXPECTED.get(name) in (*schemes, None)]
    elif lanes and "kvm" not in lanes:
        kernels = ()
    return [*jobs, *kernel_jobs(kernels, cpus, ranges, schemes=schemes)]


@dataclass(frozen=True)
class Shown:
    """Where results go: a console, files or None; ``claims``: name the probes behind each answer of the scorecard."""

    console: Console
    json: Path | None
    page: Path | None
    claims: bool = False


async def view_jobs(
    jobs: Sequence[AnyJob], shown: Shown, *, orders: Ordered | None = None, explicit: bool = False
) -> Matrix:
    """Run, show, and write the files asked for. Raises what `run_jobs` raises, and OSError for a file."""
    with _progress() as progress:
        matrix = await run_jobs(jobs, explicit=explicit, orders=orders, progress=progress)
    questions = QUESTIONS if matrix.orders is None else {**QUESTIONS, **ORDER_QUESTIONS}
    terminal.show(matrix, shown.console, questions)
    if shown.claims:
        terminal.show_claims(matrix, shown.console)
    if shown.json is not None:
        shown.json.write_bytes(matrix.to_json())
        shown.console.print(f"JSON: {shown.json}", highlight=False)
    if shown.page is not None:
        text = html.render(matrix, types=_type_names(matrix), questions=questions)
        shown.page.write_text(text, encoding="utf-8")
        shown.console.print(f"report to look at: {shown.page}", highlight=False)
    return matrix


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each job, on standard error, gone at the end."""
    with Bars(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"), console=Console(stderr=True), transient=True,
    ) as bars:  # fmt: skip
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, steps: int, what: str) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=steps, what=what)
            bars.update(tasks[name], completed=done, total=steps, what=what)

        yield progress


def _type_names(matrix: Matrix) -> dict[str, str]:
    """The architecture's names of the attribute bytes that occur."""
    cells = [*matrix.cells, *matrix.pairs]
    found = {byte for cell in cells for byte in (cell.s1, cell.architecture, cell.observed) if byte}
    found |= {byte for cell in matrix.host for byte in (cell.type, cell.observed) if byte}
    found |= {
        byte
        for pair in (matrix.orders.pairs if matrix.orders else {}).values()
        for byte in (pair.payload, pair.doorbell)
    }
    return {byte: MemoryType.parse(byte).name for byte in sorted(found)}
