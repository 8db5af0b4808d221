"""How a part is provided: what is asked of programs, which candidate is taken, and that it is made once."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pyvfio_user.guest.provision.cache import locked
from pyvfio_user.guest.provision.part import ask, cached, find_or_make, first_that_serves, settle
from pyvfio_user.guest.provision.progress import Progress


def test_what_a_program_answers() -> None:
    assert ask([sys.executable, "-c", "print(input())"], "hello\n") == "hello\n"


def test_a_program_that_is_asked_is_out_of_reach_of_the_terminals_ctrl_c() -> None:
    assert ask([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"]) == "True\n"


def test_a_program_that_fails_says_its_last_line() -> None:
    with pytest.raises(ValueError, match=r"^`.* -c .*` must succeed, not end with: last$"):
        ask([sys.executable, "-c", "import sys; sys.exit('first\\nlast')"])
    with pytest.raises(ValueError, match=r"^`.*` must succeed, not end with: exit status 3$"):
        ask([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_the_newest_in_the_cache_comes_first(tmp_path: Path) -> None:
    for age, version in enumerate(("2", "3", "1")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "program").touch()
        os.utime(tmp_path / version / "program", ns=(0, -age))
    (tmp_path / "4").mkdir()
    assert cached(tmp_path, "program") == [tmp_path / version / "program" for version in ("2", "3", "1")]


def test_the_first_that_serves_is_taken_and_the_others_say_why() -> None:
    def check(number: int) -> str:
        if number < 3:
            raise ValueError(f"number must be at least 3, not {number}")
        return str(number)

    why = ("number must be at least 3, not 1", "number must be at least 3, not 2")
    assert first_that_serves([1, 2, 3, 4], check) == ("3", why)
    assert first_that_serves([1], check) == (None, why[:1])


def test_what_another_made_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    """Looked for before the lock is taken, and once more when it is held."""
    answers = iter([None, "theirs"])
    found = find_or_make(tmp_path, lambda: next(answers), lambda: pytest.fail("made twice"), _quiet(), "making")
    assert found == "theirs"


def test_it_is_made_under_the_lock(tmp_path: Path) -> None:
    def make() -> str:
        waited: list[bool] = []
        with pytest.raises(BlockingIOError), locked(tmp_path, lambda: _refuse(waited)):
            pass
        return "made" if waited else "not locked"

    assert find_or_make(tmp_path, lambda: None, make, _quiet(), "making") == "made"


def _refuse(waited: list[bool]) -> None:
    waited.append(True)
    raise BlockingIOError


def test_what_is_settled_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    settle(tmp_path / "new", tmp_path / "old")
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("old"), Path("old/new")]


def _quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))
