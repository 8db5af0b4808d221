"""What tells one state of a machine from another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyvfio_user.guest.linux.ready import LinuxImage, Ready
from pyvfio_user.guest.linux.snapshot import _key

from ..fake_debian import fake_qemu


def test_a_state_is_of_just_one_kernel_one_machine_and_what_they_were_given(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    qemu = fake_qemu(tmp_path / "qemu")
    kernel = LinuxImage(tmp_path / "old", None, None, "")
    first = Ready(
        kernel, "max", "kvm", {}, platform=False, initramfs=b"initramfs", huge_pages=8, tree=None, program=qemu
    )
    others = [
        replace(first, kernel=replace(kernel, image=tmp_path / "new")),
        replace(first, kernel=replace(kernel, append="nokaslr")),
        replace(first, cpu="neoverse-n1"),
        replace(first, machine="kvm-bypass"),
        replace(first, initramfs=b"another"),
        replace(first, huge_pages=9),
        replace(first, tree=b"tree"),
        replace(first, program=fake_qemu(tmp_path / "newer", version="12.0.0")),
    ]
    keys = [_key(first, ["vfio"]), _key(first, ["sysfs"]), *(_key(each, ["vfio"]) for each in others)]
    assert len(set(keys)) == len(keys)
    assert _key(replace(first), ["vfio"]) == keys[0]
