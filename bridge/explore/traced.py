"""A served device whose guest's posted writes wait, merge and change places, by the labels of a tracer in its QEMU.

A write that arrives here waits for its label, which the tracer puts into the ring as soon as QEMU has done the access:
it is posted, so nobody waits for it. A read has to be answered before there is a label; it is taken to be of the type
that its page had in all accesses so far, and the label that comes afterwards is compared. What has no label, or of
which that is not enough, is done as QEMU did it, in order, behind all that waited: which is always legal.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..attributes import PAGE, MemoryType
from ..endpoint import HasEndpoint
from ..interconnect import DEFAULT_LINK, RULES, Link, Mapped, Rules
from ..stream import Event, Flag, Kind
from .front import Front
from .labels import Labels
from .live import HELD, Arrived, Live
from .served import WAIT
from .watched import Watch

_POLL = 0.0005
"""Seconds between two looks for the label of a write."""
_STORES = (Kind.STORE, Kind.ZERO, Kind.ATOMIC)


class _Posted(NamedTuple):
    """A write that QEMU sent; `since`: when, by the loop's clock."""

    bar: int
    offset: int
    data: bytes
    since: float


@dataclass(frozen=True)
class Tally:
    """What came of a run. Where `made` is the same in two runs with one seed, so is `arrived`.

    `made`: a digest of the accesses and barriers as they were labelled, and of where the guest paused; `arrived`: of
    what the device saw. `accesses`: that were labelled and reordered; `in_order`: that were not, for want of a label or
    of a type; `pauses`: how often nothing came for `wait` seconds while writes waited; `speculated`: reads that nobody
    made; `mistaken`: loads that turned out to have another type than the page had before.
    """

    made: str = ""
    arrived: str = ""
    accesses: int = 0
    in_order: int = 0
    pauses: int = 0
    speculated: int = 0
    mistaken: int = 0

    def __str__(self) -> str:
        """In one line."""
        text = f"{self.accesses:,} accesses by their labels, {self.in_order:,} in order without, {self.pauses:,} pauses"
        text += f"; {self.speculated:,} speculative reads" if self.speculated else ""
        text += f"; {self.mistaken:,} loads of another type than their page had" if self.mistaken else ""
        return f"{text}; made {self.made}, arrived {self.arrived}"


