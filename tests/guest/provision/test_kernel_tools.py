"""What a kernel is built with: the machine's own tools, or Debian's, relocated and wrapped."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pyvfio_user.guest.provision import apt
from pyvfio_user.guest.provision.errors import ProvisionError
from pyvfio_user.guest.provision.kernel_tools import (
    PACKAGES,
    KernelTools,
    find_kernel_tools,
    provide_kernel_tools,
)
from pyvfio_user.guest.provision.progress import Progress

from ..fake_debian import script

GCC = "aarch64-linux-gnu-gcc"
FAKE = '#!/bin/sh\necho "fake gcc 12.2 $LD_LIBRARY_PATH $M4"\n'


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder on PATH, but for what a shell script needs; an empty cache; an archive that has the tools."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in ("sh", "dirname", "readlink"):
        folder.joinpath(tool).symlink_to(f"/usr/bin/{tool}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(apt, "machine_archive", lambda remedy: apt.Archive(("mirror",), tmp_path))
    monkeypatch.setattr(apt, "host_architecture", lambda remedy: "amd64")
    return folder


def fetched(monkeypatch: pytest.MonkeyPatch, compiler: str = FAKE) -> list[list[str]]:
    """apt.fetch unpacks these tools; what was asked for."""
    asked: list[list[str]] = []

    def fetch(archive: apt.Archive, packages: list[str], into: Path, **options: Any) -> dict[str, str]:
        asked.append([*packages, *options["suites"], options["architecture"]])
        for folder in ("usr/bin", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"):
            (into / folder).mkdir(parents=True)
        script(into / "usr/bin" / GCC, compiler)
        script(into / "usr/bin/m4", "#!/bin/sh\n")
        script(into / "usr/bin/tar", "#!/bin/sh\n")
        (into / "usr/lib/x86_64-linux-gnu/libgmp.so.10").touch()
        (into / "lib/x86_64-linux-gnu/libz.so.1").touch()
        (into / "lib/x86_64-linux-gnu/libc.so.6").touch()
        return {packages[0]: "4:12.2.0-3"}

    monkeypatch.setattr(apt, "fetch", fetch)
    return asked


def test_the_machines_own_come_first(path: Path) -> None:
    for tool in PACKAGES:
        script(path / tool, FAKE)
    assert provide_kernel_tools(quiet()) == KernelTools(None, "fake gcc 12.2  ")


def test_they_are_fetched_where_one_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in PACKAGES:
        script(path / tool, FAKE)
    (path / "flex").unlink()
    asked = fetched(monkeypatch)
    assert find_kernel_tools() is None
    tools = provide_kernel_tools(quiet())
    packages = ["gcc-aarch64-linux-gnu", "binutils-aarch64-linux-gnu", "make", "flex", "bison", "m4", "bc"]
    assert asked == [[*packages, "bookworm", "amd64"]]
    root = path.parent / "cache/pyvfio-user/kernel-tools/12.2.0-3"
    assert tools == KernelTools(root / "bin", f"fake gcc 12.2 {root}/libraries {root}/root/usr/bin/m4")
    assert sorted(each.name for each in (root / "bin").iterdir()) == [GCC, "m4"]
    # The C library must be the machine's own.
    assert sorted(each.name for each in (root / "libraries").iterdir()) == ["libgmp.so.10", "libz.so.1"]
    assert all(each.exists() for each in (root / "libraries").iterdir())
    assert provide_kernel_tools(quiet()) == find_kernel_tools() == tools
    assert tools.environment["PATH"] == f"{root}/bin:{path}"
    said = subprocess.run([GCC], env=tools.environment, capture_output=True, text=True, check=True).stdout
    assert said == f"{tools.compiler}\n"


def test_an_arm64_host_has_the_compiler_under_another_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fetched(monkeypatch)
    monkeypatch.setattr(apt, "host_architecture", lambda remedy: "arm64")
    assert provide_kernel_tools(quiet()).compiler.startswith("fake gcc 12.2 ")
    assert asked == [["gcc", "binutils", "make", "flex", "bison", "m4", "bc", "bookworm", "arm64"]]


def test_fetched_tools_that_do_not_run_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, "#!/bin/sh\necho no >&2; exit 1\n")
    remedy = "install the Debian packages gcc-aarch64-linux-gnu, binutils-aarch64-linux-gnu, make, flex, bison, m4, bc"
    with pytest.raises(
        ProvisionError, match=r"the fetched compiler cannot be used: `.* must succeed, not end with: no"
    ) as failed:
        provide_kernel_tools(quiet())
    assert failed.value.remedy == remedy
    assert find_kernel_tools() is None
