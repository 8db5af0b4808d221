"""Installs a wheel for several versions of Python, each a fresh environment, and uses it there.

usage: import_wheel.py WHEEL VERSION...

An interpreter that the machine does not have is fetched from Debian and run in place, without root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyvfio_user.guest.provision import apt
from pyvfio_user.guest.provision.part import Debian, host
from pyvfio_user.guest.provision.progress import Progress

RELEASES = {"3.11": "bookworm", "3.13": "trixie"}
USE = """\
import asyncio, importlib, pkgutil, sys, tempfile

import pyvfio_user
from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.hotpath import _native
from pyvfio_user.bridge.server import serve
from pyvfio_user.devices.upcase import Upcase
from pyvfio_user.guest.machines import load_config
from pyvfio_user.guest.payload import sources
from pyvfio_user.guest.tracing import sources as tracer_sources

async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with serve(Upcase(), f"{folder}/s"), Client.connect(f"{folder}/s") as client:
            assert await client.config.read(0, 4) == 0x11CA1234
            await client.bars[0].write(8, 5, 2)
            assert await client.bars[0].read(8, 2) == 5

asyncio.run(main())
assert load_config("el2").command("qemu")
assert "start.S" in sources()
assert {"plugin.c", "event.h"} <= tracer_sources().keys()
names = [module.name for module in pkgutil.walk_packages(pyvfio_user.__path__, "pyvfio_user.")]
names.remove("pyvfio_user.bridge.hotpath.build")  # it compiles the extension: in a source tree only
for name in names:
    importlib.import_module(name)
print(f"Python {sys.version.split()[0]}: {len(names)} modules imported, a device served ({_native.__file__})")
"""


def found(version: str) -> str | None:
    """Return a Python of that version on PATH; a name there that does not run is passed over."""
    path = shutil.which(f"python{version}")
    return path if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0 else None


def fetched(version: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Fetch a Python of that version from Debian; return the command that runs it, and its environment."""
    debian = Debian("Python", [f"python{version}"], [RELEASES[version]], f"install Python {version}")
    here = host(debian)
    apt.fetch(
        apt.machine_archive(debian.remedy),
        debian.packages,
        folder / "root",
        architecture=here.architecture,
        suites=debian.suites,
        work=folder / "apt",
        progress=Progress(),
        remedy=debian.remedy,
    )
    loader, libraries = (str(folder / "root" / part) for part in (here.loader, here.libraries))
    command = [loader, "--library-path", libraries, str(folder / f"root/usr/bin/python{version}")]
    return command, {"PYTHONHOME": str(folder / "root/usr")}


def use(wheel: str, version: str, folder: Path) -> None:
    """Install the wheel with its extra `guest` for that version, and use it; raises when that fails."""
    python = found(version)
    environment: dict[str, str] = {}
    if python is not None:
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
        command = [str(folder / "venv/bin/python")]
        install = [*command, "-m", "pip", "install"]
    else:
        command, environment = fetched(version, folder)
        target = folder / "packages"
        environment["PYTHONPATH"] = str(target)
        install = [sys.executable, "-m", "pip", "install", "--target", str(target), "--only-binary=:all:"]
        install += ["--python-version", version]
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *quiet, f"{wheel}[guest]", "pytest-asyncio"], check=True)
    subprocess.run([*command, "-c", USE], check=True, cwd=folder, env={**os.environ, **environment})


def main() -> None:
    """Use the wheel on every version named; the first that fails ends it."""
    wheel, *versions = sys.argv[1:]
    for version in versions:
        with tempfile.TemporaryDirectory(prefix="pyvfio-user-wheel-") as folder:
            use(os.path.abspath(wheel), version, Path(folder))


if __name__ == "__main__":
    main()
