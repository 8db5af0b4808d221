"""The tables in the documentation are what the rules say now, and what herd7 says wherever it was asked."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from .litmus import RAM, Outcome
from .outcomes import outcomes
from .shapes import README, SHAPES, Shape, written


def test_the_tables_are_up_to_date() -> None:
    """`python -m tests.herd.shapes` writes them."""
    text = README.read_text()
    assert written(text) == text


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.title)
def test_herd7_says_the_same(
    shape: Shape, stock: Mapping[str, frozenset[Outcome]], arrival: Mapping[str, frozenset[Outcome]]
) -> None:
    asked = 0
    for _, types, litmus in shape.cells():
        herd = arrival.get(litmus.name)
        if types == (RAM, RAM):
            herd = stock.get(litmus.name.removesuffix(f"-{RAM}-{RAM}"))
            if "ish" in litmus.name:
                continue  # herd7 takes all domains for one
        if herd is not None:
            asked += 1
            assert shape.allowed(herd) == shape.allowed(outcomes(litmus)), litmus.name
    assert asked >= 14


def cells(title: str, row: str) -> list[str]:
    """What the documentation has in a row of a shape's table."""
    part = README.read_text().partition(f"### {title}")[2].partition("###")[0]
    (line,) = (line for line in part.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_what_drivers_must_know() -> None:
    """By hand, from the specification: nGnRnE, nGnRE, nGRE, GRE, NC, RAM."""
    no, yes = "forbidden", "allowed"
    assert cells("Message passing (MP)", "nothing") == [no, no, yes, yes, yes, yes]
    assert cells("Message passing (MP)", "DMB OSHST") == [no] * 6
    assert cells("Message passing (MP)", "DMB ISHST") == [no, no, yes, yes, yes, yes]
    assert cells("Payload and doorbell", "nothing") == [yes] * 6
    assert cells("Payload and doorbell", "second is STLR") == [no] * 6
    assert cells("Payload and doorbell", "DMB LD") == [yes] * 6
    assert cells("Load buffering (LB)", "data dependency") == [no, no, no, yes, yes, no]
    assert cells("Store buffering (SB)", "DMB ST") == [no, no, yes, yes, yes, yes]
    assert cells("Write-to-read causality (WRC)", "address dependency") == [no, no, no, yes, yes, no]
