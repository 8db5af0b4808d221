"""The timeline's page, as a browser draws it: boxes in lanes, arrows from box to box, and what is said of each."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.async_api import Page

from pyvfio_user.bridge.explore.card import Card
from pyvfio_user.bridge.timeline import Arrow, Box, How, Lane, LaneKind, Style, Timeline
from pyvfio_user.guest.report import litmus
from pyvfio_user.guest.report import timeline as report

from ..timelines import buffered, failing
from .conftest import Open
from .drawn import Box as Place
from .drawn import box, boxes, colours

pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDE = (1900, 1000)


@pytest.fixture(scope="module")
def card() -> Card:
    """A failure with a device that interrupts."""
    return failing()


class Ends(NamedTuple):
    """The ends of an arrow on the screen."""

    x1: float
    y1: float
    x2: float
    y2: float


async def drawn_boxes(page: Page) -> dict[int, Place]:
    """The boxes that are in the document, by number; all at one moment, for scrolling brings others."""
    found = await page.locator(".box").evaluate_all(
        """found => found.map(each => {
          const { left, top, right, bottom } = each.querySelector("rect").getBoundingClientRect();
          return [Number(each.dataset.box), [left, top, right, bottom]];
        })"""
    )
    return {number: Place(*place) for number, place in found}


async def drawn_arrows(page: Page) -> dict[int, Ends]:
    """The arrows that are in the document, by number."""
    found = await page.locator("path.arrow").evaluate_all(
        """found => found.map(path => {
          const at = length => path.getPointAtLength(length).matrixTransform(path.getScreenCTM());
          const [start, end] = [at(0), at(path.getTotalLength())];
          return [Number(path.dataset.arrow), [start.x, start.y, end.x, end.y]];
        })"""
    )
    return {number: Ends(*ends) for number, ends in found}


def check_boxes(timeline: Timeline, found: dict[int, Place]) -> None:
    """Lanes are columns from left to right, apart; steps go down; nothing in a lane covers another."""
    lanes: dict[int, list[tuple[int, Place]]] = defaultdict(list)
    for number, place in found.items():
        lanes[timeline.boxes[number].lane].append((timeline.boxes[number].start, place))
    edges = [(min(p.left for _, p in lanes[lane]), max(p.right for _, p in lanes[lane])) for lane in sorted(lanes)]
    assert all(one[1] < two[0] for one, two in pairwise(edges))
    for lane, (left, right) in zip(sorted(lanes), edges, strict=True):
        assert all(abs(p.left - left) < 0.5 and abs(p.right - right) < 0.5 for _, p in lanes[lane])
        places = [place for _, place in sorted(lanes[lane], key=lambda each: each[0])]
        assert all(one.bottom <= two.top for one, two in pairwise(places))
    everything = sorted(found.items(), key=lambda each: timeline.boxes[each[0]].start)
    tops = [place.top for _, place in everything]
    assert tops == sorted(tops)


def check_arrows(timeline: Timeline, found: dict[int, Place], arrows: dict[int, Ends]) -> None:
    """Each arrow leaves the right edge of its source, and reaches the left edge of its target, at its steps."""
    for number, (x1, y1, x2, y2) in arrows.items():
        arrow = timeline.arrows[number]
        source, target = timeline.boxes[arrow.source], timeline.boxes[arrow.target]
        for at, (x, edge), y, step, of in (
            (arrow.source, (x1, "right"), y1, arrow.leaves, source),
            (arrow.target, (x2, "left"), y2, arrow.reaches, target),
        ):
            if at not in found:
                continue  # it is not in view
            place = found[at]
            assert abs(x - getattr(place, edge)) <= 1.5
            row = (place.bottom - place.top + 3) / (of.end - of.start)
            assert abs(y - (place.top - 1.5 + (step - of.start + 0.5) * row)) <= 1


@pytest.mark.parametrize("name", ["buffered", "failing"])
async def test_boxes_and_arrows_are_where_they_belong(open_page: Open, card: Card, name: str, shots: Path) -> None:
    timeline = buffered() if name == "buffered" else card.timeline
    page = await open_page(report.render(timeline), size=WIDE)
    found, arrows = await drawn_boxes(page), await drawn_arrows(page)
    assert found.keys() == set(range(len(timeline.boxes)))
    assert arrows.keys() == set(range(len(timeline.arrows)))
    check_boxes(timeline, found)
    check_arrows(timeline, found, arrows)
    heads = await boxes(page.locator(".heads > div"))
    for number, place in found.items():
        assert abs(heads[timeline.boxes[number].lane].left - place.left) < 1
        assert place.top >= heads[0].bottom
    await page.screenshot(path=shots / f"timeline-{name}.png")


async def test_each_box_says_what_it_is(open_page: Open, card: Card) -> None:
    timeline = card.timeline
    page = await open_page(report.render(timeline), size=WIDE)
    texts = await page.locator(".box").evaluate_all("found => found.map(e => [e.dataset.box, e.textContent])")
    for number, text in texts:
        made = timeline.boxes[int(number)]
        held = [fill.bytes for fill in timeline.fills if fill.lane == made.lane and made.start <= fill.step < made.end]
        filled = "".join(map(str, held)) if made.style is Style.HELD else ""
        assert text == filled + made.label + made.tag
    heads = await page.locator(".heads > div").all_text_contents()
    assert heads == [lane.name + lane.how.value for lane in timeline.lanes]
    assert await page.locator(".subtitle").inner_text() == timeline.subtitle
    assert await page.locator(".note").all_inner_texts() == timeline.notes
    assert "rows are an order, not durations" in await page.locator(".bar").inner_text()


async def test_a_buffer_fills_from_store_to_store(open_page: Open) -> None:
    timeline = buffered()
    page = await open_page(report.render(timeline), size=WIDE)
    lane = next(at for at, each in enumerate(timeline.lanes) if each.capacity)
    held = next(at for at, each in enumerate(timeline.boxes) if each.lane == lane)
    within = page.locator(f'[data-box="{held}"] .amount')
    amounts = await within.evaluate_all("found => found.map(each => Number(each.dataset.bytes))")
    of = timeline.boxes[held]
    assert amounts == [fill.bytes for fill in timeline.fills if fill.lane == lane and of.start <= fill.step < of.end]
    whole = await box(page.locator(f'[data-box="{held}"] > rect:first-child'))
    for amount, place in zip(amounts, await boxes(within), strict=True):
        assert place.left - whole.left < 2 and whole.top <= place.top < place.bottom <= whole.bottom
        assert abs((place.right - place.left) / (whole.right - whole.left - 2) - amount / 64) < 0.01


async def test_pointing_at_a_box_tells_of_it_and_of_what_led_to_it(open_page: Open, card: Card, shots: Path) -> None:
    timeline = card.timeline
    page = await open_page(report.render(timeline), size=WIDE, dark=True)
    at = next(number for number, each in enumerate(timeline.boxes) if each.style is Style.INTERRUPT)
    tip = page.locator(".tip")
    assert not await tip.is_visible()
    await page.locator(f'[data-box="{at}"]').hover()
    text = await tip.inner_text()
    assert text.splitlines()[0] == "interrupt 0, not sent"
    assert "no: the guest enabled no interrupt of this kind" in text and "interrupts (replayed)" in text
    place = await box(tip)
    assert min(place.left, place.top) >= 0 and place.right <= WIDE[0] and place.bottom <= WIDE[1]
    chain = [
        "3 store bar0+0x0 4",
        "bar0+0x0",
        "MWr bar0+0x0 1DW f/0",
        "send of Control.bell[0] 0x1",
        "interrupt 0, not sent",
    ]
    first = next(number for number, each in enumerate(timeline.boxes) if each.label == chain[0])
    for pointed in (first, at):  # and of what came of it
        await page.locator(f'[data-box="{pointed}"]').hover()
        hot = await page.locator(".box.hot").evaluate_all("found => found.map(each => Number(each.dataset.box))")
        assert [timeline.boxes[number].label for number in sorted(hot)] == chain
        assert await page.locator(".arrow.hot").count() == 4
    await page.screenshot(path=shots / "timeline-hover-dark.png")
    await page.mouse.move(5, 5)
    assert not await tip.is_visible()
    assert await page.locator(".hot:not(marker)").count() == 0


async def test_the_keyboard_reaches_a_box(open_page: Open) -> None:
    page = await open_page(report.render(buffered()), size=WIDE)
    await page.locator(".view").focus()
    await page.keyboard.press("Tab")
    assert (await page.locator(".tip").inner_text()).splitlines()[0] == "store bar0+0x40 8"


async def test_a_long_one_has_in_the_document_what_is_in_view(open_page: Open, shots: Path) -> None:
    timeline = buffered(250)
    assert timeline.events == 5_000
    page = await open_page(report.render(timeline), size=WIDE)
    before = await drawn_boxes(page)
    assert 0 in before and len(before) < 400
    view = page.locator(".view")
    height = await view.evaluate("view => view.scrollHeight")
    assert abs(height - 26 * timeline.steps - 44) < 40
    for share in (0.5, 1.0):
        await view.evaluate("(view, share) => { view.scrollTop = share * view.scrollHeight; }", share)
        await page.wait_for_function('first => !document.querySelector(`[data-box="${first}"]`)', arg=min(before))
        found, arrows = await drawn_boxes(page), await drawn_arrows(page)
        assert len(found) < 400
        before = found
        check_boxes(timeline, found)
        check_arrows(timeline, found, arrows)
        window = await box(view)
        seen = [number for number, place in found.items() if place.top < window.bottom and place.bottom > window.top]
        steps = {timeline.boxes[number].start for number in seen}
        assert {each for each in range(min(steps), max(steps)) if each not in steps} <= {
            box.start + n for box in timeline.boxes for n in range(1, box.end - box.start)
        }
    assert len(timeline.boxes) - 1 in found
    await page.screenshot(path=shots / "timeline-end.png")


async def test_all_that_is_in_view_is_drawn_wherever_one_scrolls(open_page: Open) -> None:
    timeline = buffered(20)
    timeline.lanes.append(Lane(LaneKind.DEVICE, "device", How.SEEN))
    timeline.boxes.append(Box(len(timeline.lanes) - 1, 5, timeline.steps, "all the time", Style.HANDLER))
    timeline.arrows.append(Arrow(0, 0, len(timeline.boxes) - 1, timeline.steps - 1))
    page = await open_page(report.render(timeline), size=WIDE)
    for top in range(0, 26 * timeline.steps - 900, 990):
        first, last, shown, arrows = await page.evaluate(
            """async top => {
              const view = document.querySelector(".view");
              view.scrollTop = top;
              await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
              const all = name => [...document.querySelectorAll(name)];
              const numbers = (name, key) => all(name).map(each => Number(each.dataset[key]));
              return [view.scrollTop / 26, (view.scrollTop + view.clientHeight) / 26 - 3, numbers(".box", "box"),
                numbers(".arrow", "arrow")];
            }""",
            top,
        )
        assert len(shown) < len(timeline.boxes)
        seen = {at for at, each in enumerate(timeline.boxes) if each.start < last and each.end > first}
        assert seen <= set(shown)
        assert {at for at, each in enumerate(timeline.arrows) if each.leaves < last and each.reaches > first} <= set(
            arrows
        )


async def test_each_kind_of_lane_is_drawn_apart(open_page: Open) -> None:
    timeline = Timeline("all", "kinds")
    for at, kind in enumerate(LaneKind):
        timeline.lanes.append(Lane(kind, kind.value, How.SEEN))
        timeline.boxes.append(Box(at, at, at + 1, kind.value, Style.MEMORY))
    page = await open_page(report.render(timeline), size=WIDE)
    found = await drawn_boxes(page)
    assert len(found) == len(LaneKind)
    check_boxes(timeline, found)


async def test_zooming_keeps_the_middle(open_page: Open, shots: Path) -> None:
    timeline = buffered(20)
    page = await open_page(report.render(timeline), size=WIDE)
    view = page.locator(".view")
    await view.evaluate("view => { view.scrollTop = 4000; }")
    middle = (
        "view => (view.scrollTop + view.clientHeight / 2) / (document.querySelector('.timeline svg').clientHeight / %d)"
    )
    before = await view.evaluate(middle % timeline.steps)
    await page.locator(".out").click()
    await page.locator(".out").click()
    assert await page.locator(".box text").count() > 0
    await page.locator(".out").click()
    assert await page.locator(".box text").count() == 0  # too low for words
    assert abs(await view.evaluate(middle % timeline.steps) - before) < 3
    check_arrows(timeline, {}, await drawn_arrows(page))
    await page.locator(".all").click()
    rows = await view.evaluate("view => view.scrollHeight")
    assert rows <= 2 * timeline.steps + 80
    await page.screenshot(path=shots / "timeline-fit.png")
    for _ in range(9):
        await page.locator(".in").click()
    assert await view.evaluate("view => view.scrollHeight") > 34 * timeline.steps


async def test_what_is_left_out_is_said(open_page: Open) -> None:
    timeline = buffered()
    timeline.left_out = 12_345
    page = await open_page(report.render(timeline))
    assert await page.locator(".left-out").inner_text() == ("12,345 events are left out: only the first 20 are shown.")


@pytest.mark.parametrize("dark", [False, True])
async def test_it_is_drawn_in_colours_that_differ(open_page: Open, card: Card, dark: bool) -> None:
    page = await open_page(report.render(card.timeline), size=WIDE, dark=dark)
    found = await colours(page, await page.locator(".view").screenshot())
    store, tlp, handler = ("1f3a5f", "14484a", "39305e") if dark else ("cfe0f8", "bfe6e3", "dcd6f3")
    assert min(found[store], found[tlp], found[handler]) > 1000
    assert found.most_common(1)[0][0] == ("16181c" if dark else "fbfbfa")


async def test_names_are_text_and_nothing_else(open_page: Open) -> None:
    page = await open_page(report.render(buffered()))
    assert await page.locator("h1").inner_text() == "bursts & <doorbells>"
    timeline = buffered()
    timeline.boxes[0].label = "</script><img src=x onerror=alert(1)>"
    timeline.boxes[0].details["by"] = "<b>bold</b>"
    page = await open_page(report.render(timeline))
    await page.locator('[data-box="0"]').hover()
    assert "<b>bold</b>" in await page.locator(".tip").inner_text()
    assert (await page.locator(".tip strong").inner_text()) == timeline.boxes[0].label
    assert await page.locator("img, b").count() == 0


async def test_the_litmus_card_s_page_has_the_timeline_of_its_failing_order(
    open_page: Open, card: Card, shots: Path
) -> None:
    page = await open_page(litmus.render(card), size=(1500, 900))
    found, arrows = await drawn_boxes(page), await drawn_arrows(page)
    assert found.keys() == set(range(len(card.timeline.boxes)))
    check_boxes(card.timeline, found)
    check_arrows(card.timeline, found, arrows)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 1500
    await page.screenshot(path=shots / "litmus-timeline.png", full_page=True)


async def test_the_page_needs_nothing_else() -> None:
    text = report.render(buffered())
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(|<link|<img|src=", text)
    outside = set(re.findall(r"(?:https?:)?//[a-z.]+[^\s\"]*", text))
    assert outside == {"http://www.w3.org/2000/svg"}  # a namespace
    (data,) = re.findall(r'id="timeline-data">(.*?)</script>', text, re.DOTALL)
    assert len(json.loads(data)["boxes"]) == len(buffered().boxes)
