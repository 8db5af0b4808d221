"""The litmus card on a terminal, as a page, and in a failing test."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.explore import Where, arrives_before, explore
from pyvfio_user.bridge.explore.card import HONESTY, Card
from pyvfio_user.bridge.interconnect import Program, dmb, store
from pyvfio_user.guest.report import litmus

NAME = "payload <before> doorbell"


@pytest.fixture
def card() -> Card:
    program = Program.of(store(0x40, type=NORMAL_NC), dmb("ishst"), store(0x1000, 4, 1, type=NGNRE))
    found = explore(program, invariants=[arrives_before(Where(0x40, 8), Where(0x1000, 4), NAME)])
    assert found.card is not None
    return found.card


class Page(HTMLParser):
    """What a page shows: its text by the tag that it is in, and the lines of the picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.lines: list[dict[str, str | None]] = []
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.outside += [value for name, value in attributes if name in ("src", "href") and value]
        if tag != "meta":
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag == "line"
        self.lines.append(dict(attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.stack[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for each, text in self.texts if each == tag]


def test_the_terminal_shows_every_section(card: Card) -> None:
    console = Console(file=io.StringIO(), width=160)
    litmus.show(card, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in shown if line[:1].strip()] == [title for title, _ in card.sections()]
    text = "\n".join(line.strip() for line in shown)
    for _, lines in card.sections():
        assert all(line.strip() in text for line in lines)


def test_the_page_shows_what_the_text_says(card: Card) -> None:
    page = Page(litmus.render(card))
    assert page.of("span")[0] == NAME
    assert page.of("td")[:4] == [
        "0",
        "store bar0+0x40 8 = 0x4847464544434241",
        "Normal-NC",
        "may be gathered, reordered",
    ]
    assert page.of("li") == [*card.arrived, *card.missing]
    assert page.of("pre") == ["\n".join(card.fixes)]
    assert [text for text in page.of("p") if text in HONESTY] == [*HONESTY]
    assert card.timeline.subtitle in page.of("p")
    assert page.stack == [] and page.outside == []


def test_the_picture_crosses_what_changed_places(card: Card) -> None:
    page = Page(litmus.render(card))
    assert page.of("text") == ["program", "arrived", "0", "2", "2", "0"]
    heights = [(line["y1"], line["y2"], line["class"]) for line in page.lines]
    (top, _, _), (bottom, _, _) = sorted(heights, key=lambda each: int(each[0] or 0))
    assert sorted(heights) == sorted([(top, bottom, "astray"), (bottom, top, "astray")])


TEST = """
from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.explore import Where, arrives_before, explore
from pyvfio_user.bridge.interconnect import Program, store

def test_driver():
    program = Program.of(store(0x40, type=NORMAL_NC), store(0x1000, 4, 1, type=NGNRE))
    explore(program, invariants=[arrives_before(Where(0x40, 8), Where(0x1000, 4), "in order")]).assert_holds()
"""


def test_a_failing_test_shows_the_card(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       explore(program*.assert_holds()",
            "E       pyvfio_user.bridge.explore.explore.LitmusFailure: litmus card: in order",
            "E       program  0  store bar0+0x40 8*",
            "E       missing  0 before 1:*",
            "E       fixes    dmb oshst before event 1*",
        ]
    )
    assert not re.search(r"__tracebackhide__|raise LitmusFailure", result.stdout.str())
    result.stdout.no_fnmatch_line("*- litmus card -*")


def test_a_failing_test_s_page_is_written_where_it_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST + "\ndef test_other():\n    assert 0\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--litmus-pages", "out/pages")
    result.assert_outcomes(failed=2)
    (page,) = (pytester.path / "out/pages").iterdir()
    assert re.fullmatch(r"test_a_failing_test_s_page_\w+\.py-test_driver\.html", page.name)
    result.stdout.fnmatch_lines(["*- litmus card -*", f"out/pages/{page.name}"])
    assert "<h1>Broken: <span>in order</span></h1>" in page.read_text()
    assert "MWr bar0+0x1000 1DW f/0" in page.read_text()
