"""The table and the JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from .measure import LIMIT, OURS, Figures
from .rows import Unit
from .whole import Found


def show(console: Console, figures: Sequence[Figures], others: Sequence[Found], peers: Sequence[str]) -> None:
    """Prints both tables, and what to think of them."""
    table = Table(title="against the limit: medians, and ratios of repetitions taken in turn")
    for name in ("operation", "placement"):
        table.add_column(name)
    for name in (LIMIT, OURS, "ratio [min..max]", *peers, "redone"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("to reach")
    table.add_column("met")
    for each in figures:
        table.add_row(
            each.row.name,
            each.row.placement.value + (" *" if each.disturbed else ""),
            _value(each, LIMIT),
            _value(each, OURS),
            _ratio(each, OURS),
            *(f"{_value(each, peer)} {_ratio(each, peer)}" for peer in peers),
            str(each.redone or ""),
            each.row.target,
            _met(each.met),
        )
    console.print(table)
    whole = Table(title="the whole")
    for name in ("what", "placement", "found", "spread", "to reach", "met"):
        whole.add_column(name)
    for one in others:
        whole.add_row(one.name, one.where, one.value, one.spread, one.target, _met(one.met))
    console.print(whole)
    if any(each.disturbed for each in figures):
        console.print("* disturbed: others used the CPUs all the time; on one core these are rates of CPU time.")
    for each in figures:
        for name, failure in each.failures.items():
            console.print(f"{each.row.name}: {name} failed: {failure}", style="yellow")


def write(path: Path, figures: Sequence[Figures], others: Sequence[Found]) -> None:
    """Writes all samples and what came of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "architecture": platform.machine()},
        "rows": [
            {
                "name": each.row.name,
                "operation": each.row.operation,
                "placement": each.row.placement.value,
                "unit": each.row.unit.value,
                "values": {name: each.value(name) for name in each.samples},
                "ratios": each.ratios(OURS),
                "by_cpu_time": each.by_cpu,
                "disturbed": each.disturbed,
                "redone": each.redone,
                "target": each.row.target,
                "met": each.met,
                "failures": each.failures,
                "samples": {name: [asdict(sample) for sample in taken] for name, taken in each.samples.items()},
            }
            for each in figures
        ],
        "whole": [asdict(one) for one in others],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def _value(figures: Figures, name: str) -> str:
    value = figures.value(name)
    if value is None:
        return "failed" if name in figures.failures else "-"
    return f"{value:,.0f}" if figures.row.unit is Unit.RATE else f"{value:.1f} {figures.row.unit.value}"


def _ratio(figures: Figures, name: str) -> str:
    ratios = figures.ratios(name)
    if figures.row.unit is Unit.TIME:
        ratios = [1 / each for each in ratios]
    return f"{median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]" if ratios else "-"


def _met(met: bool | None) -> str:
    return "-" if met is None else "[green]yes[/]" if met else "[red]no[/]"
