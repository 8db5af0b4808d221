"""The timeline of a recording: what the guest did, and what a profile's buffers might have made of it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol

from ..interconnect import Effect, Effects, Order, Packets, Profile, Program, Tlp, windows
from ..interconnect.order import bits
from ..interconnect.profiles import Step
from ..interconnect.program import MSI_ADDRESS, WINDOW
from ..stream import Event, Kind
from .builder import Builder, Key
from .model import MOST_EVENTS, How, LaneKind, Timeline

_MODELLED = (
    "Modelled, not seen: buffers and link are those of profile {}, by seed {}. A profile is one way to do what the "
    "architecture permits; it says nothing about any hardware, nor of how often something happens there."
)
_WINDOWS = f"Nothing waits longer than its window of {WINDOW} events: the buffers are emptied at its end."


class Feed(Protocol):
    """A device that is fed with what arrives."""

    @property
    def name(self) -> str:
        """What its lane is called."""

    def observed_by(self, builder: Builder) -> AbstractContextManager[None]:
        """The builder is to draw what the device does within the block."""

    def deliver(self, tlp: Tlp) -> None:
        """A TLP arrives."""

    def store(self, effect: Effect) -> None:
        """A store arrives in RAM."""


def recording(
    events: Iterable[Event],
    profile: Profile | None = None,
    seed: int = 0,
    *,
    title: str = "recording",
    most: int | None = None,
    by: Callable[[int], str] = hex,
    seen: bool = True,
    feed: Feed | None = None,
) -> Timeline:
    """Draw events, and with a profile what its buffers send, by a seed: the same as an exploration with both draws.

    Args:
        most: events that are shown, `MOST_EVENTS` if not told otherwise; those after them are counted.
        by: names what is at a PC.
        seen: a guest did this; else somebody wrote it.
        feed: a device, for what the profile sends.

    Raises:
        DefinitionError: `events` cannot be ordered.
    """
    most = MOST_EVENTS if most is None else most
    source = iter(events)
    shown = list(islice(source, most))
    if profile is None:
        subtitle = "the guest's accesses alone, without a profile of write buffers"
    else:
        subtitle = f"profile {profile.name}, seed {seed}"
    made = How.SEEN if seen else How.GIVEN
    how = {
        LaneKind.VCPU: made,
        LaneKind.BUFFER: How.MODELLED,
        LaneKind.LINK: How.MODELLED,
        LaneKind.DEVICE: How.REPLAYED,
        LaneKind.DMA: How.REPLAYED,
        LaneKind.INTERRUPT: How.REPLAYED,
    }
    builder = Builder(title, subtitle, how, device=feed.name if feed else "", by=by, most=most)
    if profile is None:
        for number, event in enumerate(shown):
            builder.made(number, event)
        notes = []
    else:
        chance = random.Random(seed)
        parts = windows(shown, WINDOW)
        base = 0
        with feed.observed_by(builder) if feed else contextlib.nullcontext():
            for program in parts:
                _Run(builder, program, profile, chance, base, feed).draw()
                base += len(program.events)
        notes = [_MODELLED.format(profile.name, seed), *([_WINDOWS] if len(parts) > 1 else [])]
    timeline = builder.finish(notes)
    timeline.left_out += sum(1 for _ in source)
    return timeline


class _Run:
    """One window under a profile. Events are numbered from `base` on."""

    def __init__(
        self,
        builder: Builder,
        program: Program,
        profile: Profile,
        chance: random.Random,
        base: int,
        feed: Feed | None,
    ) -> None:
        self._feed = feed
        self._builder = builder
        self._profile = profile
        self._base = base
        order = Order(program)
        self._effects: Effects = order.effects
        self._steps = profile.steps(order, chance)
        self._packets = Packets(order.effects, profile.link)
        self._next = 0

    def draw(self) -> None:
        for step in self._steps:
            self._until(step.position)
            if step.effect is not None:
                effect = self._effects[step.effect]
                capacity = self._profile.line if step.line else 0
                number = self._base + effect.position
                self._builder.holds(number, effect, (self._base, step.entry), step.line, capacity)
            else:
                self._send(step)
        self._until(len(self._effects.program.events) - 1)
        arrived = sum(step.block for step in self._steps)
        for effect in self._effects:
            if not arrived & effect.bit:
                made = effect.event.kind is Kind.SPECULATIVE
                why = "this read need not be made" if made else "a write buffer answered it"
                self._builder.absent(self._base + effect.position, why)

    def _until(self, position: int) -> None:
        """The program has come to the event at a position."""
        events = self._effects.program.events
        while self._next <= min(position, len(events) - 1):
            in_ram = any(e.in_ram for e in self._effects if e.position == self._next)
            self._builder.made(self._base + self._next, events[self._next], in_ram=in_ram)
            self._next += 1

    def _send(self, step: Step) -> None:
        keys = {index: self._key(index) for index in bits(step.block)}
        sources = self._builder.leaves(keys.values(), step.why)
        for index in keys:
            if self._effects[index].in_ram and self._effects[index].writes:
                self._builder.memory(self._effects[index], [sources[keys[index]]])
                if self._feed is not None and self._effects[index].offset != MSI_ADDRESS:
                    self._feed.store(self._effects[index])
        for tlp in self._packets.of_block(step.block):
            carried = [sources[keys[index]] for index in bits(tlp.effects) if keys[index] in sources]
            box = self._builder.packet(tlp, carried, step.why)
            if self._feed is not None:
                with self._builder.caused_by(box):
                    self._feed.deliver(tlp)
            if box is not None:
                self._builder.answered(box, tlp, self._profile.link)

    def _key(self, index: int) -> Key:
        effect = self._effects[index]
        return Key(self._base + effect.position, effect.offset)
