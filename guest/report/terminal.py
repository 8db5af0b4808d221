"""The tables of a matrix run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..layout import GAP
from ..results import Cell, HostCell, Matrix, Verdict
from . import HONESTY, orders
from .kernel import show_kernels

STYLE = {
    Verdict.AGREE: "green",
    Verdict.KNOWN_DEVIATION: "yellow",
    Verdict.DISAGREE: "bold white on red",
    Verdict.UNOBSERVABLE: "dim",
    Verdict.REFUSED: "magenta",
}
_LEGEND = (
    ("green", "agree"),
    ("yellow", "known deviation of QEMU (seen≠architecture; · in the accesses)"),
    ("bold white on red", "disagree (! in the accesses)"),
    ("magenta", "refused by the scheme"),
    ("dim", "unobservable"),
)


_LANES = {"el2": "*", "kvm": "+"}
"""How the scorecard marks what a lane has seen."""


def show(matrix: Matrix, console: Console, questions: dict[str, str]) -> None:
    """Print the kernels, the tables, the scorecard, the counts and what disagrees."""
    show_kernels(matrix, console)
    shown = [cell for cell in matrix.cells if cell.case != "nothing" and not cell.range.startswith(GAP)]
    for setting, group in groupby(shown, key=_setting):
        hosts = [mapping for mapping in matrix.host if _setting(mapping) == setting]
        console.print(_schemes(matrix, list(group), hosts))
    if matrix.orders is not None:
        console.print(orders.LEGEND, style="dim", highlight=False, markup=False)
        console.print(orders.table(matrix.orders))
        for line in orders.notes(matrix.orders):
            console.print(line, style="dim", highlight=False, markup=False)
    if matrix.scorecard:
        console.print(_scorecard(matrix, questions))
        for line in _legend(matrix, questions):
            console.print(line, style="dim", highlight=False, markup=False)
    if len(shown) < len(matrix.cells):
        console.print(
            "Only in the JSON and HTML: a VMM that asks for nothing, pages that no range claims.", style="dim"
        )
    if matrix.cells:
        console.print(Text("  ").join(Text(text, style) for style, text in _LEGEND))
        console.print(f"[dim]{HONESTY}[/dim]")
        console.print(summary(matrix))
    for line in matrix.vanished:
        console.print(Text.assemble(("known deviation not seen any more:", "yellow"), f" {line}"))
    for line in matrix.problems[:40]:
        console.print(Text.assemble(("disagree:", "bold red"), f" {line}"), soft_wrap=True)
    if len(matrix.problems) > 40:
        console.print(f"[bold red]... and {len(matrix.problems) - 40} more[/bold red] (the JSON file has all)")


def summary(matrix: Matrix) -> str:
    """One line of counts."""

    def counts(cells: list[Verdict]) -> str:
        return ", ".join(f"{cells.count(verdict)} {verdict}" for verdict in Verdict if verdict in cells)

    experiments, transactions = matrix.provenance["experiments"], matrix.provenance["transactions"]
    return (
        f"{len(matrix.cells)} cells: attributes {counts([cell.verdict for cell in matrix.cells])}; accesses "
        f"{counts([cell.accesses for cell in matrix.cells])}. {experiments:,} experiments, {transactions:,} "
        f"transactions at the device, {matrix.provenance['seconds']:.1f} s."
    )


def _label(cell: Cell) -> Text:
    if cell.verdict is Verdict.REFUSED:
        return Text("refused", STYLE[cell.verdict])
    if cell.verdict is Verdict.UNOBSERVABLE:
        return Text("-", STYLE[cell.verdict])
    text = cell.observed or "-"
    if cell.observed != cell.architecture:
        text += f"≠{cell.architecture}"
    text += {Verdict.KNOWN_DEVIATION: "·", Verdict.DISAGREE: "!"}.get(cell.accesses, "")
    style = STYLE[Verdict.DISAGREE if cell.accesses is Verdict.DISAGREE else cell.verdict]
    return Text(text, style)


def _host(mapping: HostCell | None) -> str:
    """The type of the host's own mapping, with a mark when something about it disagrees."""
    if mapping is None or mapping.type is None:
        return "-"
    return mapping.type + ("!" if Verdict.DISAGREE in (mapping.verdict, mapping.accesses) else "")


