"""The device's side of the push loop: was every 64-byte entry there, whole, once, in order, before its doorbell?

Pure functions over what the device recorded, or over the bytes that it holds at the end where the window is memory
shared with the guest. Nothing here knows a memory type: a device wants its entries whatever the driver's mapping is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..bridge.recorder import Transaction
from .workload import ENTRY_SIZE, Idiom, Workload, entry


class Store(NamedTuple):
    """One store instruction of an idiom: offset in the entry, bytes, and alignment it needs (DDI 0487, B2.8.2.1)."""

    offset: int
    size: int
    alignment: int


STORES: Mapping[Idiom, tuple[Store, ...]] = {
    Idiom.IOWRITE64: tuple(Store(at, 8, 8) for at in range(0, 64, 8)),
    Idiom.IOWRITE32: tuple(Store(at, 4, 4) for at in range(0, 64, 4)),
    Idiom.ST1: (Store(0, 64, 1),),
    Idiom.STP: tuple(Store(at, 16, 8) for at in range(0, 64, 16)),
    Idiom.MEMCPY: tuple(Store(at, 16, 16) for at in (0, 13, 29, 45, 48)),
}
"""The stores of one entry in program order, as ``baremetal/workload.c`` has them."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What reached the device: whole entries, transactions of each of them (none where they cannot be seen), wrongs."""

    whole: int
    transactions: tuple[int, ...]
    problems: tuple[str, ...]


