"""Debian's arm64 kernel as a guest, with a program of ours as its only process."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pyvfio_user.guest.payload import TARGET_FLAGS
from pyvfio_user.guest.provision.compiler import find_compiler


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """One file of a cpio archive of the form "newc"."""
    fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)


def archive(files: Mapping[str, bytes]) -> bytes:
    """An initramfs of executable files."""
    entries = [_entry(name, 0o100755, content) for name, content in files.items()]
    console = _entry("dev", 0o040755, b"")
    return console + b"".join(entries) + _entry("TRAILER!!!", 0, b"")


def initramfs(
    folder: Path, source: Path, defines: Sequence[str] = (), files: Mapping[str, bytes] = MappingProxyType({})
) -> tuple[Path, Path]:
    """An initramfs that starts the program with this source, with more files, and the program's ELF."""
    compiler = find_compiler()
    init, image = folder / "init", folder / "initramfs"
    flags = [*(flag for flag in TARGET_FLAGS if flag != "-mstrict-align"), f"-I{Path(__file__).parent}", *defines]
    subprocess.run([*compiler.command, *flags, str(source), "-o", str(init)], check=True)
    image.write_bytes(archive({"init": init.read_bytes(), **files}))
    return image, init
