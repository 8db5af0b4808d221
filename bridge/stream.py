"""The labelled stream: what was done to BARs, one event an access, with its memory type, and the barriers between.

An event is 64 bytes, little-endian; `bridge/hotpath/event.h` says the same to C.

    offset size  field
    0      8     sequence     counts the stream's events from 1, over all vCPUs; a vCPU's are in program order
    8      8     pc           virtual address of the instruction; 0: unknown
    16     8     offset       in the BAR, or in the function's configuration space; bar unknown: physical address
    24     16    data         the first `size` bytes stored or loaded; see the flags REPEATED and NO_DATA
    40     4     size         bytes; of LOST: events
    44     4     instruction  A64 encoding; 0: unknown
    48     2     vcpu
    50     2     peripheral   the PCI function, bus << 8 | device << 3 | function; 0xffff: unknown
    52     1     kind         `Kind`
    53     1     bar          0 to 5; 6: expansion ROM; 0xfe: configuration space; 0xff: unknown
    54     1     element      counts the events of one execution of an instruction from 0, but those of SVE
    55     1     barrier      `BarrierKind` << 4 | CRm; 0: no barrier
    56     2     flags        `Flag`; bit 14: HCR_EL2.FWB
    58     1     stage1       byte of MAIR_ELx, after SCTLR_ELx.M and .C and HCR_EL2.DC
    59     1     stage2       MemAttr[3:0] of the descriptor; 16: no stage 2
    60     1     type         the effective type, without XS, as PAR_EL1.ATTR has it by the architecture
    61     1     known        bit 0: stage1, bit 1: stage2, bit 2: type; else the field says nothing
    62     1     el           exception level, 0 to 3; 0xff: unknown
    63     1     reserved     0

A trace file is a header of 64 bytes and events. The header: `PVUTRACE`, version 1 and event size 64 in four bytes each,
in eight how many events were lost while it was recorded, and zeros. LOST stands where they are missing, but at the end.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .attributes import MemoryType
from .errors import DefinitionError, StreamError

EVENT = struct.Struct("<3Q16s2I2H4BH5Bx")
HEADER = struct.Struct("<8s2IQ40x")
MAGIC = b"PVUTRACE"
VERSION = 1

BAR_ROM = 6
BAR_CONFIG = 0xFE
NO_STAGE_2 = 16
_UNKNOWN_BAR = 0xFF
_UNKNOWN_PERIPHERAL = 0xFFFF
_UNKNOWN_EL = 0xFF
_FWB = 1 << 14
_CHUNK = 4096 * EVENT.size


class Kind(enum.IntEnum):
    """What was done."""

    LOAD = 1
    STORE = 2
    ATOMIC = 3
    """A load and a store that nothing comes between; `data` is what was stored, where that is known."""
    ZERO = 4
    """DC ZVA: zeros, in no order and of no visible size within the block (DDI 0487 C6.2, DC ZVA)."""
    BARRIER = 5
    DGH = 6
    """Data Gathering Hint: do not wait for more to gather with what went before."""
    SPECULATIVE = 7
    """A read that the program did not make."""
    TAG_LOAD = 8
    TAG_STORE = 9
    """Allocation tags (FEAT_MTE); of the instructions that zero data with them, both."""
    LOST = 10
    """No access: here `size` events of this vCPU are missing, because the ring was full."""


class Flag(enum.IntFlag):
    """More about the instruction, and about the event."""

    NONE = 0
    ACQUIRE = 1
    ACQUIRE_PC = 2
    """LDAPR and its kin: acquire without order against an earlier release."""
    RELEASE = 4
    EXCLUSIVE = 8
    PAIR = 16
    """LDP, STP and their kin: the elements have no order (DDI 0487 B2.2)."""
    SIMD = 32
    STRUCTURE = 64
    """LDn, STn of Advanced SIMD: no order within the instruction; an event is what TCG accesses at once."""
    SVE = 128
    """Of SVE or SME."""
    NON_TEMPORAL = 256
    UNPRIVILEGED = 512
    MOPS = 1024
    """SET*, CPY* of FEAT_MOPS: `size` bytes in no order."""
    REPEATED = 2048
    """`data` is one byte, which was stored `size` times."""
    NO_DATA = 4096
    """The bytes are not known."""
    PART = 8192
    """The part in one page of an access that goes on in another."""


class BarrierKind(enum.IntEnum):
    """Which barrier instruction."""

    DMB = 1
    DSB = 2
    ISB = 3
    SB = 4
    DSB_NXS = 5


class Domain(enum.IntEnum):
    """The shareability domain of a barrier, CRm[3:2]. Device and Normal-NC accesses are Outer Shareable."""

    OSH = 0
    NSH = 1
    ISH = 2
    SY = 3


class Barrier(NamedTuple):
    """A barrier instruction; `option` is its CRm, 0 to 15."""

    kind: BarrierKind
    option: int = 15

    @property
    def domain(self) -> Domain:
        """The domain of a DMB or DSB; an option without accesses means the full system (DDI 0487 C6.2, DMB)."""
        return Domain(self.option >> 2) if self.option & 3 or self.kind is BarrierKind.DSB_NXS else Domain.SY

    @property
    def loads(self) -> bool:
        """Whether a DMB or DSB orders earlier loads."""
        return self.option & 3 != 2 or self.kind is BarrierKind.DSB_NXS

    @property
    def stores(self) -> bool:
        """Whether a DMB or DSB orders earlier stores."""
        return self.option & 3 != 1 or self.kind is BarrierKind.DSB_NXS

    def __str__(self) -> str:
        """As an assembler has it, in lower case."""
        if self.kind in (BarrierKind.ISB, BarrierKind.SB):
            return self.kind.name.lower()
        name, domain = self.kind.name[:3].lower(), self.domain.name.lower()
        if self.kind is BarrierKind.DSB_NXS:
            return f"{name} {domain}nxs"
        which = "ld" if not self.stores else "st" if not self.loads else ""
        return f"{name} {which if which and domain == 'sy' else domain + which}"


class Event(NamedTuple):
    """One event; see the module for what the fields mean. None is unknown."""

    kind: Kind
    offset: int = 0
    size: int = 0
    data: bytes = b""
    """At most 16 bytes; with `Flag.REPEATED` one."""
    bar: int | None = None
    stage1: MemoryType | None = None
    stage2: int | None = None
    type: MemoryType | None = None
    peripheral: int | None = None
    barrier: Barrier | None = None
    flags: Flag = Flag.NONE
    vcpu: int = 0
    sequence: int = 0
    pc: int = 0
    instruction: int = 0
    element: int = 0
    el: int | None = None
    fwb: bool = False


def _within(name: str, value: int, most: int, least: int = 0) -> int:
    if not least <= value <= most:
        raise DefinitionError(f"{name} must be {least} to {most:#x}, not {value:#x}")
    return value


def _check(event: Event) -> None:
    _within("sequence", event.sequence, (1 << 64) - 1)
    _within("pc", event.pc, (1 << 64) - 1)
    _within("offset", event.offset, (1 << 64) - 1)
    _within("size", event.size, (1 << 32) - 1)
    _within("instruction", event.instruction, (1 << 32) - 1)
    _within("vcpu", event.vcpu, 0xFFFF)
    _within("peripheral", event.peripheral or 0, _UNKNOWN_PERIPHERAL - 1)
    _within("element", event.element, 0xFF)
    _within("stage 2", event.stage2 or 0, NO_STAGE_2)
    _within("exception level", event.el or 0, 3)
    _within("data", len(event.data), 16)
    if event.bar not in (None, BAR_CONFIG, *range(BAR_ROM + 1)):
        raise DefinitionError(f"bar must be 0 to {BAR_ROM}, {BAR_CONFIG:#x} or None, not {event.bar:#x}")
    if (event.barrier is None) != (event.kind is not Kind.BARRIER):
        raise DefinitionError(f"barrier must be given for a BARRIER and for nothing else, not for {event.kind.name}")
    if event.barrier is not None:
        _within("option of a barrier", event.barrier.option, 15)


def pack(event: Event) -> bytes:
    """The event as 64 bytes. Raises DefinitionError for a field out of range."""
    _check(event)
    known = (event.stage1 is not None) | (event.stage2 is not None) << 1 | (event.type is not None) << 2
    return EVENT.pack(
        event.sequence,
        event.pc,
        event.offset,
        event.data,
        event.size,
        event.instruction,
        event.vcpu,
        _UNKNOWN_PERIPHERAL if event.peripheral is None else event.peripheral,
        event.kind,
        _UNKNOWN_BAR if event.bar is None else event.bar,
        event.element,
        event.barrier.kind << 4 | event.barrier.option if event.barrier else 0,
        event.flags | (_FWB if event.fwb else 0),
        event.stage1.byte if event.stage1 else 0,
        event.stage2 or 0,
        event.type.byte if event.type else 0,
        known,
        _UNKNOWN_EL if event.el is None else event.el,
    )


def _memory_type(byte: int) -> MemoryType | None:
    """A reserved encoding has no type: what the guest then gets is not known."""
    try:
        return MemoryType(byte)
    except DefinitionError:
        return None


_KINDS = {int(kind): kind for kind in Kind}
_BARRIERS = {kind << 4 | option: Barrier(kind, option) for kind in BarrierKind for option in range(16)}
_TYPES = tuple(_memory_type(byte) for byte in range(256))
_WITHOUT_DATA = (Kind.BARRIER, Kind.DGH, Kind.LOST)


def unpack(data: bytes) -> Event:
    """The event in 64 bytes. Raises StreamError for bytes that no event has."""
    if len(data) != EVENT.size:
        raise StreamError(f"event must be {EVENT.size} bytes, not {len(data)}")
    return _event(EVENT.unpack(data))


def unpack_all(data: bytes | memoryview) -> Iterator[Event]:
    """The events in `data`, one after the other. Raises StreamError when the last one is not whole."""
    if len(data) % EVENT.size:
        raise StreamError(f"trace must be whole events of {EVENT.size} bytes, not end with {len(data) % EVENT.size}")
    return map(_event, EVENT.iter_unpack(data))


def _event(fields: tuple[Any, ...]) -> Event:
    sequence, pc, offset, data, size, instruction, vcpu, peripheral, kind, bar, element, barrier, *rest = fields
    flags, stage1, stage2, effective, known, el = rest
    if kind not in _KINDS:
        raise StreamError(f"kind must be 1 to {max(_KINDS)}, not {kind}")
    if (barrier in _BARRIERS) != (kind == Kind.BARRIER) or (barrier and kind != Kind.BARRIER):
        raise StreamError(f"barrier must be one's encoding, or 0 where there is none, not {barrier:#04x}")
    if BAR_ROM < bar < BAR_CONFIG:
        raise StreamError(f"bar must be 0 to {BAR_ROM}, {BAR_CONFIG:#x} or {_UNKNOWN_BAR:#x}, not {bar:#x}")
    if stage2 > NO_STAGE_2:
        raise StreamError(f"stage 2 must be 0 to {NO_STAGE_2}, not {stage2}")
    if flags >> 15:
        raise StreamError(f"flags must be of 15 bits, not {flags:#x}")
    if 3 < el < _UNKNOWN_EL:
        raise StreamError(f"exception level must be 0 to 3 or {_UNKNOWN_EL:#x}, not {el:#x}")
    carries = kind not in _WITHOUT_DATA and not flags & Flag.NO_DATA
    return Event(
        kind=_KINDS[kind],
        offset=offset,
        size=size,
        data=data[: (1 if flags & Flag.REPEATED else size) if carries else 0],
        bar=None if bar == _UNKNOWN_BAR else bar,
        stage1=_TYPES[stage1] if known & 1 else None,
        stage2=stage2 if known & 2 else None,
        type=_TYPES[effective] if known & 4 else None,
        peripheral=None if peripheral == _UNKNOWN_PERIPHERAL else peripheral,
        barrier=_BARRIERS.get(barrier),
        flags=Flag(flags & ~_FWB),
        vcpu=vcpu,
        sequence=sequence,
        pc=pc,
        instruction=instruction,
        element=element,
        el=None if el == _UNKNOWN_EL else el,
        fwb=bool(flags & _FWB),
    )


def file_header(lost: int = 0) -> bytes:
    """What a trace file starts with; `lost` events are not in it."""
    return HEADER.pack(MAGIC, VERSION, EVENT.size, lost)


def write_trace(path: Path, events: Iterable[Event]) -> None:
    """Write a trace file. Raises OSError, and DefinitionError as `pack` does."""
    lost = 0
    with open(path, "wb") as file:
        file.write(file_header())
        for event in events:
            file.write(pack(event))
            lost += event.size if event.kind is Kind.LOST else 0
        file.seek(0)
        file.write(file_header(lost))


def _read_header(path: Path, file: BinaryIO) -> int:
    start = file.read(HEADER.size)
    if len(start) == HEADER.size:
        magic, version, size, lost = HEADER.unpack(start)
        if (magic, version, size) == (MAGIC, VERSION, EVENT.size):
            return int(lost)
    raise StreamError(f"{path} must be a trace of version {VERSION}, not a file that starts with {start[:16]!r}")


def lost_events(path: Path) -> int:
    """How many events were lost while a trace file was recorded. Raises what `read_trace` does."""
    with open(path, "rb") as file:
        return _read_header(path, file)


def read_trace(path: Path) -> Iterator[Event]:
    """The events of a trace file, read as they are asked for.

    Raises:
        OSError: It cannot be read.
        StreamError: It is no trace of this version, or ends within an event.
    """
    with open(path, "rb") as file:
        _read_header(path, file)
        while chunk := file.read(_CHUNK):
            try:
                yield from unpack_all(chunk)
            except StreamError as error:
                raise StreamError(f"{path}: {error}") from None
