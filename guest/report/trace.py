"""A trace on a terminal: a line an event, or a line for each function and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...bridge.attributes import MemoryType
from ...bridge.stream import BAR_CONFIG, BAR_ROM, NO_STAGE_2, Event, Flag, Kind, lost_events
from ..symbols import Symbols

_SHOWN_FLAGS = [flag for flag in Flag if flag and flag not in (Flag.REPEATED, Flag.NO_DATA)]
_SHORT = {
    "00": "nGnRnE", "04": "nGnRE", "08": "nGRE", "0c": "GRE", "44": "NC", "bb": "WT", "ff": "WB", "f0": "tagged",
}  # fmt: skip


def what(event: Event) -> str:
    """What was done, as `store acquire`; of a barrier, as an assembler has it."""
    if event.barrier is not None:
        return str(event.barrier)
    if event.kind is Kind.LOST:
        return f"{event.size} events lost"
    flags = [flag.name.lower().replace("_", "-") for flag in _SHOWN_FLAGS if flag & event.flags and flag.name]
    return " ".join([event.kind.name.lower().replace("_", " "), *flags])


def peripheral(event: Event) -> str:
    """The PCI function as `00:01.0`, or ?."""
    number = event.peripheral
    return "?" if number is None else f"{number >> 8:02x}:{number >> 3 & 31:02x}.{number & 7}"


def where(event: Event) -> str:
    """The place as `00:01.0 BAR 2 +0x1000`; the physical address when no BAR is known to be there."""
    if event.bar is None:
        return f"{event.offset:#x}"
    name = {BAR_CONFIG: "config", BAR_ROM: "ROM"}.get(event.bar, f"BAR {event.bar}")
    return f"{peripheral(event)} {name} +{event.offset:#x}"


def type_name(memory_type: MemoryType | None) -> str:
    """A short name of a type: `nGnRE`, `NC`; else its byte in hex; ? when it is not known."""
    return "?" if memory_type is None else _SHORT.get(str(memory_type.canonical), str(memory_type))


def stage2_name(event: Event) -> str:
    """MemAttr in hex, with a prime for FWB=1; a dash for no stage 2."""
    if event.stage2 is None:
        return "?"
    return "-" if event.stage2 == NO_STAGE_2 else f"{event.stage2:x}" + ("'" if event.fwb else "")


def _data(event: Event) -> str:
    if event.flags & Flag.REPEATED:
        return f"{event.size} x {event.data.hex()}"
    if event.flags & Flag.NO_DATA:
        return "?"
    return event.data.hex(" ")


def _accesses(event: Event) -> bool:
    return event.kind not in (Kind.BARRIER, Kind.DGH, Kind.LOST)


def chosen(events: Iterable[Event], *, config: bool, bars: frozenset[int]) -> Iterator[Event]:
    """The events to show: those of configuration space if asked for, of the BARs named or of all if none is.

    Barriers, DGH and what says that events are missing stay.
    """
    for event in events:
        if not _accesses(event):
            yield event
        elif event.bar == BAR_CONFIG:
            if config:
                yield event
        elif not bars or event.bar in bars:
            yield event


def show_events(events: Iterable[Event], symbols: Symbols, console: Console) -> None:
    """A line an event."""
    table = Table("#", "vCPU", "EL", "by", "what", "where", "size", "data", "S1", "S2", "type", highlight=False)
    for event in events:
        of_access = _accesses(event)
        table.add_row(
            str(event.sequence),
            str(event.vcpu),
            "" if event.el is None else str(event.el),
            symbols.place(event.pc) if event.pc else "",
            what(event),
            where(event) if of_access else "",
            str(event.size) if of_access else "",
            _data(event) if of_access else "",
            type_name(event.stage1) if of_access else "",
            stage2_name(event) if of_access else "",
            type_name(event.type) if of_access else "",
        )
    console.print(table)


def show_functions(events: Iterable[Event], symbols: Symbols, console: Console) -> None:
    """For each function, place and type: how many accesses it made; the most first."""
    counts: Counter[tuple[str, ...]] = Counter()
    for event in events:
        if _accesses(event):
            bar, _, _ = where(event).rpartition(" ")
            types = (type_name(event.stage1), stage2_name(event), type_name(event.type))
            counts[symbols.function(event.pc), what(event), bar or "no BAR", str(event.size), *types] += 1
    table = Table("function", "what", "where", "size", "S1", "S2", "type", "times", highlight=False)
    for row, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(*row, str(count))
    console.print(table)


def show_summary(path: Path, events: list[Event], shown: int, console: Console) -> None:
    """How much there is, how much of it was shown, and what is missing."""
    said = f"{path}: {len(events):,} events"
    if left_out := len(events) - shown:
        said += f", {left_out:,} of them not shown"
    console.print(said, highlight=False)
    if lost := lost_events(path):
        console.print(f"{lost:,} more were lost: the ring was full", style="bold red", highlight=False)