class _Entries:
    """Entries as their pieces arrive. An entry that was never touched takes no room."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.last = workload.first + workload.count
        self.problems: list[str] = []
        self.transactions: Counter[int] = Counter()
        self._stored = Counter(
            at for store in STORES[workload.idiom] for at in range(store.offset, store.offset + store.size)
        )
        self._arrived: dict[int, Counter[int]] = {}
        self._twice: set[int] = set()

    def owner(self, slot: int, at: int, data: bytes, now: int) -> int | None:
        """The entry that has these bytes in this slot: the one due now, else the nearest before or after it."""
        slots = self.workload.slots
        due = now - (now - slot) % slots
        for sequence in (due, due - slots, due + slots):
            inside = self.workload.first <= sequence < self.last
            if inside and entry(sequence)[at : at + len(data)] == data:
                return sequence
        return None

    def add(self, sequence: int, at: int, size: int) -> None:
        """Bytes of an entry arrived."""
        self.transactions[sequence] += 1
        arrived = self._arrived.setdefault(sequence, Counter())
        arrived.update(range(at, at + size))
        if sequence not in self._twice and any(arrived[n] > self._stored[n] for n in range(at, at + size)):
            self._twice.add(sequence)
            self.problems.append(f"entry {sequence} must arrive once, not have byte {at} more often than it was stored")

    def missing(self, sequence: int) -> int:
        """How many bytes of an entry have not arrived."""
        return ENTRY_SIZE - len(self._arrived.get(sequence, ()))


def check_log(workload: Workload, log: Sequence[Transaction], pushed: int, *, stores: int = 0) -> Delivery:
    """Check the log of a trapped window: ``pushed`` entries, then what the first ``stores`` of the next one wrote.

    Each entry must be whole before its doorbell rings with the entry's number plus one, begin after the doorbell of the
    entry before, and have no byte written more often than its idiom stores it. Nothing else may be in the log.
    """
    entries = _Entries(workload)
    problems = entries.problems
    now = workload.first
    end = now + pushed
    early: list[int] = []
    ahead: set[int] = set()
    for each in log:
        if _is_doorbell(workload, each):
            due, now = now, _ring(workload, each, now, end, problems)
            early += [sequence for sequence in range(due, now) if entries.missing(sequence)]
            continue
        slot, at = divmod(each.offset - workload.window_offset, workload.stride)
        if not (each.write and each.region == workload.window_bar and 0 <= slot < workload.slots):
            problems.append(f"only entries and doorbells must arrive, not {each}")
            continue
        sequence = entries.owner(slot, at, each.data, now)
        if sequence is None:
            problems.append(f"slot {slot} must be given bytes of its entry at {at}, not {each.data.hex(' ')}")
            continue
        entries.add(sequence, at, each.size)
        if sequence > now and sequence not in ahead:
            ahead.add(sequence)
            problems.append(f"entry {sequence} must come after the doorbell of entry {now}, not before it")
    problems += [f"entry {sequence} must be followed by its doorbell, not by nothing" for sequence in range(now, end)]
    for sequence in early:
        lost = entries.missing(sequence)
        if lost:
            what = "missing" if lost == ENTRY_SIZE else f"torn: {lost} of {ENTRY_SIZE} bytes never came"
            problems.append(f"entry {sequence} must arrive, not be {what}")
        else:
            problems.append(f"the doorbell of entry {sequence} must ring after the entry is whole, not before")
    _check_tail(workload, entries, end, stores)
    whole = [sequence for sequence in range(workload.first, end) if not entries.missing(sequence)]
    return Delivery(len(whole), tuple(entries.transactions[sequence] for sequence in whole), tuple(problems))


def _check_tail(workload: Workload, entries: _Entries, end: int, stores: int) -> None:
    """After the last entry that was pushed, only what a fault left of the next one may have come."""
    written = {n for each in STORES[workload.idiom][:stores] for n in range(each.offset, each.offset + each.size)}
    came = ENTRY_SIZE - entries.missing(end)
    if came != len(written):
        entries.problems.append(f"entry {end} must end after {len(written)} bytes, not {came}")


def check_window(
    workload: Workload, log: Sequence[Transaction], window: bytes, pushed: int, *, stores: int = 0
) -> Delivery:
    """Check a mapped window: its final bytes, and the doorbells of the log. ``window`` starts at ``window_offset``.

    How the entries came cannot be seen: neither the transactions nor their order. The last entry of each slot must be
    whole there, and what no entry was written to must still be zero; so no slot may be used twice to see all entries.
    """
    problems: list[str] = []
    now = workload.first
    end = now + pushed
    for each in log:
        if _is_doorbell(workload, each):
            now = _ring(workload, each, now, end, problems)
        else:
            problems.append(f"only doorbells must arrive, not {each}")
    problems += [f"entry {sequence} must be followed by its doorbell, not by nothing" for sequence in range(now, end)]
    expected = bytearray(len(window))
    whole = 0
    for sequence in range(max(workload.first, end - workload.slots), end):
        slot = sequence % workload.slots
        start = slot * workload.stride
        found = window[start : start + ENTRY_SIZE]
        expected[start : start + ENTRY_SIZE] = found
        if found == entry(sequence):
            whole += 1
        else:
            problems.append(f"slot {slot} must hold entry {sequence}, not {_content(found)}")
    start = end % workload.slots * workload.stride
    for store in STORES[workload.idiom][:stores]:
        written = slice(store.offset, store.offset + store.size)
        expected[start + written.start : start + written.stop] = entry(end)[written]
    stray = next((at for at, pair in enumerate(zip(window, expected, strict=True)) if pair[0] != pair[1]), None)
    if stray is not None:
        problems.append(f"the window must hold {expected[stray]:02x} at {stray:#x}, not {window[stray]:02x}")
    return Delivery(whole, (), tuple(problems))


def _content(found: bytes) -> str:
    """What stands where an entry should be, in words."""
    if not any(found):
        return "nothing"
    sequence = int.from_bytes(found[:4], "little")
    return f"entry {sequence}" if found == entry(sequence) else "a torn one"


def _is_doorbell(workload: Workload, each: Transaction) -> bool:
    return each.write and (each.region, each.offset) == (workload.doorbell_bar, workload.doorbell_offset)


def _ring(workload: Workload, each: Transaction, now: int, end: int, problems: list[str]) -> int:
    """The doorbell rang while entry ``now`` was due: which is due next."""
    value = int.from_bytes(each.data, "little")
    if each.size != 4:
        problems.append(f"the doorbell must be rung with 4 bytes, not {each.size}")
    if now == end:
        problems.append(f"the doorbell must ring {end - workload.first} times, not once more with {value}")
        return now
    if value == now + 1:
        return value
    if now + 1 < value <= end:
        lost = range(now, value - 1)
        problems += [f"entry {sequence} must be followed by its doorbell, not by another's" for sequence in lost]
        return value
    problems.append(f"the doorbell of entry {now} must have the value {now + 1}, not {value}")
    return now if workload.first < value <= now else now + 1
