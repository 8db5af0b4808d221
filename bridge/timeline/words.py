"""The words of a timeline: what stands in a box, and what is said of it when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence

from ..attributes import MemoryType
from ..interconnect import Effect, Tlp
from ..interconnect.profiles import Line
from ..interconnect.program import MSI_ADDRESS
from ..stream import BAR_CONFIG, BAR_ROM, NO_STAGE_2, Event, Flag, Kind
from .model import Style

_STYLES = {
    Kind.LOAD: Style.LOAD,
    Kind.TAG_LOAD: Style.LOAD,
    Kind.BARRIER: Style.BARRIER,
    Kind.DGH: Style.BARRIER,
    Kind.LOST: Style.LOST,
    Kind.SPECULATIVE: Style.SPECULATIVE,
}
_NOT_SAID = (Flag.REPEATED, Flag.NO_DATA)
_MOST_BYTES = 64
_MOST_PIECES = 16


def type_name(kind: MemoryType | None) -> str:
    """As in `nGnRE`, `Normal-NC`."""
    if kind is None:
        return "unknown"
    return kind.name.removeprefix("Device-").replace("Normal Non-cacheable", "Normal-NC")


def is_access(event: Event) -> bool:
    """Whether it is neither a barrier, nor a hint, nor what says that events are missing."""
    return event.kind not in (Kind.BARRIER, Kind.DGH, Kind.LOST)


def bar_name(bar: int | None, *, unknown: str = "?") -> str:
    """As in `bar2`, `config`."""
    if bar is None:
        return unknown
    return {BAR_CONFIG: "config", BAR_ROM: "rom"}.get(bar, f"bar{bar}")


def place(event: Event, offset: int, in_ram: bool = False) -> str:
    """As in `bar2+0x40`; of RAM, or of an unknown place, the physical address; `msi` of an interrupt message."""
    if in_ram and offset == MSI_ADDRESS:
        return "msi"
    return f"{bar_name(event.bar, unknown='ram' if in_ram else 'at')}+{offset:#x}"


def what(event: Event) -> str:
    """As in `store release`; a barrier as an assembler has it."""
    if event.barrier is not None:
        return str(event.barrier)
    if event.kind is Kind.LOST:
        return f"{event.size:,} events lost"
    flags = [flag.name.lower().replace("_", "-") for flag in Flag if flag & event.flags & ~sum(_NOT_SAID) and flag.name]
    return " ".join([event.kind.name.lower().replace("_", " "), *flags])


def style(event: Event) -> Style:
    """What its box stands for."""
    return _STYLES.get(event.kind, Style.STORE)


def label(event: Event, in_ram: bool) -> str:
    """What stands in an event's box."""
    if not is_access(event):
        return what(event)
    return f"{event.kind.name.lower().replace('_', ' ')} {place(event, event.offset, in_ram)} {event.size}"


def tag(event: Event) -> str:
    """An access's memory type, in short: as in `NC`."""
    return type_name(event.type).removeprefix("Normal-") if is_access(event) else ""


def details(event: Event, in_ram: bool, by: str) -> dict[str, str]:
    """What is said of an event; `by`: the function, or the PC."""
    found = {"event": f"{event.sequence}" if event.sequence else "", "what": what(event)}
    if is_access(event):
        data = f"{event.size} x {event.data.hex()}" if event.flags & Flag.REPEATED else shown(event.data)
        found |= {
            "where": place(event, event.offset, in_ram),
            "size": f"{event.size} bytes",
            "data": data,
            "type": type_name(event.type),
            "stage 1": type_name(event.stage1) if event.stage1 else "",
            "stage 2": _stage2(event),
        }
    found |= {"by": by, "EL": "" if event.el is None else str(event.el)}
    return {name: value for name, value in found.items() if value}


def _stage2(event: Event) -> str:
    if event.stage2 is None:
        return ""
    return "none" if event.stage2 == NO_STAGE_2 else f"MemAttr {event.stage2:x}, FWB={event.fwb:d}"


def shown(data: bytes) -> str:
    """Bytes in hex, the first 64."""
    more = f" and {len(data) - _MOST_BYTES} more" if len(data) > _MOST_BYTES else ""
    return data[:_MOST_BYTES].hex(" ") + more


def line_name(line: Line, size: int) -> str:
    """The first byte of a buffer's line of `size` bytes, as in `bar2+0x40`."""
    return f"{bar_name(line.bar)}+{line.number * size:#x}"


def range_of(effects: list[Effect], *, sizes: bool = True) -> str:
    """The place of what waits together, as in `bar2+0x40 16`, from the first byte to the last; several with commas."""
    found: dict[str, tuple[int, int]] = {}
    for effect in effects:
        name = bar_name(effect.event.bar, unknown="ram" if effect.in_ram else "at")
        start, end = found.get(name, (effect.offset, effect.end))
        found[name] = (min(start, effect.offset), max(end, effect.end))
    return ", ".join(
        "msi" if start == MSI_ADDRESS else f"{name}+{start:#x}{f' {end - start}' if sizes else ''}"
        for name, (start, end) in found.items()
    )


def dma(write: bool, segments: Sequence[tuple[int, int]]) -> str:
    """What a device's own access to RAM is, as in `write ram+0x40000000 5`; of several pieces, how many there are."""
    where = f"ram+{segments[0][0]:#x}" if segments else "ram"
    more = f" in {len(segments)} pieces" if len(segments) > 1 else ""
    return f"{'write' if write else 'read'} {where} {sum(length for _, length in segments)}{more}"


def dma_details(segments: Sequence[tuple[int, int]]) -> dict[str, str]:
    """What is said of it: its pieces, the first 16."""
    pieces = ", ".join(f"{address:#x} {length}" for address, length in segments[:_MOST_PIECES])
    more = f" and {len(segments) - _MOST_PIECES} more" if len(segments) > _MOST_PIECES else ""
    return {"pieces": pieces + more} if len(segments) > 1 else {}


def tlp_details(tlp: Tlp, why: str) -> dict[str, str]:
    """What is said of a TLP; `why` it was sent."""
    enabled = tlp.enabled
    found = {
        "TLP": str(tlp),
        "posted": "yes: nobody answers" if tlp.kind.posted else "no: it is answered by a completion",
        "bytes": f"{enabled.bit_count()}, from {bar_name(tlp.bar)}+{tlp.span.start:#x}" if enabled else "",
        "byte enables": f"first {tlp.first_be:04b}, last {tlp.last_be:04b}" if enabled else "",
        "payload": shown(tlp.data) if tlp.data else "",
        "sent because": why,
    }
    return {name: value for name, value in found.items() if value}
