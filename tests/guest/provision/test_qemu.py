"""Finding and fetching QEMU."""

from __future__ import annotations

import concurrent.futures
import io
import multiprocessing
import os
from pathlib import Path

import pytest
from rich.console import Console

from pyvfio_user.guest.provision import apt
from pyvfio_user.guest.provision.errors import ProvisionError
from pyvfio_user.guest.provision.progress import Progress
from pyvfio_user.guest.provision.qemu import QemuBinary, check, find_qemu, provide_qemu

from ..fake_debian import FakeDebian, fake_qemu


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no QEMU named or on PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("QEMU_SYSTEM_AARCH64", raising=False)
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setattr("pyvfio_user.guest.provision.qemu.PROGRAM", "qemu-system-aarch64-fake")
    return tmp_path / "cache/pyvfio-user"


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "debian-archive-keyring.gpg"
    path.touch()
    monkeypatch.setattr(apt, "_KEYRINGS", (path,))
    return path


def use(debian: FakeDebian, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{debian.bin}:/usr/bin:/bin")


def quiet() -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    return Progress(Console(file=text, width=200)), text


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"version": "7.2.19"}, "{path} must be QEMU 10.1 or newer, not 7.2.19"),
        ({"version": "10.0.2"}, "{path} must be QEMU 10.1 or newer, not 10.0.2"),
        ({"version": "?"}, "{path} must be a QEMU, not something whose --version is "
                           "'QEMU emulator version ? (a fake)'"),
        ({"device": 'name "vfio-pci"'},
         "{path} (QEMU 11.1.3) must have the device vfio-user-pci; it was built without"),
        ({"accel": "echo invalid accelerator >&2; exit 1"},
         "`{path} -machine none -accel qtest -nodefaults -display none -qmp stdio` must succeed, "
         "not end with: invalid accelerator"),
    ],
)  # fmt: skip
def test_a_qemu_that_cannot_serve_says_why(answers: dict[str, str], message: str, tmp_path: Path) -> None:
    path = fake_qemu(tmp_path / "qemu", **answers)
    with pytest.raises(ValueError) as caught:
        check(path)
    assert str(caught.value) == message.format(path=path)


def test_a_qemu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/qemu must run, not fail with: .*No such file"):
        check(tmp_path / "qemu")


@pytest.mark.parametrize("version", ["10.1.0", "10.2.50", "11.0.0-rc1", "12.0"])
def test_versions_that_serve(version: str, tmp_path: Path) -> None:
    assert check(fake_qemu(tmp_path / "qemu", version=version)) == version.partition("-")[0]


def test_the_search_goes_from_the_environment_over_path_to_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = find_qemu()
    assert nothing.found is None and nothing.rejected == ()
    with pytest.raises(ProvisionError, match=r"^no QEMU with vfio-user-pci was found in \$QEMU_SYSTEM_AARCH64"):
        nothing.require()
    (cache / "qemu/11.1.3").mkdir(parents=True)
    cached = fake_qemu(cache / "qemu/11.1.3/qemu-system-aarch64-fake")
    assert find_qemu().found == QemuBinary(cached, "11.1.3", "cache")
    on_path = fake_qemu(tmp_path / "path/qemu-system-aarch64-fake", version="12.0.1")
    assert find_qemu().found == QemuBinary(on_path, "12.0.1", "PATH")
    named = fake_qemu(tmp_path / "mine", version="13.0.0")
    monkeypatch.setenv("QEMU_SYSTEM_AARCH64", str(named))
    assert find_qemu().require() == QemuBinary(named, "13.0.0", "environment")
    fake_qemu(named, version="9.0.0")
    passed_over = find_qemu()
    assert passed_over.found == QemuBinary(on_path, "12.0.1", "PATH")
    assert passed_over.rejected == (f"{named} must be QEMU 10.1 or newer, not 9.0.0",)


def test_a_qemu_is_fetched_once_whole_and_runs_through_its_wrapper(
    cache: Path, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian = FakeDebian(tmp_path / "debian")
    use(debian, monkeypatch)
    progress, text = quiet()
    qemu = provide_qemu(progress)
    assert qemu == QemuBinary(cache / "qemu/11.1.3-bpo13+1/qemu-system-aarch64-fake", "11.1.3", "cache")
    assert sorted(path.name for path in (cache / "qemu").iterdir()) == [".lock", "11.1.3-bpo13+1"]
    assert debian.sources == "".join(
        f"deb [signed-by={keyring} arch=amd64] http://mirror.example/archive {suite} main\n"
        for suite in ("trixie", "trixie-backports")
    )
    assert [line.rpartition(":")[0] for line in text.getvalue().splitlines() if ":" in line] == [
        "reading the package lists of trixie, trixie-backports (amd64)",
        "downloading qemu-system-arm",
        "unpacking 1 packages",
    ]
    assert len(debian.calls) == 2
    assert debian.calls[1].endswith("--download-only -t trixie-backports install qemu-system-arm")
    assert provide_qemu(progress) == qemu
    assert len(debian.calls) == 2


def provide(_: int) -> str:
    return str(provide_qemu(quiet()[0]).path)


def test_two_setups_at_once_fetch_one_qemu(
    cache: Path, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian = FakeDebian(tmp_path / "debian")
    use(debian, monkeypatch)
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
        paths = set(pool.map(provide, range(3)))
    assert paths == {str(cache / "qemu/11.1.3-bpo13+1/qemu-system-aarch64-fake")}
    assert len(debian.calls) == 2


def test_what_apt_says_is_told_with_a_remedy_and_nothing_is_left(
    cache: Path, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FakeDebian(tmp_path / "debian", update="echo 'E: no network' >&2; exit 100"), monkeypatch)
    with pytest.raises(ProvisionError) as caught:
        provide_qemu(quiet()[0])
    assert caught.value.missing == (
        "apt could not fetch qemu-system-arm:\n    http://mirror.example/archive: E: no network"
    )
    assert caught.value.remedy.startswith("install QEMU 10.1 or newer built with vfio-user-pci")
    assert os.listdir(cache / "qemu") == [".lock"]


def test_a_fetched_qemu_that_cannot_be_used_is_not_kept(
    cache: Path, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FakeDebian(tmp_path / "debian", version="10.0.0"), monkeypatch)
    with pytest.raises(ProvisionError, match=r"^the fetched QEMU cannot be used: .* must be QEMU 10.1 or newer"):
        provide_qemu(quiet()[0])
    assert os.listdir(cache / "qemu") == [".lock"]


def test_no_debian_mirror(cache: Path, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeDebian(tmp_path / "debian", sources="deb http://a.example/ubuntu noble main\n"), monkeypatch)
    with pytest.raises(ProvisionError) as caught:
        provide_qemu(quiet()[0])
    assert str(caught.value) == (
        "the apt of this machine is configured for no mirror of the Debian main archive\n"
        "  what to do: install QEMU 10.1 or newer built with vfio-user-pci (in Debian: qemu-system-arm of "
        "trixie-backports or a later release) and put qemu-system-aarch64 on PATH, or name it in $QEMU_SYSTEM_AARCH64"
    )


def test_no_apt(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(ProvisionError, match=r"^apt-get is not on this machine, so no Debian package can be fetched"):
        provide_qemu(quiet()[0])


def test_no_keyring(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeDebian(tmp_path / "debian"), monkeypatch)
    monkeypatch.setattr(apt, "_KEYRINGS", (tmp_path / "absent",))
    with pytest.raises(ProvisionError, match=r"what to do: install debian-archive-keyring, or install QEMU"):
        provide_qemu(quiet()[0])
