"""The user's cache folder, and how a part comes into it: whole or not at all, and once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_STAGING = ".staging-"


def cache_directory() -> Path:
    """Return `$XDG_CACHE_HOME/pyvfio-user`, or `~/.cache/pyvfio-user` (a relative path is ignored, as XDG says)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "pyvfio-user"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, which all set-ups of this user share; create the folder if it is absent.

    Yields whether another set-up held the lock first: it may have fetched what the caller wants.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        waited = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield waited


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
