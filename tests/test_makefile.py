"""What the Makefile says of a machine that lacks something, and which Python it takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "make", "mkdir", "touch", "dirname", "cp", "echo")
NO_PYTHON = "missing: Python 3.11 or newer; install the Debian package python3"
USABLE = """\
#!/bin/sh
case "$1 $2" in
  "-m venv") echo "venv by {name}"; mkdir -p .venv/bin; cp "$0" .venv/bin/pip ;;
  "-c import sys"*) echo "{name} 3.x" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the Makefile, and in `bin` no more than the tools that every machine has, git and a compiler."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    for program in ("git", "cc"):
        put(tmp_path, program, "#!/bin/sh\n")
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def put(machine: Path, name: str, text: str) -> None:
    path = machine / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def make(machine: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run make; return its exit status and what it and its commands printed, make's own closing line left out."""
    done = subprocess.run(
        ["make", "--no-print-directory", ".venv/stamps/venv", *arguments],
        cwd=machine,
        env={"PATH": str(machine / "bin"), "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, [line for line in done.stdout.splitlines() if not line.startswith("make: ***")]


def test_each_absent_thing_is_one_line(machine: Path) -> None:
    (machine / "bin/git").unlink()
    (machine / "bin/cc").unlink()
    assert make(machine) == (
        2,
        [
            "missing: git; install the Debian package git",
            "missing: a C compiler with the C library headers; install the Debian package build-essential",
            NO_PYTHON,
        ],
    )
    assert not (machine / ".venv").exists()


def test_a_compiler_without_headers_is_none(machine: Path) -> None:
    put(machine, "cc", "#!/bin/sh\nexit 1\n")
    status, lines = make(machine)
    assert (status, lines[0]) == (
        2,
        "missing: a C compiler with the C library headers; install the Debian package build-essential",
    )


def test_an_old_or_broken_python_is_none(machine: Path) -> None:
    put(machine, "python3.13", "#!/bin/sh\nexit 127\n")
    put(machine, "python3", "#!/bin/sh\nexit 1\n")
    assert make(machine) == (2, [NO_PYTHON])


def test_what_the_newest_python_lacks_is_named(machine: Path) -> None:
    put(machine, "python3.12", "#!/bin/sh\necho the headers '(Python.h)' python3.12-dev\n")
    put(machine, "python3.11", "#!/bin/sh\necho the venv module python3.11-venv\n")
    expected = "missing: the headers (Python.h) of python3.12; install the Debian package python3.12-dev"
    assert make(machine) == (2, [expected])


def test_the_newest_usable_python_is_taken(machine: Path) -> None:
    put(machine, "python3.13", "#!/bin/sh\necho the venv module python3.13-venv\n")
    put(machine, "python3.12", USABLE.format(name="3.12"))
    put(machine, "python3.11", USABLE.format(name="3.11"))
    assert make(machine) == (
        0,
        ["==> .venv, made with 3.12 3.x", "venv by 3.12", "==> a pip that knows dependency groups"],
    )
    assert make(machine) == (0, ["make: '.venv/stamps/venv' is up to date."])


def test_the_python_asked_for_is_taken(machine: Path) -> None:
    put(machine, "python3.12", USABLE.format(name="3.12"))
    put(machine, "mine", USABLE.format(name="mine"))
    status, lines = make(machine, "PYTHON=mine")
    assert (status, lines[1]) == (0, "venv by mine")


def test_the_probe_finds_this_python_usable(machine: Path) -> None:
    listing = subprocess.run(["make", "-pn", "help"], cwd=machine, capture_output=True, text=True, check=True).stdout
    probe = listing.partition("define PROBE\n")[2].partition("\nendef")[0]
    python = ROOT / ".venv/bin/python"
    assert subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True).stdout == ""


def test_help_names_every_target(machine: Path) -> None:
    text = subprocess.run(["make"], cwd=machine, capture_output=True, text=True, check=True).stdout
    named = [line.split()[1] for line in text.splitlines() if line.startswith("make ")]
    [phony] = [line for line in (machine / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")]
    assert sorted(named) == sorted(set(phony.split()[1:]) - {"help", "qemu", "mypy-tree"})
