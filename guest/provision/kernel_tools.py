"""What an arm64 Linux is built with: the machine's own tools, or Debian's, relocated into the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_directory, locked, staging
from .compiler import GCC
from .errors import ProvisionError
from .progress import Progress

PREFIX = "aarch64-linux-gnu-"
PACKAGES = {
    GCC: "gcc-aarch64-linux-gnu",
    f"{PREFIX}ld": "binutils-aarch64-linux-gnu",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "m4": "m4",
    "bc": "bc",
}
"""Programs, and the Debian package of each. The kernel's own helpers are built by the machine's `cc`."""
_NATIVE = {"gcc-aarch64-linux-gnu": "gcc", "binutils-aarch64-linux-gnu": "binutils"}
"""Where the host is arm64 itself, the packages of the compiler, which has the same name."""
_SUITES = ("bookworm",)
"""The oldest release that this project runs on: its programs start with the C library of any later one."""
_LIBRARIES = (
    *("libbfd", "libopcodes", "libctf", "libsframe", "libjansson", "libz"),  # of the binutils
    *("libgmp", "libisl", "libmpc", "libmpfr"),  # of the compiler
    *("libreadline", "libtinfo"),  # of bc
)
_REMEDY = "install the Debian packages " + ", ".join(dict.fromkeys(PACKAGES.values()))


@dataclass(frozen=True)
class KernelTools:
    """A folder to be put in front of PATH (None: all are there already), and what the compiler says that it is."""

    folder: Path | None
    compiler: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of `make`."""
        path = os.environ.get("PATH", os.defpath)
        found = {**os.environ, "LC_ALL": "C", "PATH": path if self.folder is None else f"{self.folder}:{path}"}
        for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL"):  # `make kernel` is no part of the kernel's
            found.pop(name, None)
        return found


def _lacking() -> list[str]:
    return [program for program in PACKAGES if shutil.which(program) is None]


def _check(folder: Path | None) -> KernelTools:
    """Ask the compiler what it is. Raises `ValueError`."""
    compiler = GCC if folder is None else str(folder / GCC)
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{compiler} must run, not fail with: {error}") from error
    return KernelTools(folder, done.stdout.partition("\n")[0])


def find_kernel_tools() -> KernelTools | None:
    """The machine's own tools, or those in the cache; None if there are neither."""
    places = [] if _lacking() else [None]
    cached = sorted(_folder().glob("*/bin"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for place in [*places, *cached]:
        try:
            return _check(place)
        except ValueError:
            continue
    return None


def provide_kernel_tools(progress: Progress) -> KernelTools:
    """Return the tools to use; fetch Debian's into the cache (60 MB) when the machine lacks one.

    Raises:
        ProvisionError: They cannot be fetched, or do not run here.
    """
    if found := find_kernel_tools():
        return found
    with locked(_folder(), lambda: progress.note("waiting for another set-up, which is fetching the kernel's tools")):
        return find_kernel_tools() or _fetch(progress)


def _folder() -> Path:
    return cache_directory() / "kernel-tools"


def _fetch(progress: Progress) -> KernelTools:
    architecture = apt.host_architecture()
    packages = [_NATIVE.get(name, name) if architecture == "arm64" else name for name in PACKAGES.values()]
    with staging(_folder()) as stage:
        versions = apt.fetch(
            apt.machine_archive(_REMEDY),
            packages,
            stage / "new/root",
            architecture=architecture,
            suites=_SUITES,
            work=stage / "apt",
            progress=progress,
            remedy=_REMEDY,
        )
        new = stage / "new"
        _gather_libraries(new)
        _wrap(new)
        try:
            _check(new / "bin")
        except ValueError as reason:
            raise ProvisionError(f"the fetched compiler cannot be used: {reason}", _REMEDY) from reason
        final = _folder() / versions[packages[0]].replace(":", ".")
        if final.exists():
            shutil.rmtree(final)
        new.rename(final)
    return _check(final / "bin")


def _gather_libraries(new: Path) -> None:
    """The libraries that the tools need beside the C library, which must be the machine's own."""
    libraries = new / "libraries"
    libraries.mkdir()
    for name in _LIBRARIES:
        for library in [*new.glob(f"root/lib/*/{name}*.so*"), *new.glob(f"root/usr/lib/*/{name}*.so*")]:
            (libraries / library.name).symlink_to(os.path.relpath(library, libraries))


def _wrap(new: Path) -> None:
    """Write a script for each tool, which runs by hand too: relocated, and with its own libraries."""
    folder = new / "bin"
    folder.mkdir()
    for tool in new.glob("root/usr/bin/*"):
        if not tool.name.startswith(PREFIX) and tool.name not in PACKAGES:
            continue
        script = folder / tool.name
        script.write_text(
            f"""#!/bin/sh
# Runs Debian's {tool.name} from where it was unpacked, with the libraries that came with it.
root=$(dirname "$(dirname "$(readlink -f "$0")")")
export LD_LIBRARY_PATH="$root/libraries" BISON_PKGDATADIR="$root/root/usr/share/bison" M4="$root/root/usr/bin/m4"
exec "$root/root/usr/bin/{tool.name}" "$@"
"""
        )
        script.chmod(0o755)
