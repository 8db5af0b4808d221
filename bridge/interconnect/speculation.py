"""Reads that nobody asked for: where each mapping permits them (Arm ARM DDI 0487, B2.10.1, B2.10.2, K1.2.10)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..attributes import MemoryType
from ..errors import DefinitionError
from ..stream import Event, Flag, Kind
from .program import Part, Program, speculative

_SIMD_WINDOW, _SVE_WINDOW, _NON_TEMPORAL_WINDOW = 16, 64, 128


class Mapped(NamedTuple):
    """Bytes of a BAR that somebody has mapped, with the effective type: the guest's combined, the host's own."""

    bar: int
    offset: int
    size: int
    type: MemoryType
    who: str = "guest"
    peripheral: int = 0


class Reach(NamedTuple):
    """Bytes of a BAR that may be read without a program's asking: through which mapping, and by which section."""

    mapped: Mapped
    offset: int
    size: int
    section: str

    def __str__(self) -> str:
        """As in `bar0+0x0 4096 through the host's Normal Non-cacheable mapping (B2.10.1)`."""
        where = f"bar{self.mapped.bar}+{self.offset:#x} {self.size}"
        return f"{where} through the {self.mapped.who}'s {self.mapped.type.name} mapping ({self.section})"

    def covers(self, bar: int, offset: int, size: int = 1) -> bool:
        """Whether it has any of these bytes."""
        return self.mapped.bar == bar and self.offset < offset + size and offset < self.offset + self.size


def reaches(mapped: Sequence[Mapped], events: Sequence[Event] = ()) -> list[Reach]:
    """Where reads may be made that the program does not make.

    Normal: anywhere in the mapping, at any time, whoever has it and whether it is used or not. Device: only around
    SIMD, SVE, MOPS and non-temporal loads that `events` has, in an aligned window, within the mapping that has the
    load's type.
    """
    found = []
    for each in mapped:
        if each.type.speculation:
            found.append(Reach(each, each.offset, each.size, "B2.10.1"))
            continue
        for event in events:
            window = _window(event)
            there = event.bar == each.bar and event.peripheral in (None, each.peripheral)
            if not window or not there or event.type != each.type:
                continue
            start = max(event.offset // window * window, each.offset)
            behind = (event.offset + event.size - 1) // window * window + window
            end = min(behind, each.offset + each.size)
            if start < end:
                found.append(Reach(each, start, end - start, "B2.10.2, K1.2.10"))
    return found


def _window(event: Event) -> int:
    """Bytes of the aligned window around a load of Device memory in which others may be read; 0: none."""
    if event.kind is not Kind.LOAD:
        return 0
    if event.flags & Flag.NON_TEMPORAL and event.type is not None and event.type.gathering:
        return _NON_TEMPORAL_WINDOW
    if event.flags & (Flag.SVE | Flag.MOPS):
        return _SVE_WINDOW
    return _SIMD_WINDOW if event.flags & (Flag.SIMD | Flag.STRUCTURE) else 0


def speculated(program: Program, mapped: Sequence[Mapped], seed: int, most: int = 4) -> Program:
    """The program with `most` speculative reads somewhere in it, if the types permit any; the same seed, the same ones.

    Reads are of 1 to 64 bytes, aligned (of more, it is several); each need not be made in a behaviour.
    Raises DefinitionError for `most` below 0.
    """
    if most < 0:
        raise DefinitionError(f"most must not be negative, not {most}")
    chance = random.Random(seed)
    where = reaches(mapped, program.events)
    for _ in range(most if where else 0):
        part = speculative_read(where, chance)
        program = program.inserted(chance.randrange(len(program.events) + 1), part)
    return program


def speculative_read(where: Sequence[Reach], chance: random.Random) -> Part:
    """One read somewhere there, 1 to 64 bytes, as several events if it is long; nothing when nothing is reached."""
    return tuple(_read(chance.choice(where), chance)) if where else ()


def _read(reach: Reach, chance: random.Random) -> Iterator[Event]:
    size = chance.choice((1, 2, 4, 8, 16, 32, 64))
    at = chance.randrange(reach.offset, reach.offset + reach.size) // size * size
    end = min(at + size, reach.offset + reach.size)
    at = max(at, reach.offset)
    while at < end:
        length = min(8, end - at, at & -at or 8)
        length = 1 << (length.bit_length() - 1)
        (event,) = speculative(at, length, type=reach.mapped.type, bar=reach.mapped.bar)
        yield event._replace(peripheral=reach.mapped.peripheral)
        at += length
