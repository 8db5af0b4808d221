"""What `make fuzz` says of a machine that lacks something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fuzz(clang: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.run", "--seconds", "1"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "CLANG": clang}, capture_output=True, text=True)


def test_no_clang() -> None:
    ran = fuzz("no-such-clang")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "missing: clang; install the Debian package clang\n"


def test_a_clang_without_libfuzzer(tmp_path: Path) -> None:
    clang = tmp_path / "clang"
    clang.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Debian clang version 14.0.6" || exit 1\n')
    clang.chmod(0o755)
    ran = fuzz(str(clang))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (f"missing: the libFuzzer runtime of {clang}; install the Debian package libclang-rt-14-dev\n")
