"""The doctor: what it finds, what it says is missing, and what it recommends."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pyvfio_user.guest import doctor
from pyvfio_user.guest.doctor import Finding, examine, report
from pyvfio_user.guest.provision.browser import provide_browser
from pyvfio_user.guest.provision.herd import provide_herd
from pyvfio_user.guest.provision.kernel_build import find_built_kernel
from pyvfio_user.guest.provision.progress import Progress
from pyvfio_user.guest.provision.qemu import find_qemu

from .fake_debian import fake_qemu


def printed(findings: list[Finding]) -> tuple[bool, str]:
    text = io.StringIO()
    return report(findings, Console(file=text, width=240)), text.getvalue()


def test_all_is_found_on_a_machine_that_was_set_up() -> None:
    provide_herd(Progress())
    provide_browser(Progress())
    findings = {finding.part: finding for finding in examine()}
    assert list(findings) == [
        *(
            "Python",
            "git",
            "make",
            "C compiler",
            "C hot path",
            "QEMU",
            "AArch64 compiler",
            "tracer",
            "herd7",
            "kernel of the schemes",
            "Chromium",
        )
    ]
    missing = [part for part, finding in findings.items() if not finding.found]
    assert missing == ([] if find_built_kernel() else ["kernel of the schemes"])
    qemu = find_qemu().require()
    assert findings["QEMU"] == Finding("QEMU", str(qemu.path), qemu.version, remarks=find_qemu().rejected)
    assert findings["C hot path"].where.endswith("/_native.abi3.so")


def test_a_table_of_what_is_found() -> None:
    complete, text = printed([Finding("QEMU", "/usr/bin/[qemu]", "11.1.3"), Finding("git", "/usr/bin/git", "2.39.5")])
    assert complete
    assert [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line] == [
        ["QEMU", "11.1.3", "/usr/bin/[qemu]"],
        ["git", "2.39.5", "/usr/bin/git"],
    ]


def test_what_is_missing_comes_with_its_remedy() -> None:
    complete, text = printed(
        [Finding("QEMU", "", "", "install it", ("/usr/bin/q must be QEMU 10.1 or newer, not 7.2",))]
    )
    assert not complete
    assert text.splitlines()[-2:] == [
        "QEMU, passed over: /usr/bin/q must be QEMU 10.1 or newer, not 7.2",
        "QEMU: install it",
    ]


def test_everything_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("QEMU_SYSTEM_AARCH64", str(fake_qemu(tmp_path / "old", version="7.2.0")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "_HOT_PATH", "pyvfio_user.bridge.no_such_module")
    missing = {finding.part: finding for finding in examine() if not finding.found}
    assert {part: finding.remedy.partition(",")[0] for part, finding in missing.items()} == {
        "git": "install the Debian package git",
        "make": "install the Debian package make",
        "C compiler": "install the Debian package build-essential",
        "C hot path": "install pyvfio-user anew",
        "QEMU": "run `pyvfio-user setup`",
        "AArch64 compiler": "install the Python package ziglang",
        "tracer": "it needs a QEMU",
        "herd7": "`make test` fetches it; only the tests of orders need it",
        "Chromium": "`make test` fetches it; only the tests of pages need it",
        "kernel of the schemes": "`make kernel` builds it; only `--kernel schemes` and the tests need it",
    }
    assert missing["QEMU"].remarks == (f"{tmp_path}/old must be QEMU 10.1 or newer, not 7.2.0",)


def test_a_qemu_that_cannot_be_traced_is_said_and_does_for_all_else() -> None:
    remedy = "QEMU's plugin API must be version 7 (QEMU 11) to trace, not 4: /usr/bin/q"
    complete, text = printed([Finding("tracer", "", "", remedy, optional=True)])
    assert complete
    assert text.splitlines()[-1] == f"tracer: {remedy}"


def test_an_old_plugin_api_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyvfio_user.guest.tracing.api_version", lambda qemu: 4)
    (finding,) = (finding for finding in examine() if finding.part == "tracer")
    assert finding.remedy.startswith("QEMU's plugin API must be version 7 (QEMU 11) to trace, not 4: /")
    assert (finding.found, finding.optional) == (False, True)
