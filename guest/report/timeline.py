"""A timeline as a page: one file that needs nothing else."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from ...bridge.timeline import Timeline
from .page import inline, render_page


def data(timeline: Timeline) -> Markup:
    """What the page's script draws, for a script element."""
    found: dict[str, Any] = {
        "lanes": [(lane.kind.name.lower(), lane.name, lane.how.value, lane.capacity) for lane in timeline.lanes],
        "boxes": [
            (box.lane, box.start, box.end, box.label, box.style.value, list(box.details.items()), box.tag)
            for box in timeline.boxes
        ],
        "arrows": timeline.arrows,
        "fills": timeline.fills,
    }
    return inline(found)


def render(timeline: Timeline) -> str:
    """The timeline as a page."""
    return render_page("timeline.html.j2", timeline=timeline, data=data(timeline))
