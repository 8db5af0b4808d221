"""The kernel of the schemes: built once of source, patches and configuration, and what is said when it cannot be."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pyvfio_user.guest.provision import apt, kernel_build
from pyvfio_user.guest.provision.errors import ProvisionError
from pyvfio_user.guest.provision.kernel_build import SOURCE, find_built_kernel, provide_built_kernel
from pyvfio_user.guest.provision.kernel_tools import KernelTools
from pyvfio_user.guest.provision.progress import Progress

CONFIG = "# a comment\nCONFIG_KVM=y\n"
PATCH = """\
A message.

diff --git a/arch/arm64/policy b/arch/arm64/policy
--- a/arch/arm64/policy
+++ b/arch/arm64/policy
@@ -1 +1 @@
-old
+new
"""
MAKE = """\
#!/bin/sh
echo "$* in $MAKEFLAGS" >> {log}
case "$*" in
  *allnoconfig) cat "$KCONFIG_ALLCONFIG" > .config ;;
  *) mkdir -p arch/arm64/boot include/config
     cat arch/arm64/policy > arch/arm64/boot/Image; echo 7.3.4-schemes > include/config/kernel.release
     : > System.map; echo '  CC      a.o'; {ending} ;;
esac
"""
FILES = {
    "arch/arm64/policy": "old\n",
    "arch/x86/Kconfig": "kept",
    "arch/x86/a.c": "unpacked in vain",
    "drivers/gpu/big.c": "unpacked in vain",
    "drivers/vfio/vfio.c": "kept",
}


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def source(into: Path, files: Mapping[str, str]) -> None:
    """Debian's source package, unpacked: an archive of the source."""
    folder = into / "usr/src"
    folder.mkdir(parents=True)
    with tarfile.open(folder / f"{SOURCE}.tar.xz", "w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{SOURCE}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))


class Machine:
    """A machine whose archive has a tiny Linux, and whose `make` writes what was patched into the Image."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = folder / "cache/pyvfio-user/kernel-built"
        self.log = folder / "made"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.asked: list[list[str]] = []
        self.make("exit 0")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv("MAKEFLAGS", "-j9")
        monkeypatch.setattr(apt, "machine_archive", lambda remedy: apt.Archive(("mirror",), folder))
        monkeypatch.setattr(apt, "host_architecture", lambda remedy: "amd64")
        monkeypatch.setattr(apt, "fetch", self._fetch)
        monkeypatch.setattr(kernel_build, "provide_kernel_tools", lambda progress: KernelTools(self.bin, "gcc 12"))

    def make(self, ending: str) -> None:
        """Have `make` end so."""
        program = self.bin / "make"
        program.write_text(MAKE.format(log=self.log, ending=ending))
        program.chmod(0o755)

    def _fetch(self, archive: apt.Archive, packages: list[str], into: Path, **options: Any) -> dict[str, str]:
        self.asked.append([*packages, *options["suites"], options["architecture"]])
        source(into, FILES)
        return {SOURCE: "7.3.4-1"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    ours(monkeypatch)
    return made


def ours(monkeypatch: pytest.MonkeyPatch, config: str = CONFIG, patch: str = PATCH) -> None:
    """Of what the kernel is built."""
    monkeypatch.setattr(kernel_build, "_ours", lambda: (config, [("0001-policy.patch", patch)]))


def test_it_is_built_once(machine: Machine) -> None:
    assert find_built_kernel() is None
    kernel = provide_built_kernel(quiet())
    assert kernel.image.read_text() == "new\n"
    assert kernel.config.read_text() == CONFIG
    assert kernel.release == "7.3.4-schemes"
    assert provide_built_kernel(quiet()) == find_built_kernel() == kernel
    assert machine.asked == [["linux-source-7.3", "trixie", "trixie-backports", "amd64"]]
    lines = machine.log.read_text().splitlines()
    common = "ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KBUILD_BUILD_USER=pyvfio-user KBUILD_BUILD_HOST=localhost"
    assert lines == [f"{common} allnoconfig in ", f"{common} -j{os.cpu_count()} Image in "]
    assert sorted(path.name for path in machine.cache.iterdir() if path.is_dir()) == [kernel.image.parents[1].name]


def test_other_patches_are_another_kernel(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = provide_built_kernel(quiet())
    ours(monkeypatch, patch=PATCH.replace("+new", "+newer"))
    assert find_built_kernel() is None
    second = provide_built_kernel(quiet())
    assert (first.image.read_text(), second.image.read_text()) == ("new\n", "newer\n")
    ours(monkeypatch, config=CONFIG + "CONFIG_VFIO=y\n")
    assert find_built_kernel() is None
    ours(monkeypatch)
    assert find_built_kernel() == first


def test_only_what_is_needed_of_the_source_is_unpacked(machine: Machine) -> None:
    listing = machine.log.with_name("listing")
    machine.make(f"find . -name '*.c' -o -name Kconfig | sort > {listing}")
    provide_built_kernel(quiet())
    assert listing.read_text().split() == ["./arch/x86/Kconfig", "./drivers/vfio/vfio.c"]


def test_a_patch_that_does_not_apply(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    ours(monkeypatch, patch=PATCH.replace("-old", "-older"))
    with pytest.raises(
        ProvisionError, match=r"0001-policy\.patch must apply to linux-source-7\.3: error: patch failed"
    ):
        provide_built_kernel(quiet())
    assert find_built_kernel() is None


def test_an_option_that_vanishes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.bin.joinpath("make").write_text("#!/bin/sh\necho CONFIG_KVM=y > .config\n")
    ours(monkeypatch, config=CONFIG + 'CONFIG_NAME="a"\nCONFIG_OFF=n\n')
    with pytest.raises(ProvisionError, match='configuration must have CONFIG_NAME="a"\n'):
        provide_built_kernel(quiet())


def test_a_build_that_fails_shows_the_last_lines_of_its_log(machine: Machine) -> None:
    machine.make("seq 1000; echo 'a.c:1: error: no such thing' >&2; exit 2")
    with pytest.raises(ProvisionError) as failed:
        provide_built_kernel(quiet())
    log = machine.cache / "build.log"
    said = str(failed.value)
    assert re.search(r"^`make ARCH=arm64 .* Image` ended with 2; the last lines of ", said)
    assert f"{log}:\n977\n" in said
    assert "\na.c:1: error: no such thing\n" in said
    assert "  CC      a.o\n1\n2\n" in log.read_text()
    assert find_built_kernel() is None
    machine.make("exit 0")
    assert provide_built_kernel(quiet()).image.read_text() == "new\n"


def test_a_long_build_says_how_far_it_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyvfio_user.guest.provision.progress._LONG_SECONDS", 0.0)
    monkeypatch.setattr(kernel_build, "_STEPS", 5)
    machine.make("seq 4")
    said = io.StringIO()
    provide_built_kernel(Progress(Console(file=said, width=200)))
    title = "building Linux 7.3.4-1 with 1 patches"
    lines = [line for line in said.getvalue().splitlines() if line.startswith(title)]
    assert lines[:4] == [f"{title} ...", f"{title}: 25%", f"{title}: 50%", f"{title}: 75%"]
    assert len(lines) == 5
