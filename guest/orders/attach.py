"""Works out the orders of a matrix run, and hangs them on its cells: one entry for each pair of types that occurs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from msgspec.structs import replace

from ...bridge.attributes import NGNRE, MemoryType, combine
from ...bridge.errors import DefinitionError
from ...bridge.interconnect import PROFILES, RULES, Profile, Rules
from ...bridge.schemes import SCHEMES, Decision, Host
from ...bridge.schemes.questions import Study
from ..jobs import ALL_PAIRS, DOORBELL_STAGE2
from ..lanes.places import PLACES
from ..layout import DRIVER, GAP, LAYOUT, REQUEST, base_name
from ..results import Cell, HostCell, Matrix, Row, Verdict
from . import answers
from .measure import Measure
from .programs import BARRIERS, IDIOMS, Idiom, program
from .reads import unasked
from .results import Ordering, OrderPair, Orders, SpeculativeRead

HOW = "modelled"
NOTE = (
    "Modelled, never seen: what the Arm architecture and PCIe permit, not what some hardware does; how often is a "
    "property of the profile alone. QEMU's TCG does one access after the other, in program order, whatever the type: "
    "'TCG saw' shows that."
)
CACHED = (
    "cacheable: a cache holds the stores, and no barrier orders them at the device; the model has no cache "
    "maintenance, and lets each store arrive once"
)
STEP = "orders (modelled)"
"""The name of this work in the progress."""

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Ordered:
    """What is asked for: runs of a profile with seeds 0 to `seeds` - 1. Raises DefinitionError for no such profile."""

    profile: str = "wc-64x4"
    seeds: int = 1000

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise DefinitionError(f"profile must be one of {', '.join(PROFILES)}, not {self.profile}")
        if self.seeds < 1:
            raise DefinitionError(f"seeds must be at least 1, not {self.seeds}")


@dataclass(frozen=True)
class Pair:
    """A payload's type and a doorbell's; `aligned`: stage 1 is Device, though the payload's type is not."""

    payload: MemoryType
    doorbell: MemoryType
    aligned: bool = False

    def __str__(self) -> str:
        """Its key, as `44>04`; `ff'>04` where stage 1 is Device."""
        return f"{self.payload}{chr(39) if self.aligned else ''}>{self.doorbell}"


async def with_orders(
    matrix: Matrix, wanted: Ordered, *, progress: Progress | None = None, rules: Rules = RULES
) -> Matrix:
    """The same run, with the orders of every payload that a guest or the host can make under its schemes.

    The guest maps its doorbell as Device-nGnRE, as Linux' ioremap does; the host has it as the scheme says.
    """
    started = time.monotonic()
    cells = {cell: pair for cell in matrix.cells if (pair := _of_guest(cell)) is not None}
    hosts = {host: pair for host in matrix.host if (pair := _of_host(host)) is not None}
    pairs = sorted({*cells.values(), *hosts.values()}, key=str)
    seen = _seen(matrix, cells, hosts)
    measure = Measure(PROFILES[wanted.profile], wanted.seeds, rules)
    found: dict[str, OrderPair] = {}
    for step, pair in enumerate(pairs):
        if progress is not None:
            progress(STEP, step, len(pairs), str(pair))
        rows = []
        for idiom in IDIOMS.values():
            rows += list(_rows(pair, idiom, measure, seen.get((pair.payload, pair.aligned), {})))
            await asyncio.sleep(0)  # for the progress, and Ctrl-C
        note = "" if pair.payload.is_device or pair.payload.is_non_cacheable else CACHED
        found[str(pair)] = OrderPair(str(pair.payload), str(pair.doorbell), pair.aligned, note, tuple(rows))
    if progress is not None:
        progress(STEP, len(pairs), len(pairs), "")
    orders = Orders(
        HOW,
        NOTE,
        wanted.profile,
        in_words(PROFILES[wanted.profile]),
        wanted.seeds,
        round(time.monotonic() - started, 1),
        {name: idiom.text for name, idiom in IDIOMS.items()},
        dict(BARRIERS),
        found,
        tuple(_reads(matrix, rules)),
    )
    done = replace(
        matrix,
        cells=tuple(replace(cell, orders=str(cells[cell])) if cell in cells else cell for cell in matrix.cells),
        host=tuple(replace(host, orders=str(hosts[host])) if host in hosts else host for host in matrix.host),
        orders=orders,
    )
    return replace(done, scorecard=answers.added(done, orders))


def in_words(profile: Profile) -> str:
    """What buffers a profile has."""
    link = f"the root complex cuts at {profile.link.max_payload} bytes" + (
        ", and everything into 4" if profile.link.atom == 4 else ""
    )
    waiting = f", {profile.reorder} accesses wait beside them" if profile.reorder else ""
    if not profile.buffers:
        return f"no buffers{waiting}; {link}"
    partly = f", {profile.partial:.0%} of those in part" if profile.partial else ""
    return (
        f"{profile.buffers} buffers of {profile.line} bytes, one drains after {profile.drain:.0%} of accesses{partly}"
        f"{waiting}; {link}"
    )


