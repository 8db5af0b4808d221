"""The messages of vfio-user: commands, flags and layouts, as server and client use them.

Source: QEMU docs/interop/vfio-user.rst. All fields are in the host's byte order, without padding; sizes are in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Any, Final, Generic, NamedTuple, TypeVar

from .errors import WireError

FieldsT = TypeVar("FieldsT", bound=tuple[Any, ...])


class Layout(Generic[FieldsT]):
    """A fixed-size layout: packs plain values, unpacks into a named tuple."""

    def __init__(self, fields: Callable[..., FieldsT], form: str) -> None:
        self._fields = fields
        self._struct = struct.Struct("=" + form)
        self.size: Final = self._struct.size

    def pack(self, *values: int | bytes) -> bytes:
        """The layout's bytes; `values` in the order of the named tuple's fields."""
        return self._struct.pack(*values)

    def unpack(self, data: bytes | bytearray | memoryview) -> FieldsT:
        """Unpacks `data`, which must be exactly as long as the layout.

        Raises:
            WireError: it is not.
        """
        if len(data) != self.size:
            raise WireError(f"a message body must be {self.size} bytes, not {len(data)}")
        return self._fields(*self._struct.unpack(data))

    def unpack_from(self, data: bytes | bytearray | memoryview, offset: int = 0) -> FieldsT:
        """Unpacks at `offset`; what follows the layout is left alone.

        Raises:
            WireError: `data` ends before the layout does.
        """
        if not 0 <= offset <= len(data) - self.size:
            raise WireError(f"a message body must be at least {offset + self.size} bytes, not {len(data)}")
        return self._fields(*self._struct.unpack_from(data, offset))


class Command(IntEnum):
    """Commands (section "Commands")."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15


def command_name(command: int) -> str:
    """The command's name for messages to people; its number when it has none."""
    try:
        return Command(command).name
    except ValueError:
        return f"command {command}"


# Header flags (section "Header"): the low four bits are the type.
COMMAND: Final = 0
REPLY: Final = 1
TYPE_MASK: Final = 0xF
NO_REPLY: Final = 0x10
ERROR: Final = 0x20

VERSION_MAJOR: Final = 0
VERSION_MINOR: Final = 0
MAX_VERSION_JSON: Final = 194
"""QEMU's room for the JSON of a VERSION reply, its NUL included: no reply may be longer than its request."""

MAX_FDS: Final = 16
"""Most file descriptors in one message, either way; QEMU refuses a server that offers more."""
MAX_TRANSFER: Final = 1 << 20
"""Most data bytes in one region access or DMA message (capability max_data_xfer_size, its default)."""
MAX_DMA_WRITE: Final = 64 * 1024
"""Most data bytes that a server should send in one DMA_WRITE: QEMU ends the connection at more than 1 MiB."""
MAX_DMA_READ: Final = 32 * 1024
"""Most data bytes that a server should ask for in one DMA_READ.

QEMU (11.1.3) takes a reply for sent of which the socket took only a part, and what follows is read in the place of its
end. A message in one buffer of the kernel's, 32 KiB and some more for a UNIX socket, is taken whole or not at all.
"""
MAX_DMA_MAPS: Final = 65535
PAGE: Final = 4096
"""The page size that DMA maps and mapped areas are made of (capability pgsizes)."""

NUM_REGIONS: Final = 9


class RegionIndex(IntEnum):
    """Regions of a PCI device; BAR n is region n."""

    BAR0 = 0
    BAR1 = 1
    BAR2 = 2
    BAR3 = 3
    BAR4 = 4
    BAR5 = 5
    ROM = 6
    CONFIG = 7
    VGA = 8


NUM_IRQS: Final = 5


