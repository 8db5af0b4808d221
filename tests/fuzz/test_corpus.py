"""The fuzzers without libFuzzer: the kept corpus and some mutations of it, under the sanitizers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from .build import FUZZERS, HERE, SANITIZE, SANITIZE_THREADS, build

SECONDS = 2


def input_under_way(current: Path) -> str:
    data = current.read_bytes()
    return data[4 : 4 + int.from_bytes(data[:4], "little")].hex()


def replay_and_mutate(fuzzer: str, folder: Path, flags: Sequence[str]) -> None:
    program = build(fuzzer, os.environ.get("CC", "cc"), folder, flags=flags, sources=["driver.c"])
    corpus = HERE / "corpus" / fuzzer
    current = folder / "current"
    ran = subprocess.run(
        [program, "1", str(SECONDS), corpus, current], capture_output=True, text=True, timeout=100, errors="replace"
    )
    assert ran.returncode == 0, f"{ran.stderr[-4000:]}\nthe input, in hex: {input_under_way(current)}"
    found = re.fullmatch(r"(\d+) inputs replayed, (\d+) executions\n", ran.stdout)
    assert found, ran.stdout
    assert int(found[1]) == len(list(corpus.iterdir()))
    assert int(found[2]) > int(found[1])


@pytest.mark.parametrize("fuzzer", FUZZERS)
def test_corpus_and_mutations_of_it(fuzzer: str, tmp_path: Path) -> None:
    """Nothing of it may trip a sanitizer, or do what the model does not say."""
    replay_and_mutate(fuzzer, tmp_path, SANITIZE)


def test_the_poller_of_shared_memory_races_with_nobody(tmp_path: Path) -> None:
    replay_and_mutate("echo", tmp_path, SANITIZE_THREADS)
