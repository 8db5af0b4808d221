"""The matrix's page, as a browser draws it, and what it shows when a cell is chosen."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pyvfio_user.guest.matrix_view import _type_names
from pyvfio_user.guest.report import HONESTY, html
from pyvfio_user.guest.results import Finding, Matrix, Verdict
from pyvfio_user.guest.scorecard import QUESTIONS, answers

from ..cells import KERNEL, ORDERS, PROOF, cell, host, matrix
from .conftest import Open
from .drawn import box, boxes, colours

pytestmark = pytest.mark.asyncio(loop_scope="session")

S1, S2 = ("00", "04", "44", "ff"), ("1", "5", "f")


@pytest.fixture
def made() -> Matrix:
    """A grid of pairs, of which one deviates and one disagrees, and a scheme's row."""
    verdicts = {("04", "5"): Verdict.KNOWN_DEVIATION, ("44", "f"): Verdict.DISAGREE}
    pairs = [
        cell(scheme="all-pairs", s1=s1, s2=s2, verdict=verdicts.get((s1, s2), Verdict.AGREE)) for s1 in S1 for s2 in S2
    ]
    cells = [cell(s1=s1) for s1 in S1]
    return matrix(cells, pairs=tuple(pairs), scorecard=answers(["status-quo"], [cells[0]], []))


def rendered(made: Matrix) -> str:
    return html.render(made, types=_type_names(made), questions=QUESTIONS)


@pytest.mark.parametrize("dark", [False, True])
async def test_the_heat_map_is_a_grid_in_the_verdicts_colours(
    made: Matrix, open_page: Open, dark: bool, shots: Path
) -> None:
    page = await open_page(rendered(made), dark=dark)
    cells = page.locator("#heat td.cell")
    places = await boxes(cells)
    assert len(places) == len(S1) * len(S2)
    for row in range(len(S1)):
        line = places[row * len(S2) : (row + 1) * len(S2)]
        assert len({place.top for place in line}) == 1
        assert [place.left for place in line] == [place.left for place in places[: len(S2)]]
    assert not any(one.overlaps(two) for one in places for two in places if one is not two)
    shown = [(await colours(page, await each.screenshot())).most_common(1)[0][0] for each in await cells.all()]
    agree, known, disagree = ("1e4a2a", "5a4a12", "7c1f1d") if dark else ("cdeccf", "fdeab0", "f8b9b5")
    assert shown[S1.index("04") * len(S2) + S2.index("5")] == known
    assert shown[S1.index("44") * len(S2) + S2.index("f")] == disagree
    assert shown.count(agree) == len(shown) - 2
    await page.screenshot(path=shots / f"matrix-{'dark' if dark else 'light'}.png", full_page=True)


async def test_a_chosen_cell_opens_below_and_escape_closes(made: Matrix, open_page: Open) -> None:
    page = await open_page(rendered(made))
    drawer = page.locator("#drawer")
    assert not await drawer.is_visible()
    await page.locator("#heat td.cell").nth(4).click()
    assert (await box(drawer)).bottom == 900
    text = await drawer.inner_text()
    assert "known-deviation" in text and "04 Device-nGnRE" in text and "EL1 cold" in text
    await page.keyboard.press("Escape")
    assert not await drawer.is_visible()
    await page.locator("#scorecard td.cell").first.press("Enter")
    assert "status-quo" in await drawer.inner_text()


async def test_the_page_says_what_it_does_not_show(made: Matrix, open_page: Open) -> None:
    page = await open_page(rendered(made))
    assert (await box(page.get_by_text(HONESTY))).bottom < (await box(page.locator("#heat"))).top
    assert (await page.locator("#summary").inner_text()).startswith("4 cells: attributes 4 agree; accesses 4 agree.")


@pytest.fixture
def ordered() -> Matrix:
    """A row of a scheme with a payload as NC and one as nGnRE, and the orders of both."""
    cells = [cell(s1="44", architecture="44", observed="44", orders="44>04"), cell(s1="04", orders="04>04")]
    return matrix(cells, orders=ORDERS, host=(host(),), scorecard=answers(["status-quo"], cells, []))


