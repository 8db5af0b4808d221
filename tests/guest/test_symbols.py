"""Names of functions: from an ELF, from a kernel's map, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvfio_user.guest import payload
from pyvfio_user.guest.errors import TraceError
from pyvfio_user.guest.symbols import Symbols, load_symbols

MAP = """\
ffffffc008000000 T _text
ffffffc008010000 t pci_read_config
ffffffc008010040 T pci_write_config
0000000000000000 T hidden
ffffffc008020000 D some_data
ffffffc078001000 t probe\t[upcase]
"""


def test_an_address_belongs_to_the_function_before_it() -> None:
    symbols = Symbols([(0x100, 0, "second"), (0x40, 0x20, "first")])
    assert symbols.find(0x3F) is None
    assert symbols.find(0x40) == ("first", 0)
    assert symbols.find(0x5F) == ("first", 0x1F)
    assert symbols.find(0x60) is None, "the first function's size is known, and this is behind it"
    assert symbols.find(0x1000) == ("second", 0xF00)


def test_names_of_places() -> None:
    symbols = Symbols([(0x40, 0x20, "first")])
    assert [symbols.place(address) for address in (0x40, 0x44, 0x60)] == ["first", "first+0x4", "0x60"]
    assert [symbols.function(address) for address in (0x44, 0x60)] == ["first", "0x60"]


def test_a_map_of_a_kernel(tmp_path: Path) -> None:
    (tmp_path / "System.map").write_text(MAP)
    symbols = load_symbols([tmp_path / "System.map"])
    assert len(symbols) == 4, "data, and what is not to be known, are no functions"
    assert symbols.place(0xFFFF_FFC0_0801_0044) == "pci_write_config+0x4"
    assert symbols.function(0xFFFF_FFC0_7800_1008) == "probe [upcase]"


def test_the_guests_own_elf() -> None:
    symbols = load_symbols([payload.build()])
    start = 0x4020_0000
    assert symbols.place(start) == "_start"
    assert symbols.function(start + 4) == "_start"


def test_several_files_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "map").write_text(MAP)
    symbols = load_symbols([payload.build(), tmp_path / "map"])
    assert (symbols.place(0x4020_0000), symbols.place(0xFFFF_FFC0_0800_0000)) == ("_start", "_text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"nothing of the kind\n",
            "symbols must be in an ELF with a symbol table, or lines of ADDRESS TYPE NAME, not ",
        ),
        (b"\x7fELF and no more", "symbols must be in a whole ELF, not "),
        (b"", "symbols must be in an ELF with a symbol table, or lines of ADDRESS TYPE NAME, not "),
    ],
)
def test_a_file_without_symbols(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(TraceError) as caught:
        load_symbols([tmp_path / "file"])
    assert str(caught.value).startswith(f"{message}{tmp_path / 'file'}")


def test_a_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"^symbols must be in a file that can be read, not .*/x: No such file"):
        load_symbols([tmp_path / "x"])
