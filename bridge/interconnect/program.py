"""Programs: labelled events, written in a test or recorded, and what a stream of events cannot carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate
from typing import NamedTuple

from ..attributes import NGNRE, NORMAL_NC, NORMAL_WB, MemoryType
from ..errors import DefinitionError
from ..stream import Barrier, BarrierKind, Domain, Event, Flag, Kind

Part = tuple[Event, ...]
"""One instruction, or several, as the functions below make them."""

ST64B = 0xF83F9000
"""Encoding of ST64B with both registers 0 (FEAT_LS64): all 64 bytes are one access, whatever events they come in."""

WINDOW = 48
"""Events in a window of a long recording; none arrives in another's."""

_DOMAINS = {"osh": Domain.OSH, "nsh": Domain.NSH, "ish": Domain.ISH, "": Domain.SY}
_TYPES = {"": 3, "ld": 1, "st": 2}
DEVICE = 0xFFFF
"""The vCPU of what the device itself sends: posted writes to RAM, and interrupts."""
MSI_ADDRESS = 1 << 63
"""Where `msi` writes to: to no RAM, and what reads it is whoever takes the interrupt."""

OPTIONS = {
    (domain + kind or "sy"): where << 2 | which for domain, where in _DOMAINS.items() for kind, which in _TYPES.items()
}
"""CRm of a DMB or DSB, by what the assembler calls it: sy, st, ld, osh, oshst, ... nshld."""


class DependencyKind(Enum):
    """What of a load's result the later access needs (DDI 0487 B2.3.3)."""

    ADDRESS = "address"
    DATA = "data"
    CONTROL = "control"


class Dependency(NamedTuple):
    """The access `second` depends on what the load `first` returned; both are positions of events in the program."""

    first: int
    second: int
    kind: DependencyKind = DependencyKind.DATA


@dataclass(frozen=True)
class Program:
    """Events in an order that keeps each vCPU's own; positions in `events` name them.

    `reads_from` pairs what was sent with what shows that it was: a store to RAM with a load, of another vCPU, that
    reads it; a write or interrupt of the device's with a load from the device that says so, whose completion is behind
    it; an interrupt with the first access of its handler; an access with what the device sent because of it. `ram`:
    physical addresses that are memory; an event without a BAR and outside them is at an unknown place. Raises
    DefinitionError.
    """

    events: tuple[Event, ...]
    dependencies: tuple[Dependency, ...] = ()
    reads_from: tuple[tuple[int, int], ...] = ()
    ram: range = range(1 << 64)

    def __post_init__(self) -> None:
        """Check that the pairs go forward, and join accesses of the right kind."""
        for first, second in (*((each.first, each.second) for each in self.dependencies), *self.reads_from):
            if not 0 <= first < second < len(self.events):
                raise DefinitionError(
                    f"positions must go forward within {len(self.events)} events, not from {first} to {second}"
                )
        for dependency in self.dependencies:
            one, two = self.events[dependency.first], self.events[dependency.second]
            if one.kind not in (Kind.LOAD, Kind.ATOMIC) or one.vcpu != two.vcpu:
                raise DefinitionError(
                    f"a dependency must be on a load of the same vCPU, not on {one.kind.name} of vCPU {one.vcpu}"
                )
        for first, second in self.reads_from:
            one, two = self.events[first], self.events[second]
            by_device = (one.vcpu == DEVICE and one.offset == MSI_ADDRESS) or two.vcpu == DEVICE != one.vcpu
            stored = one.kind in (Kind.STORE, Kind.ATOMIC) and two.kind in (Kind.LOAD, Kind.ATOMIC)
            if not stored and not by_device:
                raise DefinitionError(
                    f"reads_from must pair a store with a load, not {one.kind.name} with {two.kind.name}"
                )

    @classmethod
    def of(
        cls,
        *parts: Part,
        dependencies: Iterable[Dependency] = (),
        reads_from: Iterable[tuple[int, int]] = (),
    ) -> Program:
        """The parts one after the other; `dependencies` and `reads_from` count *parts* here, each part's first event.

        Raises DefinitionError.
        """
        starts = [0, *accumulate(len(part) for part in parts)]
        events = [event for part in parts for event in part]

        def start(part: int) -> int:
            if not 0 <= part < len(parts):
                raise DefinitionError(f"a part must be 0 to {len(parts) - 1}, not {part}")
            return starts[part]

        return cls(
            tuple(event._replace(sequence=number) for number, event in enumerate(events, 1)),
            tuple(Dependency(start(first), start(second), kind) for first, second, kind in dependencies),
            tuple((start(first), start(second)) for first, second in reads_from),
        )

    @classmethod
    def recorded(cls, events: Iterable[Event], ram: range = range(0)) -> Program:
        """A recording. Nothing in it tells RAM from a BAR that is not known, so `ram` is empty if not given."""
        return cls(tuple(events), ram=ram)

    def inserted(self, position: int, part: Part) -> Program:
        """The same program with more events before those at `position`; at the end when it is their number."""
        if not 0 <= position <= len(self.events):
            raise DefinitionError(f"position must be 0 to {len(self.events)}, not {position}")

        def moved(old: int) -> int:
            return old + len(part) if old >= position else old

        return replace(
            self,
            events=self.events[:position] + part + self.events[position:],
            dependencies=tuple(Dependency(moved(a), moved(b), kind) for a, b, kind in self.dependencies),
            reads_from=tuple((moved(a), moved(b)) for a, b in self.reads_from),
        )

    def interrupted(self, position: int, done: int) -> Program:
        """The program with one instruction done twice: an exception came after its first `done` events (B2.2).

        `position`: of its first event. What was done of it is done again with the rest, on Device memory too.
        Raises DefinitionError when it has fewer events.
        """
        events = self.events[position : position + done]
        if not events or any((event.element, event.vcpu) != (n, events[0].vcpu) for n, event in enumerate(events)):
            raise DefinitionError(f"done must be 1 to as many events as the instruction at {position} has, not {done}")
        return self.inserted(position, events)


