"""An initramfs: a cpio archive of the form "newc" (Linux, driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath


def archive(files: Mapping[str, bytes]) -> bytes:
    """An archive of executable files by path (`modules/vfio.ko`), with their folders and the node of /dev/console.

    Without that node the first process would start without standard output.
    """
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."} | {"dev"}
    entries = [_entry(name, stat.S_IFDIR | 0o755) for name in sorted(folders)]
    entries.append(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries += [_entry(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    return b"".join([*entries, _entry("TRAILER!!!", 0)])


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
