"""Kernel modules: found in a folder, decompressed, in the order in which they can be loaded."""

from __future__ import annotations

import gzip
import io
import lzma
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from ..errors import KernelError

_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {".ko": bytes, ".xz": lzma.decompress, ".gz": gzip.decompress}


def load_order(folder: Path | None, wanted: Iterable[str]) -> dict[str, bytes]:
    """Modules by name, each after those that it depends on; of those wanted, the ones that the folder has.

    A wanted module that is not there is taken to be built into the kernel. ``folder`` is searched whole: one such as
    `/lib/modules/6.1.0`, or a build tree; None has no modules.

    Raises:
        KernelError: A module that another one needs is absent, or a file is no module.
    """
    found = _find(folder) if folder is not None else {}
    order: dict[str, bytes] = {}
    for name in wanted:
        if name in found:
            _add(name, found, order, ())
    return order


def _find(folder: Path) -> dict[str, Path]:
    """All modules by name: `vfio_pci` for `vfio-pci.ko.xz`."""
    return {
        path.name.partition(".ko")[0].replace("-", "_"): path
        for path in sorted(folder.rglob("*.ko*"))
        if path.name.endswith((".ko", ".ko.xz", ".ko.gz", ".ko.zst"))
    }


def _add(name: str, found: Mapping[str, Path], order: dict[str, bytes], users: tuple[str, ...]) -> None:
    if name in order:
        return
    if name not in found:
        raise KernelError(
            f"module {name}, which {users[-1]} needs, must be among the modules", "name the folder of all modules"
        )
    if name in users:
        raise KernelError(f"module {name} must not depend on itself", "build the modules anew")
    content = _read(found[name])
    for other in _depends(content, found[name]):
        _add(other, found, order, (*users, name))
    order[name] = content


def _read(path: Path) -> bytes:
    decompress = _DECOMPRESS.get(path.suffix)
    if decompress is None:
        raise KernelError(f"modules must be .ko, .ko.xz or .ko.gz, not {path.name}", f"unpack {path}")
    try:
        return decompress(path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise KernelError(f"{path} cannot be unpacked: {error}", "build the modules anew") from error


def _depends(content: bytes, path: Path) -> list[str]:
    """The names in `depends=` of the section .modinfo."""
    try:
        section = ELFFile(io.BytesIO(content)).get_section_by_name(".modinfo")
    except ELFError as error:
        raise KernelError(f"{path} must be an ELF file: {error}", "build the modules anew") from error
    fields = (section.data() if section is not None else b"").split(b"\0")
    names = next((field[8:].decode() for field in fields if field.startswith(b"depends=")), "")
    return [name.replace("-", "_") for name in names.split(",") if name]