class Traced(Front):
    """Stands before a device of a traced QEMU, to be served in its place. Regions that are mapped stay so.

    `peripheral`: where QEMU has the function, as bus << 8 | device << 3 | function. The ring's tracer must be eager.
    With several vCPUs, accesses of one let all of another's arrive first: what orders them is in RAM, which is not
    traced.
    """

    def __init__(
        self,
        device: HasEndpoint,
        labels: Labels,
        peripheral: int,
        *,
        seed: int,
        held: int = HELD,
        wait: float = WAIT,
        speculate: float = 0.0,
        rules: Rules = RULES,
        link: Link = DEFAULT_LINK,
        watch: Watch | None = None,
    ) -> None:
        live = Live(seed, held=held, speculate=speculate, rules=rules, link=link)
        super().__init__(device, live, wait=wait, trapped=lambda region: not region.mapped, watch=watch)
        self._labels = labels
        self._peripheral = peripheral
        self._vcpus: set[int] = set()
        self._vcpu = 0
        self._events = labels.of(peripheral)
        self._posted: deque[_Posted] = deque()
        self._types: dict[tuple[int, int], MemoryType | None] = {}
        """Of each page of a BAR, the type that all accesses to it had; None: not always the same."""
        self._made, self._arrived = hashlib.blake2s(digest_size=6), hashlib.blake2s(digest_size=6)
        self._tally = Tally()

    @property
    def tally(self) -> Tally:
        """What came of it until now."""
        return replace(self._tally, made=self._made.hexdigest(), arrived=self._arrived.hexdigest())

    def settle(self) -> None:
        """Let everything arrive that waits, with or without a label."""
        self._advance()
        self._as_made()
        if self.live.waiting:
            self._settled()

    def _settled(self) -> None:
        self._made.update(b"settled")
        super().settle()

    def _write(self, bar: int, offset: int, data: bytes) -> None:
        self._posted.append(_Posted(bar, offset, data, asyncio.get_running_loop().time()))
        self._look()

    def _look(self) -> None:
        """Go on with what has a label by now; come back for the rest."""
        loop = asyncio.get_running_loop()
        self._advance()
        if self._posted and loop.time() - self._posted[0].since > self.wait:
            self._as_made()
        if self._posted:
            self._stop_timer()
            self._timer = loop.call_later(_POLL, self._look)
        elif self.live.waiting:
            self._stop_timer()
            self._timer = loop.call_later(self.wait, self._paused)

    def _paused(self) -> None:
        self._count(pauses=1)
        self.settle()

    def _read(self, bar: int, offset: int, size: int) -> bytes:
        self._advance()
        self._as_made()
        kind = self._types.get((bar, offset // PAGE)) if len(self._vcpus) == 1 else None
        if kind is None:
            if self.live.waiting:
                self._settled()
            return self._in_order(bar, offset, size)
        flags = Flag.NO_DATA | Flag.ACQUIRE  # whether it is one is not known: behind earlier releases is legal anyhow
        event = Event(Kind.LOAD, offset, size, b"", bar, type=kind, peripheral=self._peripheral, flags=flags)
        self._note(event, vcpu=self._vcpu)
        arrived, answer = self._take(event._replace(vcpu=self._vcpu))
        found = bytearray(size)
        self._do(arrived, found, offset)
        return bytes(found) if answer is None else answer

    def _in_order(self, bar: int, offset: int, size: int) -> bytes:
        self._count(in_order=1)
        self._made.update(f"R {bar} {offset} {size}".encode())
        with self._straight(Event(Kind.LOAD, offset, size, b"", bar, peripheral=self._peripheral, flags=Flag.NO_DATA)):
            return self._direct.read(bar, offset, size)

    def _as_made(self) -> None:
        """Writes without a label arrive, in order, behind all that waits."""
        if self._posted and self.live.waiting:
            self._settled()
        while self._posted:
            self._unlabelled(self._posted.popleft())

    def _unlabelled(self, each: _Posted) -> None:
        self._count(in_order=1)
        self._made.update(f"W {each.bar} {each.offset} {each.data.hex()}".encode())
        self._arrived.update(f"W {each.bar} {each.offset} {each.data.hex()}".encode())
        size = len(each.data)
        with self._straight(Event(Kind.STORE, each.offset, size, each.data, each.bar, peripheral=self._peripheral)):
            self._post(each.bar, each.offset, each.data)

    def _advance(self) -> None:
        """Take what has a label, in the order in which it was sent."""
        self._labels.read()
        while self._events:
            event = self._events[0]
            self._vcpus.add(event.vcpu)
            if event.kind not in _STORES:
                self._events.popleft()
                self._other(event)
                continue
            parts = self._parts(event)
            if parts is None and not self._bring_forward(event):
                return
            if parts is not None:
                self._events.popleft()
                for part in parts:
                    self._posted.remove(part)
                self._labelled(event, parts)

    def _other(self, event: Event) -> None:
        match event.kind:
            case Kind.BARRIER | Kind.DGH:
                if self.live.waiting and event.vcpu == self._vcpu:
                    self._note(event)
                    self._take(event)
            case Kind.LOAD:
                known = self._types.get((event.bar or 0, event.offset // PAGE))
                self._count(mistaken=int(known not in (None, event.type)))
                self._learn(event)
            case Kind.LOST:
                if self.live.waiting:  # a barrier may be among them
                    self._settled()

    def _parts(self, event: Event) -> list[_Posted] | None:
        """The messages that a store came in; None while some of it has not come, or if it never does."""
        found: list[_Posted] = []
        missing = event.size
        for posted in self._posted:
            if missing and _is_part(posted, event):
                found.append(posted)
                missing -= len(posted.data)
        return found if not missing else None

    def _bring_forward(self, stuck: Event) -> bool:
        """Of a store that no message is of: whether there is something behind it to go on with.

        A later store of the same vCPU that has its messages says that this one has none, as of a table that QEMU
        keeps. Those of another vCPU may have been done earlier than they were recorded.
        """
        for later in list(self._events):
            if later is stuck or later.kind not in _STORES or self._parts(later) is None:
                continue
            if later.vcpu == stuck.vcpu:
                self._events.remove(stuck)
            else:
                first = [e for e in self._events if e.vcpu == later.vcpu and e.sequence <= later.sequence]
                rest = [e for e in self._events if e not in first]
                self._events.clear()
                self._events.extend(first + rest)
            return True
        return False

    def _labelled(self, event: Event, parts: list[_Posted]) -> None:
        self._learn(event)
        if event.type is None or event.kind is Kind.ATOMIC or event.flags & Flag.EXCLUSIVE:
            if self.live.waiting:
                self._settled()
            for part in parts:
                self._unlabelled(part)
            return
        self._switch(event.vcpu)
        for each in _with_data(event, parts):
            self._note(each)
            self._do(self._take(each)[0])

    def _switch(self, vcpu: int) -> None:
        if vcpu != self._vcpu and self.live.waiting:
            self._settled()
        self._vcpu = vcpu

    def _learn(self, event: Event) -> None:
        """The page's type; and if it is Normal, that it may be read without being asked for."""
        if event.bar is None or event.bar not in self.endpoint.regions:
            return
        page = (event.bar, event.offset // PAGE)
        if page not in self._types:
            self._types[page] = event.type
            size = min(PAGE, self.endpoint.regions[event.bar].size - page[1] * PAGE)
            if event.type is not None and event.type.speculation:
                self.live.mapped.append(Mapped(event.bar, page[1] * PAGE, size, event.type, "guest", self._peripheral))
        elif self._types[page] != event.type:
            self._types[page] = None
            self.live.mapped = [e for e in self.live.mapped if (e.bar, e.offset // PAGE) != page]

    def _do(self, arrived: Iterable[Arrived], found: bytearray | None = None, start: int = 0) -> None:
        listed = list(arrived)
        for each in listed:
            speculative = any(effect.optional for effect in each.effects)
            self._count(speculated=int(speculative))
            for access in each.accesses:
                what = "R" if access.data is None else access.data.hex()
                self._arrived.update(f"{access.bar} {access.offset} {access.size} {what}".encode())
        super()._do(listed, found, start)

    def _note(self, event: Event, vcpu: int | None = None) -> None:
        """What the run is a function of, besides the seed."""
        self._count(accesses=int(event.kind not in (Kind.BARRIER, Kind.DGH)))
        fields = event.kind, event.bar, event.offset, event.size, event.data, event.type, event.barrier, event.flags
        self._made.update(repr((*fields, event.vcpu if vcpu is None else vcpu)).encode())

    def _count(self, **more: int) -> None:
        self._tally = replace(self._tally, **{name: getattr(self._tally, name) + n for name, n in more.items() if n})

    def _forget(self) -> None:
        """A reset: also of what has no label yet, which then finds no message."""
        super()._forget()
        self._posted.clear()


def _is_part(posted: _Posted, event: Event) -> bool:
    start = posted.offset - event.offset
    if posted.bar != event.bar or not 0 <= start <= event.size - len(posted.data):
        return False
    if event.flags & Flag.NO_DATA:
        return True
    if event.flags & Flag.REPEATED:
        return posted.data == event.data[:1] * len(posted.data)
    return posted.data == event.data[start : start + len(posted.data)]


def _with_data(event: Event, parts: list[_Posted]) -> list[Event]:
    """The event, or where it does not say what was stored, as many as there were messages, which do."""
    if not event.flags & Flag.NO_DATA:
        return [event]
    flags = event.flags & ~Flag.NO_DATA
    return [
        event._replace(offset=part.offset, size=len(part.data), data=part.data, element=event.element + at, flags=flags)
        for at, part in enumerate(parts)
    ]
