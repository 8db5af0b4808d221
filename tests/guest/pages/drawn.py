"""What a page's pictures look like: places of elements, and pixels."""

from __future__ import annotations

import base64
from collections import Counter
from typing import NamedTuple

from playwright.async_api import Locator, Page


class Box(NamedTuple):
    """A rectangle on the screen, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return min(self.right, other.right) - max(self.left, other.left) > 0.5 and (
            min(self.bottom, other.bottom) - max(self.top, other.top) > 0.5
        )

    def has(self, x: float, y: float, slack: float = 1.0) -> bool:
        """Whether a point is in it, or on its edge."""
        return self.left - slack <= x <= self.right + slack and self.top - slack <= y <= self.bottom + slack


async def boxes(found: Locator) -> list[Box]:
    """Of each element, in the document's order, where it is drawn."""
    places = await found.evaluate_all(
        "found => found.map(e => e.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
    )
    return [Box(*place) for place in places]


async def box(found: Locator) -> Box:
    """Where the one element is drawn."""
    (place,) = await boxes(found)
    return place


_COUNT = """async encoded => {
  const bytes = Uint8Array.from(atob(encoded), character => character.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes]));
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const found = {}, pixels = canvas.getImageData(0, 0, image.width, image.height).data;
  for (let at = 0; at < pixels.length; at += 4) {
    const colour = [...pixels.slice(at, at + 3)].map(each => each.toString(16).padStart(2, "0")).join("");
    found[colour] = (found[colour] ?? 0) + 1;
  }
  return found;
}"""


async def colours(page: Page, png: bytes) -> Counter[str]:
    """How many pixels of a picture have each colour, as in `1e4a2a`. The page decodes it."""
    return Counter(await page.evaluate(_COUNT, base64.b64encode(png).decode()))
