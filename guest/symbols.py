"""Names of functions by address: from an ELF's symbol table, or from a kernel's System.map or /proc/kallsyms."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import TraceError


class Symbols:
    """Functions by address. An address belongs to the function with the greatest address that is not above it.

    Where a size is known, an address behind the function's end belongs to none.
    """

    def __init__(self, functions: Iterable[tuple[int, int, str]]) -> None:
        """Take (address, size, name) of each; size 0: not known."""
        self._functions = sorted(functions)
        self._addresses = [address for address, _, _ in self._functions]

    def __len__(self) -> int:
        return len(self._functions)

    def find(self, address: int) -> tuple[str, int] | None:
        """The function that an address is in, and how far into it; None: in none that is known."""
        at = bisect.bisect_right(self._addresses, address) - 1
        if at < 0:
            return None
        start, size, name = self._functions[at]
        return (name, address - start) if address - start < size or not size else None

    def function(self, address: int) -> str:
        """The function's name, or the address in hex."""
        found = self.find(address)
        return found[0] if found else f"{address:#x}"

    def place(self, address: int) -> str:
        """The function's name and the place in it, as `memcpy_toio+0x14`, or the address in hex."""
        found = self.find(address)
        return f"{found[0]}+{found[1]:#x}" if found and found[1] else self.function(address)


def load_symbols(paths: Iterable[Path]) -> Symbols:
    """The functions of all these files. Raises `TraceError` for one that is neither an ELF nor a list of symbols."""
    return Symbols(function for path in paths for function in _functions(path))


def _functions(path: Path) -> Iterator[tuple[int, int, str]]:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise TraceError(f"symbols must be in a file that can be read, not {path}: {error.strerror}") from error
    found = list(_of_elf(path) if magic == b"\x7fELF" else _of_map(path))
    if not found:
        raise TraceError(f"symbols must be in an ELF with a symbol table, or lines of ADDRESS TYPE NAME, not {path}")
    return iter(found)


def _of_elf(path: Path) -> Iterator[tuple[int, int, str]]:
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    with path.open("rb") as file:
        try:
            for section in ELFFile(file).iter_sections():
                if not isinstance(section, SymbolTableSection):
                    continue
                for symbol in section.iter_symbols():
                    # A mapping symbol ($x, $d) marks code or data and names nothing; assembler's labels have no type.
                    kind, name = symbol["st_info"]["type"], symbol.name
                    defined = symbol["st_shndx"] != "SHN_UNDEF" and name and not name.startswith("$")
                    if kind in ("STT_FUNC", "STT_NOTYPE") and defined:
                        yield symbol["st_value"], symbol["st_size"], name
        except ELFError as error:
            raise TraceError(f"symbols must be in a whole ELF, not {path}: {error}") from error


def _of_map(path: Path) -> Iterator[tuple[int, int, str]]:
    """Lines as `ffffffc008010000 T _text`; /proc/kallsyms adds the module, and zeros when its reader may not know."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split()
            if len(fields) < 3 or fields[1] not in "tTwW":
                continue
            try:
                address = int(fields[0], 16)
            except ValueError:
                continue
            if address:
                yield address, 0, fields[2] + (f" {fields[3]}" if len(fields) > 3 else "")
