"""Faults that are put into the hot path on purpose: the fuzzers' kept corpus finds each of them."""

from __future__ import annotations

import os

import pytest

from .faults import Bench, Fault, applicable


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"), os.environ.get("CC", "cc"))


@pytest.mark.parametrize("fault", applicable(), ids=lambda fault: f"{fault.source}: {fault.name}")
def test_the_kept_corpus_finds_a_fault(fault: Fault, bench: Bench) -> None:
    assert bench.finds(fault)


def test_a_text_that_the_source_has_not_is_told(bench: Bench) -> None:
    fault = Fault("nothing", "dma", "guard.c", "no such text", "")
    with pytest.raises(ValueError, match=r"^guard\.c must have 'no such text' once, not 0 times$"):
        bench.finds(fault)
