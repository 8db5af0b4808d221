"""What reached the device: the transaction log, cut at marks and slots, and the bytes behind the BARs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...bridge.recorder import Transaction
from ...devices.probe_map import BAR0_SIZE, BAR2_SIZE, RANGES, Reg
from ..judge import Arrival
from ..operation import PAGE, SLOT
from .places import PLACES, Place
from .trials import DOORBELL_BAR, DOORBELL_OFFSET, Trial

_WINDOW = RANGES["wc-mapped"]
_MARK = int(Reg.MARK)
_NOWHERE = -1 << 32
"""An offset outside every slot: no judge accepts a transaction there."""


def background(bar: int, size: int) -> bytes:
    """What a BAR holds before a run: no byte is zero, neighbours differ, and so do pages."""
    page = bytes((37 * at + 11) % 251 + 1 for at in range(PAGE))
    return b"".join(page[n % 251 :] + page[: n % 251] for n in range(bar + 1, bar + 1 + size // PAGE))


class Memory:
    """The bytes behind the BARs as they must be: the background, and what the recorded writes made of it.

    A mapped window leaves no record: it holds the background again at the start of each batch.
    """

    def __init__(self) -> None:
        self._bars = {0: bytearray(background(0, BAR0_SIZE)), 2: bytearray(background(2, BAR2_SIZE))}

    def span(self, place: Place, offset: int, size: int) -> bytes:
        """Bytes of a BAR from ``offset``; of the platform device, which nobody knows, zeros."""
        return bytes(size) if place.platform else bytes(self._bars[place.bar][offset : offset + size])

    def apply(self, transactions: Iterable[Transaction]) -> None:
        """Carry out recorded writes."""
        for each in transactions:
            if each.write:
                self._bars[each.region][each.offset : each.offset + each.size] = each.data

    def fill(self, bars: dict[int, memoryview]) -> None:
        """Write the arenas of every range into the BARs' own memory."""
        for place in PLACES.values():
            if not place.platform:
                end = place.arena_offset + place.arena_size
                bars[place.bar][place.arena_offset : end] = self._bars[place.bar][place.arena_offset : end]

    @property
    def window(self) -> memoryview:
        """The background of the mapped window."""
        return memoryview(self._bars[_WINDOW.bar])[_WINDOW.offset : _WINDOW.offset + _WINDOW.size]


def attribute(
    log: Iterable[Transaction], trials: Sequence[tuple[Trial, int]], place: Place
) -> tuple[list[list[Transaction]], list[str]]:
    """Whose transactions are whose: one list a trial, given with its mark; and what is wrong with the log as a whole.

    A marked trial's begin with the write of its mark, which is left out. Those of the unmarked ones after it follow in
    order, each in its own slot; what lies in the slot of none to come stays with the trial at hand, whose judge will
    not have it.
    """
    logs: list[list[Transaction]] = [[] for _ in trials]
    problems: list[str] = []
    marks = {mark: index for index, (trial, mark) in enumerate(trials) if trial.marked}
    current = -1
    for each in log:
        if each.write and each.region == 0 and each.offset == _MARK:
            mark = int.from_bytes(each.data, "little")
            if mark in marks:
                current = marks.pop(mark)
            else:
                problems.append(f"mark {mark} must come once, in order")
        elif current < 0:
            problems.append(f"no access may precede the first mark, as {each} does")
        else:
            current = _owner(each, trials, current, place)
            logs[current].append(each)
    missing = [f"the device must see mark {mark} of {trials[index][0].row}" for mark, index in marks.items()]
    return logs, problems + missing


def _owner(each: Transaction, trials: Sequence[tuple[Trial, int]], current: int, place: Place) -> int:
    """The first trial from the current one to the next mark whose slot this access lies in; the current if none."""
    if each.region != place.bar:
        return current
    for index in range(current, len(trials)):
        trial = trials[index][0]
        if index > current and trial.marked:
            break
        if trial.offset <= each.offset < trial.offset + (2 * SLOT if trial.op.crossing else SLOT):
            return index
    return current


def split(log: Iterable[Transaction], place: Place, slot: int) -> tuple[list[Arrival], list[Transaction]]:
    """The accesses to the place's BAR, relative to the slot, and those that rang the doorbell."""
    here: list[Arrival] = []
    rings: list[Transaction] = []
    for each in log:
        if each.region == DOORBELL_BAR and each.offset == DOORBELL_OFFSET:
            rings.append(each)
        else:
            offset = each.offset - slot if each.region == place.bar else _NOWHERE
            here.append(Arrival(each.write, offset, each.size, each.data))
    return here, rings


def behind_ring(log: Iterable[Transaction]) -> int:
    """How many accesses came after the doorbell was rung for the first time."""
    rung = [each.region == DOORBELL_BAR and each.offset == DOORBELL_OFFSET for each in log]
    return rung[rung.index(True) :].count(False) if True in rung else 0


def final_bytes(memory: Memory, place: Place, slot: int, size: int, window: bytes, log: Sequence[Transaction]) -> bytes:
    """What the slot of a mapped range holds after a batch: from the window; beyond its end, from the log's writes."""
    image = bytearray(memory.span(place, slot, size))
    inside = min(size, _WINDOW.offset + _WINDOW.size - slot)
    start = slot - _WINDOW.offset
    image[:inside] = window[start : start + inside]
    for each in log:
        at = each.offset - slot
        if each.write and each.region == place.bar and at >= 0 and at + each.size <= size:
            image[at : at + each.size] = each.data
    return bytes(image)