def pattern(offset: int, size: int) -> bytes:
    """The data of stores that are given none: byte n of a BAR is n + 1, but for 0 every 256 bytes."""
    return bytes((offset + at + 1) & 0xFF for at in range(size))


def store(
    offset: int,
    size: int = 8,
    data: bytes | int | None = None,
    *,
    type: MemoryType | None = NGNRE,
    bar: int | None = 0,
    peripheral: int | None = 0,
    flags: Flag = Flag.NONE,
) -> Part:
    """A store of one register: 1, 2, 4 or 8 bytes, or 16 (STR Q). `data` as an integer is little-endian."""
    _check_size(size)
    content = (
        pattern(offset, size) if data is None else data.to_bytes(size, "little") if isinstance(data, int) else data
    )
    if len(content) != size:
        raise DefinitionError(f"data must be {size} bytes, not {len(content)}")
    if size == 16:
        flags |= Flag.SIMD
    return (Event(Kind.STORE, offset, size, content, bar, type=type, peripheral=peripheral, flags=flags),)


def load(
    offset: int,
    size: int = 8,
    *,
    type: MemoryType | None = NGNRE,
    bar: int | None = 0,
    peripheral: int | None = 0,
    flags: Flag = Flag.NONE,
) -> Part:
    """A load of one register: 1, 2, 4 or 8 bytes, or 16 (LDR Q)."""
    _check_size(size)
    flags |= Flag.NO_DATA | (Flag.SIMD if size == 16 else Flag.NONE)
    return (Event(Kind.LOAD, offset, size, b"", bar, type=type, peripheral=peripheral, flags=flags),)


def stlr(offset: int, size: int = 8, data: bytes | int | None = None, *, type: MemoryType | None = NGNRE) -> Part:
    """A store-release to BAR 0."""
    return store(offset, size, data, type=type, flags=Flag.RELEASE)


def ldar(offset: int, size: int = 8, *, type: MemoryType | None = NGNRE) -> Part:
    """A load-acquire from BAR 0."""
    return load(offset, size, type=type, flags=Flag.ACQUIRE)


def pair(part: Part) -> Part:
    """STP or LDP: the access given, and the same on the register behind it."""
    (event,) = part
    second = event._replace(offset=event.offset + event.size, element=1, flags=event.flags | Flag.PAIR)
    if event.kind is Kind.STORE:
        second = second._replace(data=pattern(second.offset, second.size))
    return (event._replace(flags=event.flags | Flag.PAIR), second)


def burst(
    offset: int, size: int = 64, each: int = 8, *, type: MemoryType | None = NORMAL_NC, bar: int | None = 0
) -> Part:
    """Stores of `each` bytes, ascending, as memcpy_toio has them; `size` bytes in all."""
    return tuple(e for at in range(offset, offset + size, each) for e in store(at, each, type=type, bar=bar))


def st1(offset: int, registers: int = 4, *, type: MemoryType | None = NORMAL_NC, bar: int | None = 0) -> Part:
    """ST1 of 1 to 4 SIMD registers, as memcpy's 64-byte loop has it: one instruction, in events of 16 bytes."""
    if not 1 <= registers <= 4:
        raise DefinitionError(f"registers must be 1 to 4, not {registers}")
    events = (store(offset + 16 * n, 16, type=type, bar=bar, flags=Flag.STRUCTURE)[0] for n in range(registers))
    return tuple(event._replace(element=n) for n, event in enumerate(events))


