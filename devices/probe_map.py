"""The address map of the probe device: its registers, named ranges and commands, for guests and reports.

Pure data that imports nothing, so that a guest's build step and a report can read it. Offsets and sizes are in bytes,
offsets from the start of the BAR named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

VENDOR = 0x1234
DEVICE = 0xBE50
CLASS_CODE = 0x058000
IDENTITY = 0x50524F42
VERSION = 1

BAR0_SIZE = 0x1_0000
BAR2_SIZE = 0x10_0000
VECTORS = 8
DOORBELLS = 4
WINDOW_PAGE = 0x1000


class Reg(IntEnum):
    """Offsets in BAR 0 of the probe's registers, four bytes each, MAILBOX_ADDRESS eight."""

    ID = 0x000
    VERSION = 0x004
    SCRATCH = 0x008
    MARK = 0x00C
    WC_SAFE = 0x010
    STATUS = 0x014
    READS = 0x018
    IRQ = 0x01C
    MAILBOX_ADDRESS = 0x020
    MAILBOX_CAPACITY = 0x028
    MAILBOX_LENGTH = 0x02C
    MAILBOX_COMMAND = 0x030
    MAILBOX_STATUS = 0x034
    MAILBOX_ERROR = 0x038
    DOORBELL = 0x4000
    FIFO = 0x8000
    FIFO_LEVEL = 0x8004


DOORBELL_STRIDE = 0x100
MSIX_TABLE = 0x60000
MSIX_PBA = 0x61000


class MailboxCommand(IntEnum):
    """What a guest writes to MAILBOX_COMMAND."""

    FETCH = 1
    SUBMIT = 2


class MailboxStatus(IntEnum):
    """What MAILBOX_STATUS says after a command; for REFUSED, MAILBOX_ERROR holds a Linux errno."""

    DONE = 0
    EMPTY = 1
    REFUSED = 2


@dataclass(frozen=True)
class Range:
    """A named part of a BAR with one set of traits.

    The arena is the part where any access of any size is plain memory: batteries run there.
    """

    name: str
    bar: int
    offset: int
    size: int
    arena_offset: int
    arena_size: int
    wc_safe: bool = False
    """The device allows write-combining here: no side effects, merging harmless."""
    read_side_effects: bool = False
    """A register in this range changes when it is read."""
    msix: bool = False
    """The range holds the MSI-X table and PBA."""
    trapped: bool = True
    """Every access is a message to the device; otherwise the range is memory shared with the client."""
    dynamic: bool = False
    """Whether a page is write-combining-safe changes at run time, by the WC_SAFE register."""


_RANGES = (
    Range("control", 0, 0x0000, 0x4000, 0x1000, 0x3000, read_side_effects=True),
    Range("doorbell", 0, 0x4000, 0x4000, 0x5000, 0x3000),
    Range("fifo", 0, 0x8000, 0x4000, 0x9000, 0x3000, read_side_effects=True),
    Range("wc-mapped", 2, 0x00000, 0x20000, 0x00000, 0x20000, wc_safe=True, trapped=False),
    Range("wc-trapped", 2, 0x20000, 0x20000, 0x20000, 0x20000, wc_safe=True),
    Range("strict", 2, 0x40000, 0x10000, 0x40000, 0x10000),
    Range("dynamic", 2, 0x50000, 0x10000, 0x50000, 0x10000, dynamic=True),
    Range("msix", 2, 0x60000, 0x10000, 0x62000, 0xE000, msix=True),
)

RANGES: Mapping[str, Range] = MappingProxyType({each.name: each for each in _RANGES})
"""The probe's ranges by name, in address order. BAR 0 from 0xc000 and BAR 2 from 0x70000 are no part of any."""
