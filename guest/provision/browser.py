"""A headless Chromium, in which the tests open the pages: the machine's own, or Debian's, in the cache.

Only the tests need it: a page that was made is opened with any browser.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import cache_directory, locked, staging
from .errors import ProvisionError
from .progress import Progress
from .qemu import LOADERS

PACKAGE = "chromium-headless-shell"
PROGRAMS = (PACKAGE, "chromium", "google-chrome", "google-chrome-stable")
"""What it is called on PATH."""
MINIMUM = 123
"""The first that has CSS' light-dark(), which the pages use."""
_FONTS = "fonts-dejavu-core"
_SUITES = ("trixie",)
_UNUSED = ("libLLVM*", "libgallium-*", "libz3.so*")
"""Mesa's compilers, 195 MB of libraries that are loaded only to draw on a graphics card."""
_PROBE_SECONDS = 60
_REMEDY = f"install Chromium {MINIMUM} or newer (Debian package {PACKAGE}) on PATH"


@dataclass(frozen=True)
class Browser:
    """A browser that runs: its path and its version."""

    path: Path
    version: str


def check(path: Path) -> Browser:
    """Ask the browser at `path` what it is; raise `ValueError` that says why it cannot serve."""
    try:
        done = subprocess.run(
            [path, "--no-sandbox", "--version"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{path} must run, not fail with: {error}") from error
    version = re.search(r"\b(\d+)(\.\d+)+", done.stdout)
    if version is None or int(version[1]) < MINIMUM:
        raise ValueError(f"{path} must be Chromium {MINIMUM} or newer, not {done.stdout.strip()[:80]!r}")
    return Browser(path, version[0])


def _folder() -> Path:
    return cache_directory() / "browser"


def _candidates() -> Iterator[Path]:
    for name in PROGRAMS:
        if on_path := shutil.which(name):
            yield Path(on_path).absolute()
    yield from sorted(_folder().glob(f"*/{PACKAGE}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def find_browser() -> Browser | None:
    """The first that serves, of PATH and the cache."""
    for path in _candidates():
        try:
            return check(path)
        except ValueError:
            continue
    return None


def provide_browser(progress: Progress) -> Browser:
    """Return the browser to use; fetch Debian's into the cache when there is none. Raises `ProvisionError`."""
    if found := find_browser():
        return found
    with locked(_folder(), lambda: progress.note("waiting for another set-up, which is fetching Chromium")):
        return find_browser() or _fetch(_folder(), progress)


def _fetch(folder: Path, progress: Progress) -> Browser:
    archive = apt.machine_archive(_REMEDY)
    architecture = apt.host_architecture()
    if architecture not in LOADERS:
        raise ProvisionError(f"the host must be amd64 or arm64 for a fetched Chromium, not {architecture}", _REMEDY)
    loader, libraries = LOADERS[architecture]
    with staging(folder) as stage:
        root = stage / "new/root"
        versions = apt.fetch(
            archive,
            [PACKAGE, _FONTS],
            root,
            architecture=architecture,
            suites=_SUITES,
            work=stage / "apt",
            progress=progress,
            remedy=_REMEDY,
        )
        for pattern in _UNUSED:
            for library in (root / libraries).glob(pattern):
                library.unlink()
        shutil.copy(root / loader, root / "usr/lib/chromium/loader")
        (stage / "new/fonts.conf").write_text(_FONTS_CONF)
        wrapper = stage / "new" / PACKAGE
        wrapper.write_text(_wrapper(libraries))
        wrapper.chmod(0o755)
        try:
            check(wrapper)
        except ValueError as reason:
            raise ProvisionError(f"the fetched Chromium cannot be used: {reason}", _REMEDY) from reason
        final = folder / versions[PACKAGE]
        if final.exists():
            shutil.rmtree(final)
        wrapper.parent.rename(final)
    return check(final / PACKAGE)


_FONTS_CONF = """\
<?xml version="1.0"?>
<fontconfig>
  <dir prefix="relative">root/usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
</fontconfig>
"""


def _wrapper(libraries: str) -> str:
    """Chromium finds its files beside what /proc/self/exe names, the loader, and starts more processes of that.

    So the loader stands in Chromium's folder, and the processes are started by this script, each by itself.
    """
    return f"""#!/bin/sh
# Runs the Chromium of another Debian release with that release's own loader, libraries and fonts; takes its options.
self=$(readlink -f "$0")
root=$(dirname "$self")/root
export FONTCONFIG_FILE="$(dirname "$self")/fonts.conf"
exec "$root/usr/lib/chromium/loader" --library-path "$root/{libraries}:$root/{libraries}/pulseaudio" \\
  "$root/usr/lib/chromium/{PACKAGE}" --browser-subprocess-path="$self" --no-zygote "$@"
"""