def st64b(offset: int, *, type: MemoryType | None = NGNRE, bar: int | None = 0) -> Part:
    """ST64B: 64 bytes as one access, in four events, for an event has 16 bytes of data."""
    if offset % 64:
        raise DefinitionError(f"offset of ST64B must be a multiple of 64, not {offset:#x}")
    events = (store(at, 16, type=type, bar=bar)[0] for at in range(offset, offset + 64, 16))
    return tuple(e._replace(element=n, instruction=ST64B, flags=Flag.NONE) for n, e in enumerate(events))


def dc_zva(offset: int, size: int = 64, *, type: MemoryType | None = NORMAL_NC, bar: int | None = 0) -> Part:
    """DC ZVA of a block of `size` bytes, a power of two; `offset` is anywhere in it."""
    start = offset & -size
    return (Event(Kind.ZERO, start, size, b"\0", bar, type=type, peripheral=0, flags=Flag.REPEATED),)


def atomic(offset: int, size: int = 8, data: int = 1, *, type: MemoryType | None = NGNRE) -> Part:
    """A read-modify-write in one instruction (FEAT_LSE), to BAR 0."""
    _check_size(size)
    return (Event(Kind.ATOMIC, offset, size, data.to_bytes(size, "little"), 0, type=type, peripheral=0),)


def ram_store(address: int, size: int = 8, data: bytes | int | None = None, *, flags: Flag = Flag.NONE) -> Part:
    """A store to RAM (Normal Write-Back), which the device reads by DMA."""
    return store(address, size, data, type=NORMAL_WB, bar=None, peripheral=None, flags=flags)


def ram_load(address: int, size: int = 8, *, flags: Flag = Flag.NONE) -> Part:
    """A load from RAM (Normal Write-Back)."""
    return load(address, size, type=NORMAL_WB, bar=None, peripheral=None, flags=flags)


def dma_write(address: int, size: int = 8, data: bytes | int | None = None) -> Part:
    """A write of the device's to RAM. It is posted: those of one device arrive in order (PCIe 2.4.1)."""
    return on_vcpu(DEVICE, ram_store(address, size, data))


def msi(vector: int = 0) -> Part:
    """An interrupt message of the device's: a posted write like any other (PCIe 6.1.4), so behind those before it."""
    return on_vcpu(DEVICE, ram_store(MSI_ADDRESS, 4, vector))


def on_vcpu(vcpu: int, *parts: Part) -> Part:
    """The same events, on another vCPU than 0."""
    return tuple(event._replace(vcpu=vcpu) for part in parts for event in part)


def dmb(option: str = "sy") -> Part:
    """A DMB; `option` as an assembler has it: sy, st, ld, oshst, ish... Raises DefinitionError for another."""
    return _barrier(BarrierKind.DMB, option)


def dsb(option: str = "sy") -> Part:
    """A DSB; `option` as for `dmb`."""
    return _barrier(BarrierKind.DSB, option)


def isb() -> Part:
    """An ISB."""
    return (Event(Kind.BARRIER, barrier=Barrier(BarrierKind.ISB)),)


def dgh() -> Part:
    """A Data Gathering Hint."""
    return (Event(Kind.DGH),)


def speculative(offset: int, size: int = 8, *, type: MemoryType | None = NORMAL_NC, bar: int | None = 0) -> Part:
    """A read that the program did not make, and that need not happen."""
    return (Event(Kind.SPECULATIVE, offset, size, b"", bar, type=type, peripheral=0, flags=Flag.NO_DATA),)


def _barrier(kind: BarrierKind, option: str) -> Part:
    if option not in OPTIONS:
        raise DefinitionError(f"option must be one of {', '.join(OPTIONS)}, not {option}")
    return (Event(Kind.BARRIER, barrier=Barrier(kind, OPTIONS[option])),)


def _check_size(size: int) -> None:
    if size not in (1, 2, 4, 8, 16):
        raise DefinitionError(f"size must be 1, 2, 4, 8 or 16 bytes, not {size}")


def windows(events: Sequence[Event], size: int) -> list[Program]:
    """A long recording as programs of at most `size` events each, cut between instructions.

    No effect leaves its window, so all that is found is legal for the whole, and more may be. A barrier belongs to the
    window before it.
    """
    found: list[Program] = []
    start = 0
    while start < len(events):
        end = limit = min(start + size, len(events))
        while start < end < len(events) and events[end].element:
            end -= 1
        end = end if end > start else limit  # an instruction that alone is longer
        found.append(Program.recorded(events[start:end]))
        start = end
    return found
