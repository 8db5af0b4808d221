"""How a part is provided: the machine's own if it serves, else the cache's, else Debian's, fetched once and whole."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from . import apt
from .cache import locked, staging
from .errors import ProvisionError
from .progress import Progress

Candidate = TypeVar("Candidate")
Found = TypeVar("Found")

_PROBE_SECONDS = 60
_LOADERS = {
    "amd64": ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
    "arm64": ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
}


@dataclass(frozen=True)
class Debian:
    """Where a part comes from that is fetched: `packages`, the first of which gives its folder the version, and suites.

    `name` is for people; `remedy` what the user can do instead, as an instruction.
    """

    name: str
    packages: Sequence[str]
    suites: Sequence[str]
    remedy: str


class Host(NamedTuple):
    """What runs a program of another release here: that release's own loader and libraries, below its root."""

    architecture: str
    loader: str
    libraries: str


def host(debian: Debian) -> Host:
    """Return this machine's. Raises `ProvisionError` where Debian's programs are not known to run."""
    architecture = apt.host_architecture(debian.remedy)
    if architecture not in _LOADERS:
        raise ProvisionError(
            f"the host must be amd64 or arm64 for a fetched {debian.name}, not {architecture}", debian.remedy
        )
    return Host(architecture, *_LOADERS[architecture])


def ask(command: Sequence[str | Path], text: str = "") -> str:
    """Return what a program prints, given `text`. Raises `ValueError` when it does not run, or fails.

    Ctrl-C at the terminal is for whoever asks, not for the program: ended by it, it would seem not to serve.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=_PROBE_SECONDS, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{words[0]} must run, not fail with: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(f"`{shlex.join(words)}` must succeed, not end with: {said}")
    return done.stdout


def cached(folder: Path, program: str) -> list[Path]:
    """Return `program` of each version in the folder, the newest first."""
    return sorted(folder.glob(f"*/{program}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def first_that_serves(
    candidates: Iterable[Candidate], check: Callable[[Candidate], Found]
) -> tuple[Found | None, tuple[str, ...]]:
    """Return what `check` says of the first that it raises no `ValueError` for, and why others were passed over."""
    rejected: list[str] = []
    for candidate in candidates:
        try:
            return check(candidate), tuple(rejected)
        except ValueError as reason:
            rejected.append(str(reason))
    return None, tuple(rejected)


def find_or_make(
    folder: Path, find: Callable[[], Found | None], make: Callable[[], Found], progress: Progress, making: str
) -> Found:
    """Return what is found, or made by one of all set-ups of this user; the others wait, and find it.

    `making` says to those who wait what they wait for: "fetching QEMU".
    """
    found = find()
    if found is not None:
        return found
    with locked(folder, lambda: progress.note(f"waiting for another set-up, which is {making}")):
        found = find()
        return make() if found is None else found


def settle(new: Path, final: Path) -> None:
    """Move a staged folder to its place, whole; what no longer served there goes."""
    if final.exists():
        shutil.rmtree(final)
    new.rename(final)


def fetch(
    debian: Debian,
    folder: Path,
    architecture: str,
    prepare: Callable[[Path], str],
    check: Callable[[Path], Found],
    progress: Progress,
) -> Found:
    """Fetch Debian's packages into `folder`, whose lock the caller holds; return what `check` says of the part.

    `prepare` is given a folder in whose `root` the packages are unpacked. It leaves there what is to be kept, and
    returns where in it the part lies, which `check` is given: one that does not serve is not kept.

    Raises:
        ProvisionError: The packages cannot be fetched, or do not serve here.
    """
    archive = apt.machine_archive(debian.remedy)
    with staging(folder) as stage:
        new = stage / "new"
        versions = apt.fetch(
            archive,
            debian.packages,
            new / "root",
            architecture=architecture,
            suites=debian.suites,
            work=stage / "apt",
            progress=progress,
            remedy=debian.remedy,
        )
        part = prepare(new)
        try:
            check(new / part)
        except ValueError as reason:
            raise ProvisionError(f"the fetched {debian.name} cannot be used: {reason}", debian.remedy) from reason
        # No epoch: its colon would end an entry of PATH; no tilde: commands that are shown would have to quote it.
        final = folder / versions[debian.packages[0]].rpartition(":")[2].replace("~", "-")
        settle(new, final)
    return check(final / part)


def write_script(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)
