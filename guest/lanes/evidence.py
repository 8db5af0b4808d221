"""What reached the device, experiment by experiment: the transaction log cut at its marks, and the BARs' bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...bridge.recorder import Transaction
from ...devices.probe_map import BAR0_SIZE, BAR2_SIZE, RANGES, Reg
from ..judge import Arrival
from ..operation import PAGE
from .places import PLACES, Place
from .trials import DOORBELL_BAR, DOORBELL_OFFSET

_WINDOW = RANGES["wc-mapped"]
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


def by_mark(transactions: Iterable[Transaction]) -> dict[int, list[Transaction]]:
    """Cut a log at the writes to the MARK register, which it leaves out. What precedes the first mark is under 0."""
    current: list[Transaction] = []
    groups = {0: current}
    for each in transactions:
        if each.write and each.region == 0 and each.offset == Reg.MARK:
            current = groups.setdefault(int.from_bytes(each.data, "little"), [])
        else:
            current.append(each)
    return groups


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
