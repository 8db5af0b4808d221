"""Chromium: found on PATH or in the cache, or fetched once, with what only graphics cards need left out."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pyvfio_user.guest.provision import apt
from pyvfio_user.guest.provision.browser import Browser, check, find_browser, provide_browser
from pyvfio_user.guest.provision.errors import ProvisionError
from pyvfio_user.guest.provision.progress import Progress

from ..fake_debian import script

FAKE = "#!/bin/sh\necho 'Chromium {version} built on Debian'\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no browser on PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "path").mkdir()
    (tmp_path / "tools").mkdir()
    for tool in ("sh", "dirname", "readlink"):
        (tmp_path / "tools" / tool).symlink_to(Path("/usr/bin") / tool)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{tmp_path / 'tools'}")
    monkeypatch.setattr(apt, "machine_archive", lambda remedy: apt.Archive(("mirror",), tmp_path))
    monkeypatch.setattr(apt, "host_architecture", lambda remedy: "amd64")
    return tmp_path / "cache/pyvfio-user/browser"


def fetched(monkeypatch: pytest.MonkeyPatch, version: str = "156.0.1.2") -> list[list[str]]:
    """apt.fetch unpacks a fake loader that answers as Chromium, and libraries; what was asked for."""
    asked: list[list[str]] = []

    def fetch(archive: apt.Archive, packages: list[str], into: Path, **options: Any) -> dict[str, str]:
        asked.append([*packages, *options["suites"], options["architecture"]])
        (into / "usr/lib64").mkdir(parents=True)
        script(into / "usr/lib64/ld-linux-x86-64.so.2", FAKE.format(version=version))
        (into / "usr/lib/chromium").mkdir(parents=True)
        libraries = into / "usr/lib/x86_64-linux-gnu"
        libraries.mkdir()
        for name in ("libLLVM.so.19.1", "libgallium-25.0.7.so", "libz3.so.4", "libz.so.1"):
            (libraries / name).touch()
        return {"chromium-headless-shell": "156.0.1.2-1~deb13u1", "fonts-dejavu-core": "2.37"}

    monkeypatch.setattr(apt, "fetch", fetch)
    return asked


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def test_it_is_fetched_once_without_what_only_graphics_cards_need(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fetched(monkeypatch)
    assert find_browser() is None
    browser = provide_browser(quiet())
    folder = cache / "156.0.1.2-1-deb13u1"
    assert browser == Browser(folder / "chromium-headless-shell", "156.0.1.2")
    assert [path.name for path in (folder / "root/usr/lib/x86_64-linux-gnu").iterdir()] == ["libz.so.1"]
    assert provide_browser(quiet()) == find_browser() == browser
    assert asked == [["chromium-headless-shell", "fonts-dejavu-core", "trixie", "amd64"]]


@pytest.mark.parametrize("name", ["chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable"])
def test_one_on_path_comes_first_if_it_serves(cache: Path, tmp_path: Path, name: str) -> None:
    (cache / "150").mkdir(parents=True)
    cached = script(cache / "150/chromium-headless-shell", FAKE.format(version="150.1"))
    on_path = script(tmp_path / "path" / name, FAKE.format(version="123.0.1"))
    assert find_browser() == Browser(on_path, "123.0.1")
    script(on_path, FAKE.format(version="122.9"))
    assert find_browser() == Browser(cached, "150.1")


def test_one_that_cannot_serve_says_why(tmp_path: Path) -> None:
    old = script(tmp_path / "old", FAKE.format(version="122.0.6261.128"))
    with pytest.raises(ValueError) as caught:
        check(old)
    assert str(caught.value) == (f"{old} must be Chromium 123 or newer, not 'Chromium 122.0.6261.128 built on Debian'")
    with pytest.raises(ValueError, match=r"/none must run, not fail with: .*No such file"):
        check(tmp_path / "none")


def test_a_fetched_one_that_cannot_serve_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, "99.0")
    with pytest.raises(
        ProvisionError, match=r"the fetched Chromium cannot be used: .* must be Chromium 123 or newer"
    ) as said:
        provide_browser(quiet())
    assert said.value.remedy == "install Chromium 123 or newer (Debian package chromium-headless-shell) on PATH"
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_no_package_for_this_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "host_architecture", lambda remedy: "riscv64")
    with pytest.raises(ProvisionError, match="host must be amd64 or arm64 for a fetched Chromium, not riscv64"):
        provide_browser(quiet())


def test_the_real_one_draws_text_in_the_fonts_that_came_with_it(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>text</p><script>document.body.append(document.querySelector('p').offsetHeight > 9)</script>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    browser = provide_browser(quiet())
    done = subprocess.run([browser.path, *options, page.as_uri()], capture_output=True, text=True, timeout=60)
    assert "<p>text</p>" in done.stdout and "true</body>" in done.stdout.replace("\n", "")