def _rows(pair: Pair, idiom: Idiom, measure: Measure, seen: dict[str, str]) -> Iterator[Ordering]:
    fault = idiom.faults(pair.payload, pair.aligned)
    for barrier in BARRIERS:
        saw = seen.get(idiom.operation(barrier), "")
        if fault:
            yield Ordering(idiom.name, barrier, fault, seen=saw)
            continue
        made = measure(program(idiom, barrier, pair.payload, pair.doorbell))
        yield Ordering(
            idiom.name,
            barrier,
            "",
            made.effects,
            made.legal,
            made.one_tlp,
            made.early,
            made.kept_by,
            made.whole,
            made.torn,
            made.early_runs,
            made.shuffled,
            made.least,
            made.most,
            saw,
        )


@cache
def _decision(scheme: str, case: str, fwb: int) -> Decision:
    """What a scheme decides in a case, as the jobs had it, but for pages of `dynamic` that change."""
    study = Study.of(SCHEMES[scheme], LAYOUT, request=REQUEST, driver=DRIVER, host=Host(fwb=bool(fwb)))
    return study.nothing if case == "nothing" else study.asking


def _of_guest(cell: Cell) -> Pair | None:
    """The types of a guest's payload in this cell, and of its doorbell; None: it is no place for a payload."""
    if cell.architecture is None or cell.verdict in (Verdict.UNOBSERVABLE, Verdict.REFUSED) or _elsewhere(cell.range):
        return None
    if cell.scheme == ALL_PAIRS:
        bell: MemoryType | None = combine(NGNRE, DOORBELL_STAGE2, bool(cell.fwb))
    else:
        bell = _decision(cell.scheme, cell.case, cell.fwb).at("doorbell").effective(NGNRE, bool(cell.fwb))
    payload = MemoryType.parse(cell.architecture)
    aligned = MemoryType.parse(cell.s1).is_device and not payload.is_device
    return None if bell is None else Pair(payload, bell, aligned)


def _of_host(host: HostCell) -> Pair | None:
    if host.type is None or _elsewhere(host.range):
        return None
    bell = _decision(host.scheme, host.case, host.fwb).at("doorbell").host
    return None if bell is None else Pair(MemoryType.parse(host.type), bell)


def _of_the_device(name: str) -> bool:
    """Whether a range, or what lies between ranges, is of the PCIe device that the layout describes.

    A kernel is looked at with other memory, too: an interrupt controller's, another device's.
    """
    try:
        return LAYOUT.find(base_name(name)).bar is not None
    except KeyError:
        return False


def _elsewhere(name: str) -> bool:
    """Whether there is no place for a payload."""
    return name.startswith(GAP) or not _of_the_device(name)


def _seen(
    matrix: Matrix, cells: Mapping[Cell, Pair], hosts: Mapping[HostCell, Pair]
) -> dict[tuple[MemoryType, bool], dict[str, str]]:
    """What reached the device, from the first mode of each row, by the payload's type and the operation.

    Of full batteries on ranges that trap: all that was seen, if it was not the same wherever a payload has the type.
    """
    found: dict[tuple[MemoryType, bool], dict[str, set[str]]] = {}
    every = [(cell.range, cell.full, pair) for cell, pair in cells.items()]
    every += [(host.range, host.full, pair) for host, pair in hosts.items()]
    for name, full, pair in every:
        if full is not None and PLACES[base_name(name)].trapped:
            for row in matrix.batteries[full].rows:
                found.setdefault((pair.payload, pair.aligned), {}).setdefault(row.op, set()).add(seen_of(row))
    return {pair: {op: " | ".join(sorted(seen)) for op, seen in ops.items()} for pair, ops in found.items()}


def seen_of(row: Row) -> str:
    """What the device got in the first mode, whether a fault ended it, or did not though it should have."""
    got = row.device.partition(" | ")[0]
    if "fault" in next(iter(row.observed.values()), ""):
        return f"{got}, fault"
    return f"{got}, no fault" if row.verdict is Verdict.KNOWN_DEVIATION else got


def _reads(matrix: Matrix, rules: Rules) -> Iterator[SpeculativeRead]:
    """Each mapping of a range of the PCIe device, once a scheme, case and setting of FWB."""
    found: dict[tuple[str, str, int, str, str, str], list[str]] = {}
    for host in matrix.host:
        if host.type and _of_the_device(host.range):
            found.setdefault((host.scheme, host.case, host.fwb, "host", host.range, host.type), [])
    for cell in matrix.cells:
        reached = cell.scheme != ALL_PAIRS and cell.verdict is not Verdict.UNOBSERVABLE
        if reached and cell.architecture and _of_the_device(cell.range):
            key = (cell.scheme, cell.case, cell.fwb, "guest", cell.range, cell.architecture)
            if cell.s1 not in found.setdefault(key, []):
                found[key].append(cell.s1)
    for (scheme, case, fwb, who, name, kind), s1 in found.items():
        read = unasked(base_name(name), MemoryType.parse(kind), who, rules)
        yield SpeculativeRead(
            scheme,
            case,
            fwb,
            who,
            name,
            read.register,
            kind,
            tuple(s1),
            read.program,
            read.legal,
            read.reading,
            read.why,
        )