def _setting(cell: Cell | HostCell) -> str:
    kernel = f", Linux {cell.kernel}" if cell.kernel else ""
    return f"lane {cell.lane}{kernel}, -cpu {cell.cpu}, FWB={cell.fwb}"


def _schemes(matrix: Matrix, cells: list[Cell], host: list[HostCell]) -> Table:
    """One row a scheme and group of ranges that came out alike, one column a stage-1 type."""
    types = list(dict.fromkeys(cell.s1 for cell in cells))
    table = Table(title=f"{_setting(cells[0])}: effective type by the guest's stage 1", title_justify="left")
    modelled = orders.HEADINGS if matrix.orders else ()
    for heading in ("scheme", "ranges", "host", "S2", *(f"{byte}\n{orders.SHORT[byte]}" for byte in types), *modelled):
        table.add_column(heading, no_wrap=heading != "ranges")
    hosts = {(each.scheme, each.case, each.range): each for each in host}
    for (scheme, case), group in groupby(cells, key=lambda cell: (cell.scheme, cell.case)):
        rows: dict[tuple[str, ...], tuple[list[str], list[Text]]] = {}
        for (name, s2), members in groupby(group, key=lambda cell: (cell.range, cell.s2)):
            own = list(members)
            mapping = hosts.get((scheme, case, name))
            labels = [*map(_label, own), *map(Text, orders.columns(matrix, own, mapping))]
            key = (_host(mapping), s2 or "-", *(f"{t.plain}{t.style}" for t in labels))
            rows.setdefault(key, ([], labels))[0].append(name)
        for index, (key, (names, labels)) in enumerate(rows.items()):
            end = index == len(rows) - 1
            title = scheme + (" (after the change)" if case == "changed" else "")
            table.add_row(title if index == 0 else "", ", ".join(names), key[0], key[1], *labels, end_section=end)
    return table


def _scorecard(matrix: Matrix, questions: dict[str, str]) -> Table:
    """One row a scheme, one column a question; the answers in short, with a mark where they were seen."""
    table = Table(title="scorecard (seen in this run: * in el2, + in kvm; otherwise modelled)", title_justify="left")
    table.add_column("scheme", no_wrap=True)
    for key in questions:
        table.add_column(key.replace("-", "\n"), no_wrap=True)
    for scheme, answers in matrix.scorecard.items():
        cells = (answers[key] for key in questions)
        table.add_row(scheme, *(short(each["value"]) + _marks(each) for each in cells))
    return table


def _marks(answer: dict[str, Any]) -> str:
    return "".join(mark for lane, mark in _LANES.items() if lane in answer.get("lane", "").split(", "))


def show_claims(matrix: Matrix, console: Console) -> None:
    """Print each answer that was seen, and the names of the probes that it rests on."""
    for scheme, answers in matrix.scorecard.items():
        for key, answer in answers.items():
            if answer["probes"]:
                console.print(f"{scheme}: {key}: {short(answer['value'])}, seen in lane {answer['lane']} by")
                for probe in answer["probes"]:
                    console.print(f"  {probe}", highlight=False, markup=False)


def _legend(matrix: Matrix, questions: dict[str, str]) -> Iterator[str]:
    """What each column of the scorecard asks, and what its parts are."""
    for key, text in questions.items():
        value = next(iter(matrix.scorecard.values()))[key]["value"]
        yield f"  {key}: {text}" + (f" ({', '.join(value)})" if isinstance(value, dict) else "")


def short(value: Any) -> str:
    """An answer's value in a few characters: y and n, counts of lists, parts of a record one after the other."""
    if isinstance(value, bool):
        return "y" if value else "n"
    if isinstance(value, dict):
        parts = [short(each) for each in value.values()]
        return ("" if all(len(part) == 1 for part in parts) else "/").join(parts)
    if isinstance(value, list):
        return str(len(value))
    return "-" if value is None else str(value)
