"""The timeline of a device while it is served: a client's accesses, how a seed orders them, and what comes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ..interconnect import DEFAULT_LINK, Effect, Link, Packets, Program, Tlp, effects
from ..stream import Event
from ..timeline import MOST_EVENTS, Builder, How, Key, LaneKind, Source, Timeline
from .live import Arrived
from .replay import Part

_HOW = {
    LaneKind.VCPU: How.SEEN,
    LaneKind.BUFFER: How.MODELLED,
    LaneKind.LINK: How.MODELLED,
    LaneKind.DEVICE: How.SEEN,
    LaneKind.DMA: How.SEEN,
    LaneKind.INTERRUPT: How.SEEN,
}
_WHY = "the seed chose it"
_SEEN = (
    "Accesses, handlers, DMA and interrupts were seen. Memory types and barriers are {}; what waits, and which TLPs "
    "come of it, is modelled: one choice of those that the types permit."
)
_ORDER = "The order is the one in which the server did things, one after the other."


class Watch:
    """Draws what stands before a device does; `link` is its own. Whose accesses have no vCPU, vCPU 0 has made them.

    `types`: where memory types and barriers come from; `by` names what is at a PC.
    """

    def __init__(
        self,
        device: str,
        subtitle: str,
        *,
        title: str = "",
        types: str = "what was assumed",
        by: Callable[[int], str] = hex,
        link: Link = DEFAULT_LINK,
        most: int | None = None,
    ) -> None:
        most = MOST_EVENTS if most is None else most
        self.builder = Builder(title or device, subtitle, _HOW, device=device, by=by, most=most)
        self._notes = _SEEN.format(types), _ORDER
        self._link = link
        self._speculated = 0
        self._sources: dict[Key, Source] = {}

    def timeline(self) -> Timeline:
        """What was seen until now; nothing can be added then."""
        return self.builder.finish(self._notes)

    def taken(self, number: int, event: Event) -> None:
        """An access was made, or a barrier, the `number`th from 1; stores wait."""
        self.builder.made(number, event)
        for effect in effects(Program((event,))):
            if effect.writes:
                self.builder.holds(number, effect, Key(number, effect.offset))

    def answered(self, number: int) -> None:
        """Nothing arrives of a load."""
        self.builder.absent(number, "a waiting store answered it")

    def dropped(self) -> None:
        """Nothing waits any more, and nothing arrives: the device was reset."""
        self.builder.dropped("the device was reset: it never arrives")

    def arrives(self, arrived: Arrived) -> None:
        """A block goes, of events with their numbers as `sequence`, or of a read that nobody made; its parts follow."""
        for effect in arrived.effects:
            if effect.optional:
                self._speculated += 1
                self.builder.made(self._number(effect), effect.event)
        self._sources = self.builder.leaves([self._key(effect) for effect in arrived.effects], _WHY)

    @contextlib.contextmanager
    def delivers(self, part: Part, arrived: Arrived) -> Iterator[None]:
        """A part of that block reaches the device, which does what it does about it within the block."""
        if part.tlp is None:
            yield
            return
        sources: list[Source] = []
        for effect in arrived.order.of(part.tlp.effects):
            waited = self._sources.get(self._key(effect))
            sources += self.builder.made_by(self._number(effect)) if waited is None else [waited]
        with self._delivers(part.tlp, sources, _WHY):
            yield

    @contextlib.contextmanager
    def straight(self, number: int, event: Event) -> Iterator[None]:
        """An access that goes straight to the device, which does what it does about it within the block."""
        self.builder.made(number, event)
        found = effects(Program((event,)))
        with contextlib.ExitStack() as stack:
            for tlp in Packets(found, self._link).of_block(sum(effect.bit for effect in found)):
                why = "its type is not known, so it is done in order, at once"
                stack.enter_context(self._delivers(tlp, self.builder.made_by(number), why))
            yield

    @contextlib.contextmanager
    def _delivers(self, tlp: Tlp, sources: list[Source], why: str) -> Iterator[None]:
        box = self.builder.packet(tlp, sources, why)
        with self.builder.caused_by(box):
            yield
        if box is not None:
            self.builder.answered(box, tlp, self._link)

    def _number(self, effect: Effect) -> int:
        return -self._speculated if effect.optional else effect.event.sequence

    def _key(self, effect: Effect) -> Key:
        return Key(self._number(effect), effect.offset)
