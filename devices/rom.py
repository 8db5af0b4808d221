"""The expansion ROM of a device: what firmware finds there and runs, before there is a driver."""

from __future__ import annotations

from ..bridge.errors import DefinitionError, check_integer
from ..bridge.regions import Region, Rules

LEAST, MOST = 2 * 1024, 16 * 1024 * 1024  # PCI 3.0, 6.2.5.2


class Rom:
    """An expansion ROM with `contents` at its start and 0xff behind them; writes are ignored.

    `size` is in bytes, a power of two of 2 KiB to 16 MiB, by default the least that holds the contents. Those are not
    looked at: firmware wants images that begin with 55 aa and a PCI data structure (PCI Firmware 3.0, chapter 5), and
    a guest without firmware can read what it likes there.
    """

    def __init__(self, contents: bytes, *, size: int | None = None) -> None:
        if not isinstance(contents, bytes) or not contents:
            raise DefinitionError(f"contents of Rom must be at least one byte, not {contents!r}")
        if size is None:
            size = max(LEAST, 1 << (len(contents) - 1).bit_length())
        check_integer("size of Rom", size)
        if not LEAST <= size <= MOST or size & (size - 1):
            raise DefinitionError(f"size of Rom must be a power of two of 2 KiB to 16 MiB, not {size}")
        if len(contents) > size:
            raise DefinitionError(f"contents of Rom must fit in {size} bytes, not be {len(contents)}")
        self.contents = contents
        self.size = size

    def region(self) -> Region:
        """A region that reads as the ROM."""
        none = bytes(self.size)
        region = Region(self.size)
        region.add_registers(0, Rules(self.contents.ljust(self.size, b"\xff"), none, none, none, none), name="ROM")
        return region
