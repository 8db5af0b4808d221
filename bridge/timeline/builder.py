"""Makes a timeline of what happens, told one thing after the other: each takes a step."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from threading import get_ident
from typing import NamedTuple

from ..interconnect import Effect, Link, Tlp, completions
from ..interconnect.profiles import Line
from ..interconnect.program import DEVICE, MSI_ADDRESS
from ..stream import Event
from . import words
from .model import MOST_EVENTS, Arrow, Box, Fill, How, Lane, LaneKind, Style, Timeline

_MEMORY = "RAM, as DMA sees it"
_OPEN = -1
"""The end of a box that is not known yet."""
_LEFT_OUT = -1
"""The cause of what comes of events that are left out."""


class Key(NamedTuple):
    """An effect: which event it is of, in the caller's count, and its offset."""

    event: int
    offset: int


class Source(NamedTuple):
    """Where an arrow leaves: a box, and a step in it."""

    box: int
    step: int


@dataclass
class _Held:
    """What waits together, in a buffer or outside of them: an open box."""

    lane: int
    box: int
    waiting: dict[Key, Effect] = field(default_factory=dict)
    had: list[Effect] = field(default_factory=list)


@dataclass
class _Running:
    """A handler that runs, and what made it run."""

    box: int
    cause: int | None
    drawn: bool = True


