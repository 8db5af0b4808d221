"""The table of a push on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...bridge.attributes import MemoryType
from ..push_run import PushReport, PushRow
from ..workload import Barrier
from .terminal import STYLE

_UNPROMISED = "for a Normal or GRE window nothing promises this order, TCG keeps it"
_ORDER = {
    Barrier.NONE: f"there is no barrier before the doorbell: {_UNPROMISED}",
    Barrier.DMB: "DMB OSHST before the doorbell promises this order",
    Barrier.DSB: "DSB ST before the doorbell promises this order",
    Barrier.DGH: f"DGH before the doorbell is a hint only: {_UNPROMISED}",
}
_TRAPPED = "TCG makes one transaction of each access of at most 8 bytes and never gathers: no count here is a burst's."
_MAPPED = (
    "the window is memory shared with the guest: its transactions and when each entry came cannot be seen. Checked are "
    "its final contents, every entry in its slot, and the order of the doorbells."
)
_SHOWN = 5


def show(report: PushReport, console: Console) -> None:
    """Print the table, what it can and cannot say, and what disagrees."""
    push = report.push
    title = f"{push.count} entries of 64 bytes at EL0, {push.window} window, {push.idiom.name.lower()}, then a doorbell"
    table = Table(title=f"lane el2, -cpu {push.cpu}, S2 Normal-NC: {title}", title_justify="left")
    for heading in (
        "type (S1)",
        "effective (Arm)",
        "entries",
        "faults",
        "transactions/entry",
        "order",
        "µs/entry",
        "verdict",
    ):
        table.add_column(heading, no_wrap=heading != "faults")
    for row in report.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for line in (_MAPPED if push.window == "mapped" else _TRAPPED, f"order: {_ORDER[push.barrier]}."):
        console.print(line, style="dim", highlight=False)
    for note in dict.fromkeys(row.note for row in report.rows if row.note and not row.problems):
        console.print(f"known deviation of QEMU: {note}", style="yellow", highlight=False, markup=False)
    for row in report.rows:
        for problem in row.problems[:_SHOWN]:
            console.print(f"disagree: {row.s1}: {problem}", style="bold red", highlight=False, markup=False)
        if len(row.problems) > _SHOWN:
            more = len(row.problems) - _SHOWN
            console.print(f"disagree: {row.s1}: ... and {more} more (the JSON file has all)", style="bold red")


def _cells(row: PushRow) -> tuple[Text, ...]:
    faults = "none" if row.expected == row.observed == "works" else row.observed
    if (row.expected == "works") != (row.observed == "works"):
        faults = f"{'none' if row.observed == 'works' else row.observed} (expected {row.expected})"
    counts = "not visible" if row.transactions is None else "{} / {:g} / {}".format(*row.transactions)
    cells = (
        f"{row.s1} {MemoryType.parse(row.s1).name}",
        row.architecture,
        f"{row.whole}" if row.whole == row.entries else f"{row.whole} of {row.entries}",
        faults,
        counts,
        "ok" if row.ordered else "wrong",
    )
    return (*map(Text, cells), Text(str(row.verdict), STYLE[row.verdict]))
