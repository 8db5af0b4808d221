"""The HTML report: one file that needs nothing else, with the run's JSON document inside."""

from __future__ import annotations

from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from ...bridge.attributes import decode_stage2
from ...bridge.errors import DefinitionError
from ..results import Matrix
from . import HONESTY


def _inline(value: Any) -> Markup:
    """JSON that is safe inside a script element: no markup can begin in it."""
    text = msgspec.json.encode(value).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return Markup(text)


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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyvfio_user.guest.report", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    labels = {"types": types, "questions": questions, "stage2": [_stage2(False), _stage2(True)]}
    return environment.get_template("report.html.j2").render(
        honesty=HONESTY, data=_inline(matrix), labels=_inline(labels)
    )
