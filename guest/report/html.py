"""The HTML report: one file that needs nothing else, with the run's JSON document inside."""

from __future__ import annotations

from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from ..results import Matrix
from . import HONESTY


def _inline(value: Any) -> Markup:
    """JSON that is safe inside a script element: no markup can begin in it."""
    text = msgspec.json.encode(value).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return Markup(text)


def render(matrix: Matrix, *, types: dict[str, str], questions: dict[str, str]) -> str:
    """The report as a page; ``types`` names the attribute bytes, ``questions`` the scorecard's columns."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyvfio_user.guest.report", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    labels = {"types": types, "questions": questions}
    return environment.get_template("report.html.j2").render(
        honesty=HONESTY, data=_inline(matrix), labels=_inline(labels)
    )
