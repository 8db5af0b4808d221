"""What an arm64 Linux is built with: the machine's own tools, or Debian's, relocated into the user's cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_directory
from .compiler import GCC
from .part import Debian, ask, cached, fetch, find_or_make, first_that_serves, write_script
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
_SUITE = "bookworm"
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
    said = ask([GCC if folder is None else folder / GCC, "--version"])
    return KernelTools(folder, said.partition("\n")[0])


def _folder() -> Path:
    return cache_directory() / "kernel-tools"


def find_kernel_tools() -> KernelTools | None:
    """The machine's own tools, or those in the cache; None if there are neither."""
    machine = [] if _lacking() else [None]
    return first_that_serves([*machine, *cached(_folder(), "bin")], _check)[0]


def provide_kernel_tools(progress: Progress) -> KernelTools:
    """Return the tools to use; fetch Debian's into the cache (60 MB) when the machine lacks one.

    Raises:
        ProvisionError: They cannot be fetched, or do not run here.
    """

    def fetched() -> KernelTools:
        architecture = apt.host_architecture(_REMEDY)
        packages = [_NATIVE.get(name, name) if architecture == "arm64" else name for name in PACKAGES.values()]
        debian = Debian("compiler", packages, [_SUITE], _REMEDY)
        return fetch(debian, _folder(), architecture, _prepare, _check, progress)

    return find_or_make(_folder(), find_kernel_tools, fetched, progress, "fetching the kernel's tools")


def _prepare(new: Path) -> str:
    _gather_libraries(new)
    _wrap(new)
    return "bin"


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
        wrapper = f"""#!/bin/sh
# Runs Debian's {tool.name} from where it was unpacked, with the libraries that came with it.
root=$(dirname "$(dirname "$(readlink -f "$0")")")
export LD_LIBRARY_PATH="$root/libraries" BISON_PKGDATADIR="$root/root/usr/share/bison" M4="$root/root/usr/bin/m4"
exec "$root/root/usr/bin/{tool.name}" "$@"
"""
        write_script(folder / tool.name, wrapper)
