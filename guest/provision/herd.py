"""herd7, which runs litmus programs under a formal memory model: the machine's own, or Debian's newest, in the cache.

Only the tests need it, and whoever generates the tables of orders; no guest and no device does.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_directory
from .part import Debian, Host, ask, cached, fetch, find_or_make, first_that_serves, host, write_script
from .progress import Progress

PROGRAM = "herd7"
PACKAGE = "herdtools7"
MINIMUM = (7, 58)
"""The first that reads memory types in a litmus program."""
_DEBIAN = Debian(
    PROGRAM,
    [PACKAGE],
    ["forky"],
    f"install {PROGRAM} {MINIMUM[0]}.{MINIMUM[1]} or newer (Debian package {PACKAGE} of forky) on PATH",
)


@dataclass(frozen=True)
class Herd:
    """A herd7 that runs: its path, its version, and the folder of its models, `aarch64.cat` among them."""

    path: Path
    version: str
    models: Path


def check(path: Path) -> Herd:
    """Ask the herd7 at `path` what it is; raise `ValueError` that says why it cannot serve."""
    version = ask([path, "-version"]).partition(",")[0]
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < MINIMUM:
        raise ValueError(f"{path} must be {PROGRAM} {MINIMUM[0]}.{MINIMUM[1]} or newer, not {version[:80]!r}")
    models = Path(ask([path, "-libdir"]).strip())
    if not (models / "aarch64.cat").is_file():
        raise ValueError(f"{path} must have its models in {models}, but aarch64.cat is not there")
    return Herd(path, version, models)


def _folder() -> Path:
    return cache_directory() / "herd"


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which(PROGRAM):
        yield Path(on_path).absolute()
    yield from cached(_folder(), PROGRAM)


def find_herd() -> Herd | None:
    """The first that serves, of PATH and the cache."""
    return first_that_serves(_candidates(), check)[0]


def provide_herd(progress: Progress) -> Herd:
    """Return the herd7 to use; fetch Debian's newest into the cache when there is none. Raises `ProvisionError`."""

    def fetched() -> Herd:
        here = host(_DEBIAN)
        return fetch(_DEBIAN, _folder(), here.architecture, lambda new: _prepare(new, here), check, progress)

    return find_or_make(_folder(), find_herd, fetched, progress, f"fetching {PROGRAM}")


def _prepare(new: Path, here: Host) -> str:
    for tool in (new / "root/usr/bin").iterdir():
        if tool.name != PROGRAM:
            tool.unlink()  # 220 MB of tools of which none is used
    wrapper = f"""#!/bin/sh
# Runs the herd7 of a newer Debian release with that release's own loader, libraries and models; takes herd7's options.
root=$(dirname "$(readlink -f "$0")")/root
exec "$root/{here.loader}" --library-path "$root/{here.libraries}" "$root/usr/bin/{PROGRAM}" \\
  -set-libdir "$root/usr/share/herdtools7/herd" "$@"
"""
    write_script(new / PROGRAM, wrapper)
    return PROGRAM
