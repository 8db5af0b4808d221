"""The kernels in the cache: found, or fetched once and whole."""

from __future__ import annotations

import io
import re
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


def fetched(monkeypatch: pytest.MonkeyPatch, version: str, files: dict[str, str]) -> list[list[str]]:
    """apt.fetch unpacks these files, as a package of that version; what was asked for."""
    asked: list[list[str]] = []

    def fetch(archive: apt.Archive, packages: list[str], into: Path, **options: Any) -> dict[str, str]:
        asked.append([*packages, *options["suites"], options["architecture"]])
        for name, content in files.items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_text(content)
        return {PACKAGE: version}

    monkeypatch.setattr(apt, "fetch", fetch)
    return asked


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def test_a_kernel_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = "6.1.0-1-cloud-arm64"
    files = {
        f"boot/vmlinuz-{release}": "kernel",
        f"boot/config-{release}": "CONFIG_KVM=y",
        f"lib/modules/{release}/kernel/a.ko": "module",
    }
    asked = fetched(monkeypatch, "6.1.1-1", files)
    assert find_kernel() is None
    kernel = provide_kernel(quiet())
    folder = cache / "6.1.1-1"
    assert kernel == Kernel(folder / f"boot/vmlinuz-{release}", folder / f"lib/modules/{release}", release)
    assert kernel.image.read_text() == "kernel"
    assert kernel.config.read_text() == "CONFIG_KVM=y"
    assert (kernel.modules / "kernel/a.ko").read_text() == "module"
    assert provide_kernel(quiet()) == find_kernel() == kernel
    assert asked == [["linux-image-cloud-arm64", "bookworm", "arm64"]]
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".lock")] == ["6.1.1-1"]


def test_a_kernel_whose_image_lies_among_its_modules(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = "usr/lib/modules/7.3.4+deb13-cloud-arm64"
    files = {f"{modules}/vmlinuz": "k", f"{modules}/config": "CONFIG_KVM=y", f"{modules}/kernel/a.ko.xz": "m"}
    asked = fetched(monkeypatch, "7.3.4-1~bpo13+1", files)
    kernel = provide_kernel(quiet(), "7.3")
    assert kernel.release == "7.3.4+deb13-cloud-arm64"
    assert kernel.image.read_text() == "k"
    assert kernel.config.read_text() == "CONFIG_KVM=y"
    assert [path.name for path in kernel.modules.rglob("*.ko*")] == ["a.ko.xz"]
    assert asked == [["linux-image-cloud-arm64", "trixie", "trixie-backports", "arm64"]]


def test_one_of_several_in_the_cache(cache: Path) -> None:
    for release in ("6.1.0-9", "6.1.0-50", "6.12.117"):
        (cache / release / "boot").mkdir(parents=True)
        (cache / release / "boot" / f"vmlinuz-{release}").touch()
    found = [find_kernel(name) for name in ("6.1", "6.12", "7.3")]
    assert [kernel and kernel.release for kernel in found] == ["6.1.0-50", "6.12.117", None]


def test_a_package_without_a_kernel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, "6.1.1-1", {"etc/none": ""})
    with pytest.raises(
        ProvisionError, match=r"the fetched Linux 6\.1 cannot be used: linux-image-cloud-arm64 must bring its image"
    ):
        provide_kernel(quiet())


def test_a_kernel_that_nobody_has(cache: Path) -> None:
    message = "kernel must be one of 6.1, 6.12, 7.3, schemes, or the path of an Image, not 5.10"
    with pytest.raises(ProvisionError, match=re.escape(message)):
        provide_kernel(quiet(), "5.10")
