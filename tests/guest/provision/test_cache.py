"""The user's cache folder, its lock and its staging folders."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import pytest

from pyvfio_user.guest.provision.cache import cache_directory, locked, staging


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/somewhere", "/somewhere/pyvfio-user"),
        ("relative", "HOME/.cache/pyvfio-user"),
        ("", "HOME/.cache/pyvfio-user"),
    ],
)
def test_cache_directory(value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_directory()) == expected.replace("HOME", "/home/someone")


def test_staging_is_removed_unless_renamed_and_stale_ones_go(tmp_path: Path) -> None:
    (tmp_path / ".staging-old").mkdir()
    with locked(tmp_path, pytest.fail), staging(tmp_path) as stage:
        (stage / "part").mkdir()
        (stage / "part").rename(tmp_path / "part")
    with pytest.raises(RuntimeError), staging(tmp_path):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "part"]


def test_the_lock_says_that_it_waits(tmp_path: Path) -> None:
    held, waited = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(tmp_path, pytest.fail):
            held.set()
            assert waited.wait(10)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        other = pool.submit(hold)
        assert held.wait(10)
        with locked(tmp_path, waited.set):
            other.result(10)
    assert waited.is_set()
