"""The litmus card on a terminal, and as one HTML file that needs nothing else."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...bridge.explore.card import HONESTY, Card
from .page import render_page
from .timeline import data

_STYLE = {"broken": "bold red", "missing": "red", "fixes": "green", "counted": "dim", "rules": "dim", "notes": "dim"}
_ROW, _COLUMN, _LEFT, _TOP = 30, 170, 46, 34
"""The picture's measures, in pixels."""


def show(card: Card, console: Console) -> None:
    """Print the card: its text, section by section."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for title, lines in card.sections():
        table.add_row(title, Text("\n".join(lines), _STYLE.get(title, "")))
    console.print(table)


def render(card: Card) -> str:
    """The card as a page."""
    return render_page("litmus.html.j2", card=card, honesty=HONESTY, picture=_picture(card), data=data(card.timeline))


def _picture(card: Card) -> dict[str, object]:
    """Where each access stands in program order, on the left, and in what arrived, on the right, joined by lines."""
    left = {label: _TOP + at * _ROW for at, label in enumerate(card.made)}
    right = {label: _TOP + at * _ROW for at, block in enumerate(card.blocks) for label in block}
    return {
        "width": 2 * _LEFT + _COLUMN + 60,
        "height": _TOP + max(len(left), len(card.blocks)) * _ROW,
        "left": [(label, _LEFT - 12, y) for label, y in left.items()],
        "right": [(" + ".join(block), _LEFT + _COLUMN + 12, _TOP + at * _ROW) for at, block in enumerate(card.blocks)],
        "lines": [
            (_LEFT, left[label], _LEFT + _COLUMN, y, "astray" if label in card.astray else "kept")
            for label, y in right.items()
        ],
    }
