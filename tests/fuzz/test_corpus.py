"""The fuzzers without libFuzzer: the kept corpus and some mutations of it, under the sanitizers."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from .build import FUZZERS, HERE, build

SECONDS = 3


@pytest.mark.parametrize("fuzzer", FUZZERS)
def test_corpus_and_mutations_of_it(fuzzer: str, tmp_path: Path) -> None:
    """Nothing of it may trip a sanitizer, or do what the model does not say."""
    program = build(fuzzer, os.environ.get("CC", "cc"), tmp_path, sources=["driver.c"])
    corpus = HERE / "corpus" / fuzzer
    current = tmp_path / "current"
    ran = subprocess.run(
        [program, "1", str(SECONDS), corpus, current], capture_output=True, text=True, timeout=100, errors="replace"
    )
    assert ran.returncode == 0, f"{ran.stderr[-4000:]}\nthe input, in hex: {current.read_bytes().hex()}"
    found = re.fullmatch(r"(\d+) inputs replayed, (\d+) executions\n", ran.stdout)
    assert found, ran.stdout
    assert int(found[1]) == len(list(corpus.iterdir())) > 20
    assert int(found[2]) > int(found[1])
