"""A headless Chromium, in which the tests open the pages: the machine's own, or Debian's, in the cache.

Only the tests need it: a page that was made is opened with any browser.
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

PACKAGE = "chromium-headless-shell"
PROGRAMS = (PACKAGE, "chromium", "google-chrome", "google-chrome-stable")
"""What it is called on PATH."""
MINIMUM = 123
"""The first that has CSS' light-dark(), which the pages use."""
_UNUSED = ("libLLVM*", "libgallium-*", "libz3.so*")
"""Mesa's compilers, 195 MB of libraries that are loaded only to draw on a graphics card."""
_DEBIAN = Debian(
    "Chromium",
    [PACKAGE, "fonts-dejavu-core"],
    ["trixie"],
    f"install Chromium {MINIMUM} or newer (Debian package {PACKAGE}) on PATH",
)


@dataclass(frozen=True)
class Browser:
    """A browser that runs: its path and its version."""

    path: Path
    version: str


def check(path: Path) -> Browser:
    """Ask the browser at `path` what it is; raise `ValueError` that says why it cannot serve."""
    said = ask([path, "--no-sandbox", "--version"])
    version = re.search(r"\b(\d+)(\.\d+)+", said)
    if version is None or int(version[1]) < MINIMUM:
        raise ValueError(f"{path} must be Chromium {MINIMUM} or newer, not {said.strip()[:80]!r}")
    return Browser(path, version[0])


def _folder() -> Path:
    return cache_directory() / "browser"


def _candidates() -> Iterator[Path]:
    for name in PROGRAMS:
        if on_path := shutil.which(name):
            yield Path(on_path).absolute()
    yield from cached(_folder(), PACKAGE)


def find_browser() -> Browser | None:
    """The first that serves, of PATH and the cache."""
    return first_that_serves(_candidates(), check)[0]


def provide_browser(progress: Progress) -> Browser:
    """Return the browser to use; fetch Debian's into the cache when there is none. Raises `ProvisionError`."""

    def fetched() -> Browser:
        here = host(_DEBIAN)
        return fetch(_DEBIAN, _folder(), here.architecture, lambda new: _prepare(new, here), check, progress)

    return find_or_make(_folder(), find_browser, fetched, progress, "fetching Chromium")


def _prepare(new: Path, here: Host) -> str:
    """Chromium finds its files beside what /proc/self/exe names, the loader, and starts more processes of that.

    So the loader stands in Chromium's folder, and the processes are started by the script, each by itself.
    """
    root = new / "root"
    for pattern in _UNUSED:
        for library in (root / here.libraries).glob(pattern):
            library.unlink()
    shutil.copy(root / here.loader, root / "usr/lib/chromium/loader")
    (new / "fonts.conf").write_text(_FONTS_CONF)
    wrapper = f"""#!/bin/sh
# Runs the Chromium of another Debian release with that release's own loader, libraries and fonts; takes its options.
self=$(readlink -f "$0")
root=$(dirname "$self")/root
export FONTCONFIG_FILE="$(dirname "$self")/fonts.conf"
exec "$root/usr/lib/chromium/loader" --library-path "$root/{here.libraries}:$root/{here.libraries}/pulseaudio" \\
  "$root/usr/lib/chromium/{PACKAGE}" --browser-subprocess-path="$self" --no-zygote "$@"
"""
    write_script(new / PACKAGE, wrapper)
    return PACKAGE


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