class IrqIndex(IntEnum):
    """Kinds of interrupts of a PCI device."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


class DeviceFlag(IntFlag):
    """Flags of DEVICE_GET_INFO."""

    RESET = 1
    PCI = 2


class RegionFlag(IntFlag):
    """Flags of DEVICE_GET_REGION_INFO."""

    READ = 1
    WRITE = 2
    MMAP = 4
    CAPS = 8


class IrqFlag(IntFlag):
    """Flags of DEVICE_GET_IRQ_INFO."""

    EVENTFD = 1
    MASKABLE = 2
    AUTOMASKED = 4
    NORESIZE = 8


class IrqSet(IntFlag):
    """Flags of DEVICE_SET_IRQS: one DATA flag and one ACTION flag."""

    DATA_NONE = 1
    DATA_BOOL = 2
    DATA_EVENTFD = 4
    MASK = 8
    UNMASK = 16
    TRIGGER = 32


class DmaFlag(IntFlag):
    """Flags of DMA_MAP."""

    READ = 1
    WRITE = 2


UNMAP_ALL: Final = 2
"""Flag of DMA_UNMAP: all maps; address and size must be 0."""

CAP_SPARSE_MMAP: Final = 1


class Header(NamedTuple):
    """What every message begins with; `size` counts the header too, `error` is a positive errno."""

    message_id: int
    command: int
    size: int
    flags: int
    error: int


class Version(NamedTuple):
    """VERSION, request and reply; the JSON follows, NUL-terminated."""

    major: int
    minor: int


class DeviceInfo(NamedTuple):
    """DEVICE_GET_INFO, request and reply."""

    argsz: int
    flags: int
    regions: int
    irqs: int


class RegionInfo(NamedTuple):
    """DEVICE_GET_REGION_INFO, request and reply; `cap_offset` counts from `argsz`."""

    argsz: int
    flags: int
    region: int
    cap_offset: int
    size: int
    offset: int


class SparseMmap(NamedTuple):
    """The sparse-mmap capability of a region: `areas` times `SparseArea` follow."""

    id: int
    version: int
    next: int
    areas: int
    reserved: int


class SparseArea(NamedTuple):
    """A part of a region that the client may map; `offset` is from the region's start."""

    offset: int
    size: int


class IrqInfo(NamedTuple):
    """DEVICE_GET_IRQ_INFO, request and reply."""

    argsz: int
    flags: int
    kind: int
    vectors: int


class SetIrqs(NamedTuple):
    """DEVICE_SET_IRQS; the booleans of DATA_BOOL follow, file descriptors come beside."""

    argsz: int
    flags: int
    kind: int
    start: int
    vectors: int


class RegionAccess(NamedTuple):
    """REGION_READ and REGION_WRITE, request and reply; `length` data bytes follow a read's reply and a write."""

    offset: int
    region: int
    length: int


class WriteMulti(NamedTuple):
    """One write in a REGION_WRITE_MULTI, of 1 to 8 bytes; a u64 with the number of writes comes before the first."""

    offset: int
    region: int
    length: int
    data: bytes


class DmaMap(NamedTuple):
    """DMA_MAP: `size` bytes at guest address `address` are those at `offset` of the file that comes beside."""

    argsz: int
    flags: int
    offset: int
    address: int
    size: int


class DmaUnmap(NamedTuple):
    """DMA_UNMAP, request and reply."""

    argsz: int
    flags: int
    address: int
    size: int


class DmaAccess(NamedTuple):
    """DMA_READ and DMA_WRITE, request and reply; `length` data bytes follow a read's reply and a write."""

    address: int
    length: int


HEADER: Final = Layout(Header, "HHIII")
VERSION: Final = Layout(Version, "HH")
DEVICE_INFO: Final = Layout(DeviceInfo, "IIII")
REGION_INFO: Final = Layout(RegionInfo, "IIIIQQ")
SPARSE_MMAP: Final = Layout(SparseMmap, "HHIII")
SPARSE_AREA: Final = Layout(SparseArea, "QQ")
IRQ_INFO: Final = Layout(IrqInfo, "IIII")
SET_IRQS: Final = Layout(SetIrqs, "IIIII")
REGION_ACCESS: Final = Layout(RegionAccess, "QII")
WRITE_MULTI: Final = Layout(WriteMulti, "QII8s")
DMA_MAP: Final = Layout(DmaMap, "IIQQQ")
DMA_UNMAP: Final = Layout(DmaUnmap, "IIQQ")
DMA_ACCESS: Final = Layout(DmaAccess, "QQ")
