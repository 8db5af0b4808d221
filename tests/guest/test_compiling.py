"""What is compiled is kept under a name of all that went into it, and only whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pyvfio_user.guest.compiling import kept, run_compiler
from pyvfio_user.guest.errors import BuildError


def test_it_is_made_once_for_the_same_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []

    def compile_in(folder: Path) -> Path:
        made.append(folder)
        (folder / "a.out").write_text(f"number {len(made)}")
        return folder / "a.out"

    first = kept("a", ("gcc", 12), compile_in, ".elf")
    assert (first.parent, first.name[:2], first.suffix) == (tmp_path / "pyvfio-user", "a-", ".elf")
    assert kept("a", ("gcc", 12), compile_in, ".elf") == first
    second = kept("a", ("gcc", 13), compile_in, ".elf")
    assert (first.read_text(), second.read_text()) == ("number 1", "number 2")
    assert sorted(os.listdir(first.parent)) == sorted([first.name, second.name])


def test_nothing_is_kept_of_what_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def compile_in(folder: Path) -> Path:
        (folder / "half").touch()
        raise BuildError("no")

    with pytest.raises(BuildError):
        kept("a", (), compile_in)
    assert os.listdir(tmp_path / "pyvfio-user") == []


def test_what_a_compiler_says_is_told(tmp_path: Path) -> None:
    refuses = [sys.executable, "-c", "import sys; sys.exit(input())"]
    with pytest.raises(BuildError) as caught:
        run_compiler("a thing", refuses, tmp_path, "line 1: error\n")
    assert str(caught.value).startswith(f"a thing must compile; {sys.executable} -c ")
    assert str(caught.value).endswith(" ended with 1:\nline 1: error")
    with pytest.raises(
        BuildError, match=r"^the compiler of a thing must run: .*No such file or directory: '\S+/none'$"
    ):
        run_compiler("a thing", [str(tmp_path / "none")], tmp_path)


def test_ctrl_c_does_not_reach_the_compiler(tmp_path: Path) -> None:
    run_compiler("a thing", [sys.executable, "-c", "import os; assert os.getsid(0) == os.getpid()"], tmp_path)