class Builder:
    """Draws what it is told; also an `Observer` of a device, whose lane is called `device`.

    `how` says of each kind of lane what it shows, `by` what has a PC. Events after the first `most` are counted as left
    out, with all that comes of them.
    """

    def __init__(
        self,
        title: str,
        subtitle: str,
        how: Mapping[LaneKind, How],
        *,
        device: str = "device",
        by: Callable[[int], str] = hex,
        most: int = MOST_EVENTS,
    ) -> None:
        self.timeline = Timeline(title, subtitle)
        self._how = how
        self._device = device
        self._by = by
        self._most = most
        self._thread = get_ident()
        self._step = 0
        self._lanes: dict[tuple[LaneKind, str], int] = {}
        self._busy: set[int] = set()
        self._made: dict[int, int] = {}
        self._entries: dict[Hashable, _Held] = {}
        self._where: dict[Key, tuple[Hashable, _Held]] = {}
        self._cause: ContextVar[int | None] = ContextVar("cause", default=None)
        self._running: ContextVar[_Running | None] = ContextVar("running", default=None)
        self._put_off: dict[str, deque[int | None]] = defaultdict(deque)

    def made(self, number: int, event: Event, *, in_ram: bool = False, name: str = "") -> bool:
        """The vCPU executes an event, the `number`th; `name` is what else it is known by. False: it is left out."""
        if self.timeline.events >= self._most:
            self.timeline.left_out += 1
            return False
        self.timeline.events += 1
        lane = self._lane(LaneKind.VCPU, "sent by the device" if event.vcpu == DEVICE else f"vCPU {event.vcpu}")
        by = self._by(event.pc) if event.pc else ""
        details = words.details(event, in_ram, by) | ({"event": name} if name else {})
        text = f"{name} {words.label(event, in_ram)}".strip()
        self._made[number] = self._add(lane, text, words.style(event), details)
        self.timeline.boxes[-1].tag = words.tag(event)
        return True

    def absent(self, number: int, why: str) -> None:
        """Nothing arrives of an event."""
        if number in self._made:
            box = self.timeline.boxes[self._made[number]]
            box.style = Style.ABSENT
            box.details["arrives"] = f"never: {why}"

    def holds(self, number: int, effect: Effect, entry: Hashable, line: Line | None = None, capacity: int = 0) -> None:
        """An effect of an event waits in an entry; with a line, in that of a write buffer of `capacity` bytes."""
        if number not in self._made:
            return
        now = self._step - 1  # beside what was made
        held = self._entries.get(entry)
        if held is None:
            lane = self._slot(LaneKind.BUFFER, "waiting" if line is None else "buffer", capacity)
            box = self._add(lane, "", Style.HELD, {}, now, _OPEN)
            held = self._entries[entry] = _Held(lane, box)
        key = Key(number, effect.offset)
        held.waiting[key] = effect
        held.had.append(effect)
        self._where[key] = entry, held
        box_held = self.timeline.boxes[held.box]
        box_held.label = words.line_name(line, capacity) if line else words.range_of(held.had, sizes=False)
        box_held.details["had"] = words.range_of(held.had)
        self._fill(held, now)
        made = self._made[number]
        self.timeline.arrows.append(Arrow(made, self.timeline.boxes[made].start, held.box, now))

    def leaves(self, keys: Iterable[Key], why: str) -> dict[Key, Source]:
        """Effects wait no longer. Of each, where an arrow to what comes of it leaves."""
        gone = {key: self._where.pop(key) for key in keys if key in self._where}
        for key, (_, held) in gone.items():
            del held.waiting[key]
        for entry, held in dict(gone.values()).items():
            self._fill(held, self._step)
            if not held.waiting:
                self.timeline.boxes[held.box].details["left because"] = why
                self._close(held.lane, held.box)
                del self._entries[entry]
        boxes = self.timeline.boxes
        return {
            key: Source(held.box, self._step if held.waiting else boxes[held.box].end - 1)
            for key, (_, held) in gone.items()
        }

    def dropped(self, why: str) -> None:
        """Nothing waits any longer, and nothing comes of it."""
        self.leaves(list(self._where), why)

    def made_by(self, number: int) -> list[Source]:
        """Where an arrow leaves an event that does not wait."""
        made = self._made.get(number)
        return [] if made is None else [Source(made, self.timeline.boxes[made].start)]

    def packet(self, tlp: Tlp, sources: Iterable[Source], why: str) -> int | None:
        """A TLP goes to the device, of what left these boxes; its box. None: it is of events that are left out."""
        lane = self._lane(LaneKind.LINK, "to the device")
        return self._of(sources, lane, str(tlp), Style.TLP, words.tlp_details(tlp, why))

    def memory(self, effect: Effect, sources: Iterable[Source]) -> int | None:
        """A store arrives in RAM; or an interrupt message, whose data are its vector, where those do."""
        if effect.offset == MSI_ADDRESS:
            lane = self._lane(LaneKind.INTERRUPT, "interrupts")
            vector = int.from_bytes(effect.data or b"", "little")
            return self._of(sources, lane, f"MSI {vector}", Style.INTERRUPT, {})
        lane = self._lane(LaneKind.LINK, _MEMORY)
        data = {"data": words.shown(effect.data or b"")}
        return self._of(sources, lane, words.range_of([effect]), Style.MEMORY, data)

    def answered(self, request: int, tlp: Tlp, link: Link) -> None:
        """The completions of a request, whose box this is, go back, if it is one that has any."""
        if not tlp.kind.posted:
            lane = self._lane(LaneKind.LINK, "to the host")
            for completion in completions(tlp, link):
                self._of([Source(request, self.timeline.boxes[request].start)], lane, str(completion), Style.COMPLETION,
                         words.tlp_details(completion, ""))  # fmt: skip

    @contextlib.contextmanager
    def caused_by(self, box: int | None) -> Iterator[None]:
        """Handlers that begin within the block are this box's doing; those of None, which is left out, are too."""
        token = self._cause.set(_LEFT_OUT if box is None else box)
        try:
            yield
        finally:
            self._cause.reset(token)

    @contextlib.contextmanager
    def handler(self, name: str, value: int | None) -> Iterator[None]:
        """See `Observer`."""
        with self._run(name, value, self._cause.get()):
            yield

    def put_off(self, name: str) -> None:
        """See `Observer`."""
        running = self._running.get()
        if running is None:
            self._put_off[name].append(None)
            return
        self._put_off[name].append(running.cause)
        if running.drawn and running.box == len(self.timeline.boxes) - 1:
            self._undo(running)

    @contextlib.contextmanager
    def task(self, name: str, value: int) -> Iterator[None]:
        """See `Observer`."""
        waiting = self._put_off[name]
        with self._run(name, value, waiting.popleft() if waiting else None):
            yield

    def forgotten(self, name: str) -> None:
        """See `Observer`."""
        self._put_off[name].clear()

    def dma(self, write: bool, segments: Sequence[tuple[int, int]]) -> None:
        """See `Observer`. That of another thread is left out: nobody knows what it comes before."""
        cause = self._cause.get()
        if self._skips(cause) or get_ident() != self._thread:
            return
        sources = [] if cause is None else [Source(cause, self._step)]
        text, style = words.dma(write, segments), Style.MEMORY if write else Style.LOAD
        self._of(sources, self._lane(LaneKind.DMA, "DMA"), text, style, words.dma_details(segments), always=True)

    def interrupt(self, name: str, sent: bool) -> None:
        """See `Observer`."""
        cause = self._cause.get()
        if self._skips(cause):
            return
        details = {} if sent else {"sent": "no: the guest enabled no interrupt of this kind"}
        lane = self._lane(LaneKind.INTERRUPT, "interrupts")
        sources = [] if cause is None else [Source(cause, self._step)]
        self._of(sources, lane, name if sent else f"{name}, not sent", Style.INTERRUPT, details, always=True)

    def finish(self, notes: Iterable[str] = ()) -> Timeline:
        """The timeline, its lanes from the guest to the device; what waits still, waits until its end."""
        found = self.timeline
        for box in found.boxes:
            if box.end == _OPEN:
                box.end = max(self._step, box.start + 1)
                box.details["left because"] = "it has not: this is the end of the timeline"
        found.notes += notes
        kinds = list(LaneKind)
        order = sorted(
            range(len(found.lanes)), key=lambda at: (kinds.index(found.lanes[at].kind), _rank(found.lanes[at]))
        )
        new = {old: at for at, old in enumerate(order)}
        found.lanes = [found.lanes[old] for old in order]
        for box in found.boxes:
            box.lane = new[box.lane]
        found.fills = [fill._replace(lane=new[fill.lane]) for fill in found.fills]
        return found

    @contextlib.contextmanager
    def _run(self, name: str, value: int | None, cause: int | None) -> Iterator[None]:
        if self._skips(cause):
            yield
            return
        lane = self._slot(LaneKind.DEVICE, self._device)
        running = _Running(len(self.timeline.boxes), cause)
        sources = [] if cause is None else [Source(cause, self.timeline.boxes[cause].start)]
        short = name.rpartition(": handler ")[2].partition(" at 0x")[0]
        text = short if value is None else f"{short} {value:#x}"
        details = {"handler": short} | ({} if value is None else {"value": f"{value:#x}"})
        self._of(sources, lane, text, Style.HANDLER, details, end=_OPEN, always=True)
        tokens = self._cause.set(running.box), self._running.set(running)
        try:
            yield
        except BaseException as error:
            if running.drawn:
                box = self.timeline.boxes[running.box]
                box.style = Style.FAILED
                box.details["raised"] = f"{type(error).__name__}: {error}".rstrip(": ")
            raise
        finally:
            self._cause.reset(tokens[0])
            self._running.reset(tokens[1])
            if running.drawn:
                self._close(lane, running.box)

    def _undo(self, running: _Running) -> None:
        """The handler that was drawn last only put off another: it is not one."""
        running.drawn = False
        box = self.timeline.boxes.pop()
        self._busy.discard(box.lane)
        if self.timeline.arrows and self.timeline.arrows[-1].target == running.box:
            self.timeline.arrows.pop()
        self._step -= 1

    def _skips(self, cause: int | None) -> bool:
        return cause == _LEFT_OUT or (cause is None and self.timeline.events >= self._most)

    def _lane(self, kind: LaneKind, name: str, capacity: int = 0) -> int:
        if (kind, name) not in self._lanes:
            self._lanes[kind, name] = len(self.timeline.lanes)
            self.timeline.lanes.append(Lane(kind, name, self._how[kind], capacity))
        return self._lanes[kind, name]

    def _slot(self, kind: LaneKind, name: str, capacity: int = 0) -> int:
        """A lane in which no box is open."""
        for number in count():
            numbered = name if kind is LaneKind.DEVICE and not number else f"{name} {number}"
            lane = self._lane(kind, numbered, capacity)
            if lane not in self._busy:
                self._busy.add(lane)
                return lane
        raise AssertionError

    def _add(
        self,
        lane: int,
        text: str,
        style: Style,
        details: dict[str, str],
        start: int | None = None,
        end: int | None = None,
    ) -> int:
        """A box; if not told otherwise, of this step, which is then over."""
        if start is None:
            start = self._step
            self._step += 1
        self.timeline.boxes.append(Box(lane, start, start + 1 if end is None else end, text, style, details))
        return len(self.timeline.boxes) - 1

    def _of(
        self,
        sources: Iterable[Source],
        lane: int,
        text: str,
        style: Style,
        details: dict[str, str],
        *,
        end: int | None = None,
        always: bool = False,
    ) -> int | None:
        """A box of this step, and arrows from what it comes of; without any, none, but `always`."""
        known = list(dict.fromkeys(sources))
        if not known and not always:
            return None
        start = self._step
        box = self._add(lane, text, style, details, start, end)
        self._step += 1
        self.timeline.arrows += (Arrow(source.box, source.step, box, start) for source in known)
        return box

    def _close(self, lane: int, box: int) -> None:
        closed = self.timeline.boxes[box]
        closed.end = max(self._step, closed.start + 1)
        self._step = max(self._step, closed.end)
        self._busy.discard(lane)

    def _fill(self, held: _Held, step: int) -> None:
        self.timeline.fills.append(Fill(held.lane, step, sum(effect.size for effect in held.waiting.values())))


def _rank(lane: Lane) -> tuple[str, int]:
    """By name, numbers as numbers."""
    found = re.fullmatch(r"(.*?)(\d*)", lane.name)
    assert found is not None
    return found[1], int(found[2] or 0)
