"""The litmus card's page, as a browser draws it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvfio_user.bridge.attributes import NGNRE
from pyvfio_user.bridge.explore import explore
from pyvfio_user.bridge.explore.card import HONESTY, Card
from pyvfio_user.bridge.interconnect import Program, burst, dmb, store
from pyvfio_user.guest.report import litmus

from .conftest import Open
from .drawn import box, boxes, colours

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Sender:
    """Sends the 16 bytes in its window when the doorbell rings."""

    def __init__(self) -> None:
        self.window = bytearray(16)

    def write(self, bar: int | None, offset: int, data: bytes) -> None:
        if bar == 2:
            self.window[offset : offset + len(data)] = data
        else:
            assert 0 not in self.window, "whole when it rings, <always>"

    def read(self, bar: int | None, offset: int, size: int) -> bytes:
        return bytes(size)


@pytest.fixture
def card() -> Card:
    """Two stores to a window and a doorbell, with a barrier of the wrong domain."""
    program = Program.of(burst(0, 16, bar=2), dmb("ishst"), store(0x10, 4, 1, type=NGNRE))
    found = explore(program, Sender)
    assert found.card is not None
    return found.card


async def test_lines_join_each_access_with_its_arrival(card: Card, open_page: Open) -> None:
    page = await open_page(litmus.render(card))
    texts = page.locator("#arrival text:not(.head)")
    names, places = await texts.all_text_contents(), await boxes(texts)
    lines = page.locator("#arrival line")
    drawn = await lines.evaluate_all(
        """found => found.map(line => {
          const at = (x, y) => new DOMPoint(x.baseVal.value, y.baseVal.value).matrixTransform(line.getScreenCTM());
          const [start, end] = [at(line.x1, line.y1), at(line.x2, line.y2)];
          return [start.x, start.y, end.x, end.y, line.getAttribute("class")];
        })"""
    )
    left = [(name, place) for name, place in zip(names, places, strict=True) if place.right <= drawn[0][0]]
    right = [(name, place) for name, place in zip(names, places, strict=True) if place.left >= drawn[0][2]]
    assert [name for name, _ in left] == ["0", "1", "3"]  # 2 is the barrier
    assert [name for name, _ in right] == ["0", "3", "1"]
    joined = [
        (name, other, kind)
        for _, start, _, end, kind in drawn
        for name, place in left
        for other, target in right
        if place.top < start < place.bottom and target.top < end < target.bottom
    ]
    assert sorted(joined) == [("0", "0", "kept"), ("1", "1", "astray"), ("3", "3", "astray")]


@pytest.mark.parametrize("dark", [False, True])
async def test_what_is_broken_stands_out(card: Card, open_page: Open, dark: bool, shots: Path) -> None:
    page = await open_page(litmus.render(card), dark=dark)
    broken = page.locator("h1 span")
    assert await broken.inner_text() == "whole when it rings, <always>"
    found = await colours(page, await broken.screenshot())
    assert found.most_common(1)[0][0] == ("7c1f1d" if dark else "f8b9b5")
    for line in HONESTY:
        assert (await box(page.get_by_text(line))).bottom < (await box(page.locator("#program"))).top
    await page.screenshot(path=shots / f"litmus-{'dark' if dark else 'light'}.png", full_page=True)


async def test_a_narrow_window_scrolls_the_table_not_the_page(card: Card, open_page: Open) -> None:
    page = await open_page(litmus.render(card), size=(480, 800))
    assert await page.evaluate("document.documentElement.scrollWidth") <= 480
