"""The kernel in the cache: found, or fetched once and whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pyvfio_user.guest.provision import apt
from pyvfio_user.guest.provision.errors import ProvisionError
from pyvfio_user.guest.provision.kernel import PACKAGE, Kernel, find_kernel, provide_kernel
from pyvfio_user.guest.provision.progress import Progress


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(apt, "machine_archive", lambda remedy: apt.Archive(("mirror",), tmp_path))
    return tmp_path / "pyvfio-user" / "kernel"


def fetched(monkeypatch: pytest.MonkeyPatch, release: str | None) -> list[list[str]]:
    """apt.fetch brings a kernel of that release, or none; what was asked for."""
    asked: list[list[str]] = []

    def fetch(archive: apt.Archive, packages: list[str], into: Path, **options: Any) -> dict[str, str]:
        asked.append([*packages, *options["suites"], options["architecture"]])
        (into / "boot").mkdir(parents=True)
        (into / "lib/modules" / (release or "none")).mkdir(parents=True)
        if release:
            (into / "boot" / f"vmlinuz-{release}").write_bytes(b"kernel")
        return {PACKAGE: "6.1.1-1"}

    monkeypatch.setattr(apt, "fetch", fetch)
    return asked


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def test_a_kernel_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fetched(monkeypatch, "6.1.0-1-cloud-arm64")
    assert find_kernel() is None
    kernel = provide_kernel(quiet())
    assert kernel == Kernel(
        cache / "6.1.1-1/boot/vmlinuz-6.1.0-1-cloud-arm64",
        cache / "6.1.1-1/lib/modules/6.1.0-1-cloud-arm64",
        "6.1.0-1-cloud-arm64",
    )
    assert kernel.image.read_bytes() == b"kernel"
    assert kernel.modules.is_dir()
    assert provide_kernel(quiet()) == find_kernel() == kernel
    assert asked == [["linux-image-cloud-arm64", "bookworm", "arm64"]]
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".lock")] == ["6.1.1-1"]


def test_a_package_without_a_kernel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, None)
    with pytest.raises(ProvisionError, match=r"linux-image-cloud-arm64 6\.1\.1-1 brought no boot/vmlinuz-\*"):
        provide_kernel(quiet())
