"""The user's cache folder, and how a part comes into it: whole or not at all, and once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_STAGING = ".staging-"


def cache_directory() -> Path:
    """Return `$XDG_CACHE_HOME/pyvfio-user`, or `~/.cache/pyvfio-user` (a relative path is ignored, as XDG says)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "pyvfio-user"


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the folder's lock, which all set-ups of this user share; create the folder if it is absent.

    `waiting` is called when another set-up holds the lock, before waiting for it. Whoever has the lock looks again:
    another set-up may have brought what was missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give an empty folder on the same file system as `folder`, removed at the end unless it was renamed away.

    The caller holds the lock, so whatever an interrupted set-up left behind is removed first.
    """
    for stale in folder.glob(f"{_STAGING}*"):
        shutil.rmtree(stale)
    path = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