async def test_orders_are_columns_and_tables_that_say_they_are_modelled(ordered: Matrix, open_page: Open) -> None:
    page = await open_page(rendered(ordered))
    assert await page.get_by_role("heading", name="Orders (modelled)").is_visible()
    assert await page.get_by_text(ORDERS.note).is_visible()
    heads = await page.locator("#schemes th").all_text_contents()
    assert heads[-5:-2] == ["one TLP (model)", "doorbell first (model)", "speculative reads by (model)"]
    assert (await page.locator("#schemes td").all_text_contents())[-3:] == ["86.3%", "7.1%", "guest, host"]
    assert "modelled, not seen" in await page.locator("#model").inner_text()
    pairs = page.locator("#orders summary")
    assert await pairs.all_text_contents() == [
        "44 Normal Non-cacheable > 04 Device-nGnRE",
        "04 Device-nGnRE > 04 Device-nGnRE",
    ]
    await pairs.first.click()
    rows = page.locator("#orders details").first.locator("tr")
    texts = [await each.locator("th, td").all_text_contents() for each in await rows.all()]
    dash = "\N{EN DASH}"
    fenced = ("545,835", "86.3%", "13.7%", f"1{dash}3")
    memcpy = ("too many to be counted", "0.0%", "0.0%", f"2{dash}6", "0.0%", "0.0%")
    assert texts == [
        ["payload", "barrier", "legal behaviours", "one 64-byte TLP", "torn", "TLPs", "out of order",
         "doorbell before the whole payload", "which is kept by", "TCG saw"],
        ["8 x STR x", "none", "3,816,548", *fenced[1:], "0.0%", "7.1%", "", "8x8, doorbell"],
        ["8 x STR x", "dmb oshst", *fenced, "0.0%", "never", "barrier [A]", "not run"],
        ["memcpy", "none", *memcpy, "", "not run"],
        ["memcpy", "dmb oshst", *memcpy, "", "not run"],
    ]  # fmt: skip


async def test_a_chosen_cell_has_the_orders_of_its_types(ordered: Matrix, open_page: Open) -> None:
    page = await open_page(rendered(ordered))
    await page.locator("#schemes td.cell").nth(2).click()
    drawer = page.locator("#drawer")
    heading = "modelled, not seen: a payload here and its doorbell, 04 Device-nGnRE > 04 Device-nGnRE"
    assert await drawer.get_by_role("heading", name=heading).is_visible()
    assert await drawer.get_by_text("alignment fault (B2.10.2) at store 2").first.is_visible()


async def test_without_orders_the_page_says_how_to_have_them(made: Matrix, open_page: Open) -> None:
    page = await open_page(rendered(made))
    assert await page.locator("#orders").inner_text() == "Not part of this run: it is with --orders."
    assert "model" not in await page.locator("#schemes").inner_text()


async def test_a_claim_leads_to_the_cells_behind_it(open_page: Open) -> None:
    """A probe is a link to its cell, which may be in a part of the page that is not unfolded."""
    cells = [cell(cpu="cortex-a76"), cell(lane="kvm", kernel="6.1.0", s1="ff")]
    card = answers(["status-quo"], cells, [])
    card["status-quo"]["cacheable"] |= {"how": "seen", "lane": "kvm", "probes": [cells[1].name], "cells": ["/cells/1"]}
    page = await open_page(rendered(matrix(cells, scorecard=card)))
    target = page.locator("[id='/cells/1']")
    assert not await target.is_visible()
    row = page.locator("#scorecard tr", has_text="Can it give a cacheable mapping?")
    await row.locator("td.cell").click()
    link = page.locator("#drawer a")
    assert await link.all_inner_texts() == ["kvm Linux 6.1.0 -cpu max FWB=1 status-quo (asking) strict s1=ff"]
    await link.click()
    assert await target.is_visible()
    assert await page.evaluate("document.activeElement.id") == "/cells/1"
    assert await target.evaluate("cell => cell.closest('details').querySelector('summary').textContent") == (
        "lane kvm, Linux 6.1.0, -cpu max, FWB=1"
    )


async def test_a_kernels_proofs_and_failures(open_page: Open, shots: Path) -> None:
    lying = msgspec.structs.replace(PROOF, range="fifo", quarrel="EL1 cold: they differ")
    failed = msgspec.structs.replace(KERNEL, release="7.3.1", failure="no /dev/kvm\n  what to do: switch it on")
    rule = Finding.of("max, Linux 6.1.0", "rule", "ask nicely", "yes", "no")
    other = Finding.of("max, Linux 7.3.1", "rule", "ask again", "yes", "yes")
    made = matrix(kernels=(KERNEL, failed), proofs=(PROOF, lying), findings=(rule, other))
    page = await open_page(rendered(made))
    section = page.locator("#kernels")
    assert await section.locator("h3").all_inner_texts() == [
        "Linux 6.1.0, -cpu max: status-quo (seen alike: trap)",
        "Linux 7.3.1, -cpu max: not looked at",
    ]
    agreeing, lies, tried = await section.locator("tr:has(td)").all()
    assert await tried.locator("td").all_text_contents() == ["rule", "ask nicely", "yes", "no", "disagree"]
    assert await agreeing.locator("td").all_inner_texts() == [
        "vfio", "policy", "wc-trapped", "32", "3", "1", "1", "rw", "KVM_RUN -EFAULT", "nothing", "one"
    ]  # fmt: skip
    assert await agreeing.get_attribute("class") == "agree"
    assert (await lies.locator("td").all_inner_texts())[-1] == "EL1 cold: they differ"
    assert await lies.get_attribute("class") == "disagree"
    assert await section.locator("pre").inner_text() == "no /dev/kvm\n  what to do: switch it on"
    await page.screenshot(path=shots / "kernels.png", full_page=True)
