"""What the pages share: how their templates become one file that needs nothing else."""

from __future__ import annotations

from typing import Any

import jinja2
import msgspec
from markupsafe import Markup


def render_page(template: str, **values: Any) -> str:
    """The page that a template of this folder makes of the values; text in them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyvfio_user.guest.report", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**values)


def inline(value: Any) -> Markup:
    """JSON that is safe inside a script element: no markup can begin in it."""
    text = msgspec.json.encode(value).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return Markup(text)
