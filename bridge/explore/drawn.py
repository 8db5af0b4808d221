"""The timeline of one behaviour: a program, the order in which it arrives, and what a device does about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import DefinitionError
from ..inprocess import InProcess
from ..interconnect import Behaviour, Effects, Link, Op, Packets
from ..interconnect.order import bits
from ..interconnect.program import MSI_ADDRESS
from ..stream import Kind
from ..timeline import Builder, How, Key, LaneKind, Timeline
from .replay import Access, Factory, Part, RequestFails, Target, parts_of

_HOW = {
    LaneKind.VCPU: How.GIVEN,
    LaneKind.BUFFER: How.MODELLED,
    LaneKind.LINK: How.MODELLED,
    LaneKind.DEVICE: How.REPLAYED,
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
    target = factory() if factory is not None else None
    endpoint = target.device.endpoint if isinstance(target, InProcess) else None
    device = target.device if isinstance(target, InProcess) else target
    builder = Builder(title, subtitle, _HOW, device=type(device).__name__)
    if endpoint is not None:
        endpoint.observe(builder)
    try:
        _Drawing(builder, effects, behaviour, link, target).run(names)
    finally:
        if endpoint is not None:
            endpoint.observe(None)
    return builder.finish(_NOTES)


class _Drawing:
    def __init__(
        self, builder: Builder, effects: Effects, behaviour: Behaviour, link: Link, target: Target | None
    ) -> None:
        self._builder = builder
        self._effects = effects
        self._link = link
        self._packets = Packets(effects, link)
        self._target = target
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
            if effect.in_ram and effect.offset == MSI_ADDRESS:
                builder.memory(effect, [sources[keys[effect.index]]])
        for part in self._parts(block):
            carried = bits(part.tlp.effects if part.tlp else part.accesses[0].effects)
            origins = [sources[keys[index]] for index in carried]
            if part.tlp is None:
                (effect,) = self._effects.of(part.accesses[0].effects)
                if effect.op is Op.READ:
                    continue  # it is the program's, of memory
                box = builder.memory(effect, origins)
            else:
                box = builder.packet(part.tlp, origins, why)
            with builder.caused_by(box):
                for access in part.accesses:
                    self._feed(access)
            if box is not None and part.tlp is not None:
                builder.answered(box, part.tlp, self._link)

    def _parts(self, block: int) -> Iterator[Part]:
        """What arrives of a block; without a device, of what cannot be replayed too."""
        if self._target is not None:
            yield from parts_of(self._effects, block, self._packets)
            return
        for effect in self._effects.of(block):
            if effect.in_ram and effect.offset != MSI_ADDRESS:
                yield Part(None, (Access(None, effect.offset, effect.size, effect.data, effect.bit),))
        for tlp in self._packets.of_block(block):
            yield Part(tlp, ())

    def _feed(self, access: Access) -> None:
        if self._target is None:
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


def _access(target: Target, access: Access) -> None:
    if access.data is None:
        target.read(access.bar, access.offset, access.size)
    else:
        target.write(access.bar, access.offset, access.data)
