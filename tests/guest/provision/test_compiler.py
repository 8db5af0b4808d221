"""Finding the cross compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvfio_user.guest.provision import compiler
from pyvfio_user.guest.provision.errors import ProvisionError

from ..fake_debian import script


def test_gcc_is_taken_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = script(tmp_path / "aarch64-linux-gnu-gcc", "#!/bin/sh\necho 14.2.0\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert compiler.find_compiler() == compiler.Compiler((str(gcc),), "gcc", "14.2.0")


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ProvisionError) as caught:
        compiler.find_compiler()
    assert str(caught.value) == (
        "no C compiler for AArch64 was found\n  what to do: install the Python package ziglang, "
        "or aarch64-linux-gnu-gcc (Debian package gcc-aarch64-linux-gnu)"
    )
