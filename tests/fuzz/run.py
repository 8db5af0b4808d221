"""Fuzzes for a time: the hot path with libFuzzer, then the server with the state machines.

usage: python -m tests.fuzz.run [--seconds N] [--keep]

Findings stay in out/fuzz; with --keep, what covers more than the kept corpus is added to it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .build import FUZZERS, HERE, SANITIZE, build

ROOT = HERE.parent.parent
OUT = ROOT / "out" / "fuzz"
MACHINES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*/test_*_machine.py"))
LIBFUZZER = (*SANITIZE, "-fsanitize=fuzzer")
OPTIONS = (
    *("-max_len=1600", "-timeout=30", "-rss_limit_mb=2048", "-entropic_scale_per_exec_time=1"),
    *("-print_final_stats=1", "-verbosity=0"),
)


def lacking(clang: str | None) -> str | None:
    """What the machine lacks for libFuzzer, with the Debian package that brings it; None when it lacks nothing."""
    if clang is None:
        return "missing: clang; install the Debian package clang"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.c")
        source.write_text("int LLVMFuzzerTestOneInput(void) { return 0; }\n")
        command = [clang, *LIBFUZZER, str(source), "-o", f"{folder}/empty"]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return None
    found = re.search(r"version (\d+)", subprocess.run([clang, "--version"], capture_output=True, text=True).stdout)
    release = found[1] if found else "N"
    return f"missing: the libFuzzer runtime of {clang}; install the Debian package libclang-rt-{release}-dev"


def fuzz(fuzzer: str, clang: str, seconds: int) -> bool:
    """Runs one fuzzer on a copy of its corpus; did it find nothing?"""
    program = build(fuzzer, clang, OUT, flags=LIBFUZZER)
    corpus = OUT / "corpus" / fuzzer
    shutil.copytree(HERE / "corpus" / fuzzer, corpus, dirs_exist_ok=True)
    command = [str(program), f"-max_total_time={seconds}", f"-artifact_prefix={OUT}/{fuzzer}-", *OPTIONS]
    if fuzzer == "receive":
        command.append(f"-dict={HERE / 'vfio-user.dict'}")
    ran = subprocess.run([*command, str(corpus)], stderr=subprocess.PIPE, text=True, errors="replace")
    executions = re.search(r"number_of_executed_units: (\d+)", ran.stderr)
    count = executions[1] if executions else "?"
    print(f"{fuzzer}: {count} executions, {'nothing found' if ran.returncode == 0 else 'FOUND:'}", flush=True)
    if ran.returncode != 0:
        print(ran.stderr[-6000:], flush=True)
    return ran.returncode == 0


def run_machines(seconds: int) -> bool:
    """Runs the state machines, with new seeds until the time is over; did they find nothing?"""
    environment = {**os.environ, "HYPOTHESIS_MACHINES": "long"}
    end, rounds = time.monotonic() + seconds, 0
    while not rounds or time.monotonic() < end:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--timeout=0",
            f"--hypothesis-seed={time.time_ns()}",
            *MACHINES,
        ]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        rounds += 1
        if ran.returncode != 0:
            print(f"state machines: FOUND, in round {rounds}:\n{ran.stdout[-6000:]}", flush=True)
            return False
    print(f"state machines: {rounds} rounds, nothing found", flush=True)
    return True


def keep(clang: str) -> None:
    """Adds to the kept corpus what covers more than it does."""
    for fuzzer in FUZZERS:
        program = build(fuzzer, clang, OUT, flags=LIBFUZZER)
        folders = [str(HERE / "corpus" / fuzzer), str(OUT / "corpus" / fuzzer)]
        subprocess.run(
            [str(program), "-set_cover_merge=1", "-use_counters=0", "-verbosity=0", *folders],
            check=True,
            capture_output=True,
        )


def main() -> int:
    """The exit status: 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=60, help="how long each part runs (default: 60)")
    parser.add_argument("--keep", action="store_true", help="add to the kept corpus what covers more")
    arguments = parser.parse_args()
    clang = shutil.which(os.environ.get("CLANG", "clang"))
    missing = lacking(clang)
    if clang is None or missing:
        print(missing, file=sys.stderr)
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    clean = all([fuzz(fuzzer, clang, arguments.seconds) for fuzzer in FUZZERS])
    if clean and arguments.keep:
        keep(clang)
    return 0 if run_machines(arguments.seconds) and clean else 1


if __name__ == "__main__":
    sys.exit(main())
