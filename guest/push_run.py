"""Run the push loop as a DPDK process would, EL0, once under each type that the guest can map the window with.

Stage 2 leaves the window Normal-NC, so that the guest's own stage 1 decides. What may fault is computed from
`bridge.attributes` before anything runs.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from statistics import median
from typing import Any

import msgspec

from ..bridge.attributes import (
    MEMORY_TYPES,
    Access,
    Effect,
    Implementation,
    Kind,
    MemoryType,
    Outcome,
    Page,
    combine,
    outcomes,
    permitted,
)
from ..bridge.errors import DefinitionError
from ..devices.probe import Probe
from ..devices.probe_map import RANGES, Reg
from .boot import Booted, booted
from .deviations import ACCESSES, Trial
from .operation import PAGE
from .plan import MAIR, Range, Status
from .provision.qemu import find_qemu
from .push import STORES, Delivery, check_log, check_window
from .results import Verdict
from .workload import ENTRY_SIZE, Barrier, Idiom, Pushed, Workload

WINDOWS = {"mapped": RANGES["wc-mapped"], "trapped": RANGES["wc-trapped"]}
SLOTS = RANGES["wc-mapped"].size // ENTRY_SIZE
MAX_COUNT = 10_000
"""Most entries of one push through the trapped window: the device's log keeps 2**20 transactions, and an entry whose
bytes come one by one makes 81."""
_EL = 0
_NGNRE, _NC = 1, 5
"""Stage-2 MemAttr, the same for both settings of FWB."""


class Push(msgspec.Struct, frozen=True):
    """What to push: ``window`` is a key of `WINDOWS`; at most `SLOTS` entries when it is mapped, else `MAX_COUNT`."""

    cpu: str = "max"
    window: str = "trapped"
    idiom: Idiom = Idiom.ST1
    barrier: Barrier = Barrier.DMB
    count: int = 1000

    def workload(self, s1: int) -> Workload:
        """The loop, with the window mapped as the type of this index.

        Raises:
            DefinitionError: ``count`` is more than can be checked, or less than 1.
        """
        most, why = (MAX_COUNT, "device's log") if self.window == "trapped" else (SLOTS, "window's final contents")
        if not 1 <= self.count <= most:
            raise DefinitionError(f"count must be 1 to {most}, what the {why} can show, not {self.count}")
        return Workload(
            el=_EL,
            idiom=self.idiom,
            barrier=self.barrier,
            window_s1=s1,
            window_bar=WINDOWS[self.window].bar,
            window_offset=WINDOWS[self.window].offset,
            doorbell_s1=MAIR.index(0x04),
            doorbell_bar=RANGES["doorbell"].bar,
            doorbell_offset=Reg.DOORBELL,
            count=self.count,
            slots=SLOTS,
        )


class PushRow(msgspec.Struct, frozen=True):
    """The loop under one type. ``s1`` and ``architecture``, the effective type, are attribute bytes: two hex digits.

    ``expected`` and ``observed`` say whether it works or where it faults; ``transactions`` are the fewest, the median
    and the most of an entry, None where they cannot be seen; ``ordered``: no entry was wrong and no doorbell early.
    """

    s1: str
    architecture: str
    entries: int
    whole: int
    expected: str
    observed: str
    transactions: tuple[int, float, int] | None
    ordered: bool
    verdict: Verdict
    note: str
    problems: tuple[str, ...]


class PushReport(msgspec.Struct, frozen=True):
    """All of it."""

    provenance: dict[str, Any]
    push: Push
    rows: tuple[PushRow, ...]

    @property
    def disagrees(self) -> bool:
        """Whether any row does, or there is none."""
        return not self.rows or any(row.verdict is Verdict.DISAGREE for row in self.rows)

    def to_json(self) -> bytes:
        """The JSON document, indented, in UTF-8: this structure, with the names of idiom and barrier in lower case."""
        push = {"idiom": self.push.idiom.name.lower(), "barrier": self.push.barrier.name.lower()}
        document = {**msgspec.structs.asdict(self), "push": {**msgspec.structs.asdict(self.push), **push}}
        return msgspec.json.format(msgspec.json.encode(document), indent=1)


class Prospect(msgspec.Struct, frozen=True):
    """What the architecture says of an idiom under a type: ``store`` must fault, as one of ``faults``; None: works."""

    store: int | None
    faults: frozenset[Outcome]

    @property
    def text(self) -> str:
        """For people: "works", "EL1 fault 96000061 at store 1"."""
        if self.store is None:
            return "works"
        return f"{' or '.join(sorted(str(fault) for fault in self.faults))} at store {self.store}"


def prospect(idiom: Idiom, s1: MemoryType, implementation: Implementation) -> Prospect:
    """The first store of an entry that must fault, from the rules alone."""
    for number, store in enumerate(STORES[idiom]):
        access = Access(Kind.PLAIN, True, store.size, store.offset, store.alignment, _EL)
        found = outcomes(access, Page(s1, _NC), implementation=implementation)
        if not any(each.effect is Effect.WORKS for each in found):
            return Prospect(number, found)
    return Prospect(None, frozenset())


def judge(push: Push, s1: MemoryType, pushed: Pushed, wanted: Prospect, window: int) -> tuple[Verdict, str, int]:
    """Compare the loop's end with what it must come to: the verdict, why, and how many stores went before a fault.

    ``window`` is the virtual address of the window's first byte, to which FAR is compared.
    """
    if pushed.status is Status.DONE:
        if wanted.store is None:
            return Verdict.AGREE, "", 0
        # The first store to every page is an aligned one, so that QEMU has the page in its TLB when it comes to others.
        trial = Trial(Kind.PLAIN, vector=False, warm=wanted.store > 0, s1_device=s1.is_device, s2_device=False)
        known = next((each for each in ACCESSES if each.applies(trial)), None)
        if known is not None and known.effect is Effect.WORKS:
            return Verdict.KNOWN_DEVIATION, known.reason, 0
        return Verdict.DISAGREE, f"expected {wanted.text}, not works", 0
    if pushed.status is not Status.FAULT:
        return Verdict.DISAGREE, f"expected {wanted.text}, not {observed(push, pushed, window)}", 0
    number = _faulting(push, pushed, window)
    right = permitted(wanted.faults, Effect.FAULT, pushed.level, pushed.esr) and number == wanted.store
    if right and pushed.pushed == 0:
        return Verdict.AGREE, "", number or 0
    found = f"{observed(push, pushed, window)} of entry {pushed.pushed}"
    return Verdict.DISAGREE, f"expected {wanted.text}, not {found}", number or 0


def observed(push: Push, pushed: Pushed, window: int) -> str:
    """How the loop ended, in the words of `Prospect.text`."""
    if pushed.status is Status.DONE:
        return "works"
    if pushed.status is not Status.FAULT:
        return f"{pushed.status.name.lower()}"
    number = _faulting(push, pushed, window)
    where = f"at {pushed.far:#x}" if number is None else f"at store {number}"
    return f"EL{pushed.level} fault {pushed.esr:08x} {where}"


def _faulting(push: Push, pushed: Pushed, window: int) -> int | None:
    """Which store of the entry FAR names: the address of its first byte."""
    at = pushed.far - window - pushed.pushed % SLOTS * ENTRY_SIZE
    return next((number for number, store in enumerate(STORES[push.idiom]) if store.offset == at), None)


async def run_push(push: Push, probe: Probe | None = None) -> PushReport:
    """Boot the guest and push under each of its types. Raises what `Push.workload` and `booted` raise."""
    push.workload(0)
    started = time.monotonic()
    async with booted(push.cpu, probe) as up:
        types = MEMORY_TYPES if "mte" in up.hello.features else MEMORY_TYPES[:-1]
        place, doorbell = WINDOWS[push.window], RANGES["doorbell"]
        await up.guest.install(
            [
                Range(place.bar, place.offset, place.size // PAGE, _NC, MAIR.index(0x44)),
                Range(doorbell.bar, doorbell.offset, doorbell.size // PAGE, _NGNRE, MAIR.index(0x04)),
            ]
        )
        rows = [await _row(up, push, s1) for s1 in types]
    provenance = {
        "tool": f"pyvfio-user {version('pyvfio-user')}",
        "qemu": find_qemu().require().version,
        "lane": "el2",
        "fwb": 0,
        "s2": f"{_NC:x}",
        "el": _EL,
        "seconds": round(time.monotonic() - started, 1),
        "command": up.command,
    }
    return PushReport(provenance, push, tuple(rows))


async def _row(up: Booted, push: Push, s1: MemoryType) -> PushRow:
    index = MEMORY_TYPES.index(s1)
    workload = push.workload(index)
    dropped = up.probe.endpoint.recorder.dropped
    pushed = await up.guest.workload(workload)
    place = WINDOWS[push.window]
    window = up.hello.address(el=_EL, s1=index, bar=place.bar, offset=place.offset)
    wanted = prospect(push.idiom, s1, Implementation(lse2="lse2" in up.hello.features))
    verdict, note, stores = judge(push, s1, pushed, wanted, window)
    delivery = _delivery(workload, push, up, pushed.pushed, stores)
    problems = list(delivery.problems)
    if pushed.ran_at != _EL:
        problems.append(f"the loop must run at EL{_EL}, not EL{pushed.ran_at}")
    if lost := up.probe.endpoint.recorder.dropped - dropped:
        problems.append(f"the device's log must be whole, not short of {lost} transactions")
    if verdict is Verdict.DISAGREE:
        problems.insert(0, note)
    counts = delivery.transactions
    return PushRow(
        str(s1),
        str(combine(s1, _NC, False)),
        pushed.pushed,
        delivery.whole,
        wanted.text,
        observed(push, pushed, window),
        (min(counts), median(counts), max(counts)) if counts else None,
        not delivery.problems,
        Verdict.DISAGREE if problems else verdict,
        note,
        tuple(problems),
    )


def _delivery(workload: Workload, push: Push, up: Booted, pushed: int, stores: int) -> Delivery:
    log = up.guest.last.transactions
    if push.window == "trapped":
        return check_log(workload, log, pushed, stores=stores)
    place = WINDOWS[push.window]
    contents = up.guest.last.window[place.offset : place.offset + place.size]
    return check_window(workload, log, contents, pushed, stores=stores)
