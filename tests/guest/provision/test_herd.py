"""herd7: found on PATH or in the cache, or fetched once, without the tools that come with it."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pyvfio_user.guest.provision import apt
from pyvfio_user.guest.provision.errors import ProvisionError
from pyvfio_user.guest.provision.herd import Herd, check, find_herd, provide_herd
from pyvfio_user.guest.provision.progress import Progress

from ..fake_debian import script

FAKE = """\
#!/bin/sh
[ "$1" = -version ] && {{ echo '{version}, Rev: exported'; exit; }}
echo {models}
"""


def fake_herd(path: Path, version: str = "7.58", model: str = "aarch64.cat") -> Path:
    """A program that answers as herd7 does, and the folder of its models."""
    models = path.parent / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / model).touch()
    return script(path, FAKE.format(version=version, models=models))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no herd7 on PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setattr(apt, "machine_archive", lambda remedy: apt.Archive(("mirror",), tmp_path))
    monkeypatch.setattr(apt, "host_architecture", lambda remedy: "amd64")
    return tmp_path / "cache/pyvfio-user/herd"


def fetched(monkeypatch: pytest.MonkeyPatch, version: str = "7.58") -> list[list[str]]:
    """apt.fetch unpacks a fake loader that answers as herd7, and two tools; what was asked for."""
    asked: list[list[str]] = []

    def fetch(archive: apt.Archive, packages: list[str], into: Path, **options: Any) -> dict[str, str]:
        asked.append([*packages, *options["suites"], options["architecture"]])
        (into / "usr/lib64").mkdir(parents=True)
        loader = (
            "#!/bin/sh\nshift 3; shift 2\n"
            + FAKE.format(version=version, models='"$(dirname "$0")"').partition("\n")[2]
        )
        script(into / "usr/lib64/ld-linux-x86-64.so.2", loader)
        (into / "usr/lib64/aarch64.cat").touch()
        (into / "usr/bin").mkdir()
        for tool in ("herd7", "diy7"):
            (into / "usr/bin" / tool).touch()
        return {"herdtools7": "7.58-2"}

    monkeypatch.setattr(apt, "fetch", fetch)
    return asked


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def test_herd7_is_fetched_once_and_only_it_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fetched(monkeypatch)
    assert find_herd() is None
    herd = provide_herd(quiet())
    folder = cache / "7.58-2"
    assert herd == Herd(folder / "herd7", "7.58", folder / "root/usr/lib64")
    assert [path.name for path in (folder / "root/usr/bin").iterdir()] == ["herd7"]
    assert provide_herd(quiet()) == find_herd() == herd
    assert asked == [["herdtools7", "forky", "amd64"]]


def test_one_on_path_comes_first_if_it_serves(cache: Path, tmp_path: Path) -> None:
    cached = fake_herd(cache / "7.58-2/herd7")
    on_path = fake_herd(tmp_path / "path/herd7", "7.59")
    assert find_herd() == Herd(on_path, "7.59", tmp_path / "path/models")
    fake_herd(on_path, "7.57")
    assert find_herd() == Herd(cached, "7.58", cache / "7.58-2/models")


def test_one_that_cannot_serve_says_why(tmp_path: Path) -> None:
    old = fake_herd(tmp_path / "old/herd7", "7.57")
    with pytest.raises(ValueError) as caught:
        check(old)
    assert str(caught.value) == f"{old} must be herd7 7.58 or newer, not '7.57'"
    bare = fake_herd(tmp_path / "bare/herd7", model="arm.cat")
    with pytest.raises(ValueError) as caught:
        check(bare)
    models = tmp_path / "bare/models"
    assert str(caught.value) == f"{bare} must have its models in {models}, but aarch64.cat is not there"
    with pytest.raises(ValueError, match=r"/none must run, not fail with: .*No such file"):
        check(tmp_path / "none")


def test_a_fetched_one_that_cannot_serve_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, "7.57")
    with pytest.raises(
        ProvisionError, match=r"the fetched herd7 cannot be used: .* must be herd7 7\.58 or newer"
    ) as said:
        provide_herd(quiet())
    assert said.value.remedy == "install herd7 7.58 or newer (Debian package herdtools7 of forky) on PATH"
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_no_package_for_this_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "host_architecture", lambda remedy: "riscv64")
    with pytest.raises(ProvisionError, match="host must be amd64 or arm64 for a fetched herd7, not riscv64"):
        provide_herd(quiet())


def test_the_real_one_runs_a_program(tmp_path: Path) -> None:
    """Message passing without a barrier is allowed."""
    program = tmp_path / "mp.litmus"
    program.write_text(
        "AArch64 MP\n{ 0:X1=x; 0:X2=y; 1:X1=x; 1:X2=y; }\n"
        " P0 | P1 ;\n MOV W0,#1 | LDR W3,[X2] ;\n STR W0,[X1] | DMB SY ;\n STR W0,[X2] | LDR W4,[X1] ;\n"
        "exists (1:X3=1 /\\ 1:X4=0)\n"
    )
    done = subprocess.run([provide_herd(quiet()).path, program], capture_output=True, text=True, check=True)
    assert "Observation MP Sometimes 1 3" in done.stdout
