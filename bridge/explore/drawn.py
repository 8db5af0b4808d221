"""The timeline of one behaviour: a program, the order in which it arrives, and what a device does about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from ..errors import DefinitionError
from ..inprocess import InProcess
from ..interconnect import Behaviour, Effect, Effects, Link, Op, Packets, Profile, Program, Tlp
from ..interconnect.order import bits
from ..interconnect.program import MSI_ADDRESS
from ..stream import Event, Kind
from ..timeline import Builder, How, Key, LaneKind, Timeline, recording
from .replay import Access, Factory, RequestFails, Target, accesses_of_tlp

_HOW = {
    LaneKind.VCPU: How.GIVEN,
    LaneKind.BUFFER: How.MODELLED,
    LaneKind.LINK: How.MODELLED,
    LaneKind.DEVICE: How.REPLAYED,
    LaneKind.DMA: How.REPLAYED,
    LaneKind.INTERRUPT: How.REPLAYED,
}
_NOTES = (
    "Modelled, not seen: the order of arrival is one that the specifications permit.",
    "A behaviour says in which order accesses arrive, not when: each is drawn to leave as soon as that order lets it, "
    "and what arrives as one waits together.",
)


def draw(
    effects: Effects,
    behaviour: Behaviour,
    link: Link,
    factory: Factory | None,
    *,
    title: str,
    subtitle: str,
    names: Sequence[str] = (),
) -> Timeline:
    """Draw a behaviour; a device is fed with it once more. What it raises ends its part, and is shown.

    `names`: what the events are known by.
    """
    fed = Fed(factory) if factory is not None else None
    builder = Builder(title, subtitle, _HOW, device=fed.name if fed else "")
    with fed.observed_by(builder) if fed else contextlib.nullcontext():
        _Drawing(builder, effects, behaviour, link, fed).run(names)
    return builder.finish(_NOTES)


def draw_run(
    program: Program | Iterable[Event], profile: Profile, seed: int, factory: Factory, *, title: str
) -> Timeline:
    """Draw a program under a profile's buffers, by a seed, with a device that is fed with what they send.

    Raises:
        DefinitionError: the program cannot be ordered, or not be replayed: its data are not known.
    """
    events = program.events if isinstance(program, Program) else program
    return recording(events, profile, seed, title=title, seen=False, feed=Fed(factory))


class Fed:
    """A device that is fed with what arrives, until it raises; a builder draws what it does."""

    def __init__(self, factory: Factory) -> None:
        self._target: Target | None = factory()
        self._observable = self._target.device.endpoint if isinstance(self._target, InProcess) else None
        device = self._target.device if isinstance(self._target, InProcess) else self._target
        self.name = type(device).__name__
        self._builder: Builder | None = None

    @contextlib.contextmanager
    def observed_by(self, builder: Builder) -> Iterator[None]:
        """The builder draws what the device does within the block."""
        self._builder = builder
        if self._observable is not None:
            self._observable.observe(builder)
        try:
            yield
        finally:
            if self._observable is not None:
                self._observable.observe(None)

    def deliver(self, tlp: Tlp) -> None:
        """A TLP arrives."""
        for access in accesses_of_tlp(tlp) if self._target is not None else ():
            self._feed(access)

    def store(self, effect: Effect) -> None:
        """A store arrives in RAM."""
        self._feed(Access(None, effect.offset, effect.size, effect.data, effect.bit))

    def _feed(self, access: Access) -> None:
        if self._target is None or self._builder is None:
            return
        try:
            if isinstance(self._target, InProcess) or access.bar is None:
                _access(self._target, access)  # an observer draws its handlers; a store to RAM is told to nobody
            else:
                name = f"{'read' if access.data is None else 'write'} bar{access.bar}+{access.offset:#x} {access.size}"
                with self._builder.handler(name, None):
                    _access(self._target, access)
        except RequestFails:
            return  # the builder has shown it; the guest goes on
        except DefinitionError:
            raise
        except Exception:  # whatever a device raises: the builder has shown it, and nothing is fed to it any more
            self._target = None


class _Drawing:
    def __init__(self, builder: Builder, effects: Effects, behaviour: Behaviour, link: Link, fed: Fed | None) -> None:
        self._builder = builder
        self._effects = effects
        self._link = link
        self._packets = Packets(effects, link)
        self._fed = fed
        self._blocks = list(enumerate(behaviour))
        self._entry = {index: number for number, block in self._blocks for index in bits(block)}
        self._arrived = sum(behaviour)

    def run(self, names: Sequence[str]) -> None:
        taken = 0
        for position, event in enumerate(self._effects.program.events):
            mine = [effect for effect in self._effects if effect.position == position]
            name = names[position] if names else ""
            self._builder.made(position, event, in_ram=any(effect.in_ram for effect in mine), name=name)
            for effect in mine:
                if effect.bit & self._arrived:
                    self._builder.holds(position, effect, self._entry[effect.index])
                    taken |= effect.bit
            while self._blocks and not self._blocks[0][1] & ~taken:
                self._send(self._blocks.pop(0)[1])
        for effect in self._effects:
            if not effect.bit & self._arrived:
                speculative = effect.event.kind is Kind.SPECULATIVE
                why = "this read need not be made" if speculative else "a write buffer answered it"
                self._builder.absent(effect.position, why)

    def _send(self, block: int) -> None:
        builder, why = self._builder, "the order lets it"
        keys = {index: Key(self._effects[index].position, self._effects[index].offset) for index in bits(block)}
        sources = builder.leaves(keys.values(), why)
        for effect in self._effects.of(block):
            if effect.in_ram and effect.op is Op.WRITE:
                builder.memory(effect, [sources[keys[effect.index]]])
                if self._fed is not None and effect.offset != MSI_ADDRESS:
                    self._fed.store(effect)
        for tlp in self._packets.of_block(block):
            box = builder.packet(tlp, [sources[keys[index]] for index in bits(tlp.effects)], why)
            with builder.caused_by(box):
                if self._fed is not None:
                    self._fed.deliver(tlp)
            if box is not None:
                builder.answered(box, tlp, self._link)


def _access(target: Target, access: Access) -> None:
    if access.data is None:
        target.read(access.bar, access.offset, access.size)
    else:
        target.write(access.bar, access.offset, access.data)
