"""The HTML report: one file that needs nothing else, with the run's JSON document inside."""

from __future__ import annotations

from ...bridge.attributes import decode_stage2
from ...bridge.errors import DefinitionError
from ..results import Matrix
from . import HONESTY
from .page import inline, render_page

_SHORT = (("Non-cacheable", "NC"), ("Write-Through", "WT"), ("Write-Back", "WB"))


def _stage2(fwb: bool) -> dict[str, str]:
    """The names, shortened, of the stage-2 MemAttr encodings that are not reserved."""
    names: dict[str, str] = {}
    for memattr in range(16):
        try:
            found = decode_stage2(memattr, fwb)
        except DefinitionError:  # reserved
            continue
        name = found.type.name + (", forced" if found.forces else "")
        for long, short in _SHORT:
            name = name.replace(long, short)
        names[f"{memattr:x}"] = name
    return names


def render(matrix: Matrix, *, types: dict[str, str], questions: dict[str, str]) -> str:
    """The report as a page; ``types`` names the attribute bytes, ``questions`` the scorecard's columns."""
    labels = {"types": types, "questions": questions, "stage2": [_stage2(False), _stage2(True)]}
    return render_page("report.html.j2", honesty=HONESTY, data=inline(matrix), labels=inline(labels))
