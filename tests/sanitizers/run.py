"""Runs tests of bridge and devices over an extension built with AddressSanitizer and UndefinedBehaviorSanitizer.

usage: python -m tests.sanitizers.run [options of pytest]

Everything is copied to out/sanitize: the extension of the tree stays as it is. The runtime is loaded into the one
Python that runs the tests, and into none of its children, be it QEMU or another Python.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUT = ROOT / "out" / "sanitize"
SITE = OUT / "site"
LOG = OUT / "log"
TESTS = ("tests/bridge", "tests/devices")
FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fno-omit-frame-pointer", "-fPIC", "-shared"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
# The runtime was loaded; from here on nobody inherits it.
START = """\
import os, sys
del os.environ["LD_PRELOAD"]
sys.path.insert(0, sys.argv[1])
import pytest
from pyvfio_user.bridge.hotpath import _native
assert _native.__file__.startswith(sys.argv[1]), _native.__file__
sys.exit(pytest.main(sys.argv[2:]))
"""


def copy_tree() -> Path:
    """A copy of packages and tests, without what was built; the folder for the extension."""
    shutil.rmtree(OUT, ignore_errors=True)
    built = shutil.ignore_patterns("*.so", "__pycache__")
    for package in ("bridge", "devices", "guest"):
        shutil.copytree(ROOT / package, SITE / "pyvfio_user" / package, ignore=built)
    shutil.copytree(ROOT / "tests", OUT / "tests", ignore=built)
    shutil.copy(ROOT / "pyproject.toml", OUT)
    return SITE / "pyvfio_user" / "bridge" / "hotpath"


def build(compiler: str, folder: Path) -> None:
    """Builds the extension into `folder`."""
    described: dict[str, Any] = runpy.run_path("bridge/hotpath/build.py")
    generated = OUT / "_native.c"
    described["ffibuilder"].emit_c_code(str(generated))
    sources = [str(described["HERE"] / name) for name in described["SOURCES"]]
    includes = [f"-I{described['HERE']}", f"-I{sysconfig.get_path('include')}"]
    command = [compiler, *FLAGS, *includes, str(generated), *sources, "-o", str(folder / "_native.abi3.so")]
    subprocess.run(command, check=True)


def runtime(compiler: str) -> str:
    """The shared library of AddressSanitizer that belongs to the compiler."""
    asked = [compiler, "-print-file-name=libasan.so"]
    path = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(path):
        raise SystemExit(f"missing: the AddressSanitizer runtime of {compiler}; install the Debian package gcc")
    return path


def run_tests(preload: str, options: list[str]) -> int:
    """Runs the tests; the exit status of pytest, or of the sanitizer that ended it."""
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        # Also Python's own buffers, which the extension reads and writes, are then watched byte by byte.
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": f"detect_leaks=1:log_path={LOG}",
        "LSAN_OPTIONS": "exitcode=0:print_suppressions=0",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={LOG}",
    }
    arguments = ["-q", "-p", "no:cacheprovider", *(options or TESTS)]
    return subprocess.run([sys.executable, "-c", START, str(SITE), *arguments], cwd=OUT, env=environment).returncode


def findings() -> list[str]:
    """What the sanitizers said, but for leaks of CPython's own: a leak is ours when hot path code allocated it."""
    found = []
    for log in sorted(OUT.glob("log.*")):
        for part in re.split(r"\n\n+", log.read_text(errors="replace")):
            leak = "leak of" in part
            if "pvu_" in part if leak else "ERROR: AddressSanitizer" in part or "runtime error" in part:
                found.append(part)
    return found


def main() -> int:
    """The exit status: 0 when all tests passed and no sanitizer said anything."""
    os.chdir(ROOT)
    compiler = os.environ.get("CC", "cc")
    folder = copy_tree()
    preload = runtime(compiler)
    build(compiler, folder)
    status = run_tests(preload, sys.argv[1:])
    found = findings()
    print("\n\n".join([*found, f"sanitizers: {len(found) or 'no'} findings"]))
    return status or bool(found)


if __name__ == "__main__":
    sys.exit(main())
