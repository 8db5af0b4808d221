"""A Debian archive of one package for the tests: a fake apt in front of a real package that dpkg unpacks.

The package holds, in place of QEMU and its loader, a shell script that answers as QEMU does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

QEMU = """\
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    --version) echo 'QEMU emulator version {version} (a fake)'; exit 0 ;;
    -device) echo '{device}'; exit 0 ;;
    -accel) {accel} ;;
  esac
  shift
done
"""

_APT = """\
#!/bin/sh
echo "$@" >> {log}
for word; do
  case $previous in -c) configuration=$word ;; esac
  case $word in APT::Status-Fd=*) fd=${{word#*=}} ;; esac
  previous=$word
done
cp "$(dirname "$configuration")/sources.list" {log}.sources
echo "dlstatus:1:50.0:Retrieving file 1 of 1" > /proc/self/fd/$fd
case "$*" in
  *update*) {update} ;;
  *install*) cp {package} "$(dirname "$configuration")/cache/archives/" ;;
esac
"""


def script(path: Path, text: str) -> Path:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_qemu(
    path: Path, *, version: str = "11.1.3", device: str = 'name "vfio-user-pci", bus PCI', accel: str = ":"
) -> Path:
    """Write a program that answers `--version`, `-device help` and `-accel qtest` as it is told."""
    return script(path, QEMU.format(version=version, device=device, accel=accel))


class FakeDebian:
    """Programs in `bin`, to be put on PATH, and what apt-get was called with in `log`."""

    def __init__(self, folder: Path, *, update: str = ":", sources: str | None = None, **answers: str) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self._log = folder / "log"
        tree = folder / "package"
        for place in ("usr/lib64", "DEBIAN"):
            (tree / place).mkdir(parents=True)
        fake_qemu(tree / "usr/lib64/ld-linux-x86-64.so.2", **answers)
        control = "Package: qemu-system-arm\nVersion: 1:11.1.3~bpo13+1\nArchitecture: amd64\nMaintainer: a\n"
        (tree / "DEBIAN/control").write_text(control + "Description: fake\n")
        package = folder / "qemu-system-arm_1%3a11.1.3~bpo13+1_amd64.deb"
        subprocess.run(["dpkg-deb", "--build", tree, package], check=True, capture_output=True)
        script(self.bin / "apt-get", _APT.format(log=self._log, package=package, update=update))
        listing = folder / "sources.list"
        if sources is None:
            sources = "deb http://mirror.example/archive bookworm main\n"
        listing.write_text(sources)
        script(self.bin / "apt-config", f"#!/bin/sh\necho \"LIST='{listing}'\"\necho \"PARTS='{folder}/none/'\"\n")
        script(self.bin / "dpkg", '#!/bin/sh\n[ "$1" != --print-architecture ] || { echo amd64; exit; }\n'
               'exec dpkg-deb "$@"\n')  # fmt: skip

    @property
    def calls(self) -> list[str]:
        """The arguments of each call of apt-get."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    @property
    def sources(self) -> str:
        """The sources.list that the last call of apt-get was given."""
        return self._log.with_name("log.sources").read_text()
