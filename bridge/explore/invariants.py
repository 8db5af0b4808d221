"""What must hold in every behaviour: of arrival alone (checked in C), or of what the device became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import interconnect
from ..hotpath._native import lib
from ..interconnect import Behaviour, Effect, Effects
from ..interconnect.invariants import data_in
from ..interconnect.order import bits
from .replay import Outcome


@dataclass(frozen=True)
class Where:
    """Effects by their place: any of the `size` bytes at `offset` of a BAR; None: of RAM."""

    offset: int
    size: int
    bar: int | None = 0

    def mask(self, effects: Effects) -> int:
        """Those of them."""
        return sum(effect.bit for effect in effects if self._has(effect))

    def _has(self, effect: Effect) -> bool:
        here = effect.in_ram if self.bar is None else effect.event.bar == self.bar
        return here and effect.offset < self.offset + self.size and self.offset < effect.end

    def __str__(self) -> str:
        """As in `bar0+0x40 64`."""
        return f"{'ram' if self.bar is None else f'bar{self.bar}'}+{self.offset:#x} {self.size}"


@dataclass(frozen=True)
class Arrival:
    """A predicate about blocks and their order, which keeps its meaning when the program changes."""

    name: str
    resolve: Callable[[Effects], interconnect.Invariant]
    """The same for the effects of one program."""


@dataclass(frozen=True)
class Property:
    """A predicate about the device, and the values that loads returned, after a behaviour.

    `holds` gets the `Outcome`; what it raises breaks the property too.
    """

    name: str
    holds: Callable[[Outcome], bool]


Invariant = Arrival | Property


def arrives_before(first: Where, second: Where, name: str = "") -> Arrival:
    """All of `first` has arrived before any of `second`, and is not gathered with it."""

    def resolve(effects: Effects) -> interconnect.Invariant:
        return interconnect.arrives_before(first.mask(effects), second.mask(effects), name)

    return Arrival(name or f"{first} arrives before {second}", resolve)


def in_one_block(where: Where, name: str = "") -> Arrival:
    """All accesses there arrive as one."""
    return Arrival(
        name or f"{where} arrives as one", lambda effects: interconnect.in_one_block(where.mask(effects), name)
    )


def never_speculated(where: Where, name: str = "") -> Arrival:
    """No speculative read arrives there."""

    def resolve(effects: Effects) -> interconnect.Invariant:
        return interconnect.never_arrives(where.mask(effects) & sum(e.bit for e in effects if e.optional), name)

    return Arrival(name or f"{where} is never read speculatively", resolve)


def final_image(offset: int, expected: bytes, bar: int | None = 0, name: str = "") -> Arrival:
    """In the end these bytes, zeros at first, are at the offset of the BAR; None: of RAM. At most 4096."""
    image = interconnect.final_image(offset, expected, bar, name)
    return Arrival(image.name, lambda effects: image)


def holds(invariant: interconnect.Invariant, effects: Effects, behaviour: Behaviour) -> bool:
    """Whether one behaviour keeps an invariant: what `Behaviours.check` says of many."""
    if invariant.kind == lib.PVU_INVARIANT_FINAL:
        data = data_in(effects, invariant)
        image = bytearray(len(invariant.expected))
        for effect in (index for block in behaviour for index in bits(block)):
            at, content = data[effect]
            image[at : at + len(content)] = content
        return image == invariant.expected
    if invariant.kind == lib.PVU_INVARIANT_TOGETHER:
        return any(not invariant.first & ~block for block in behaviour)
    if invariant.kind == lib.PVU_INVARIANT_NEVER:
        return not any(invariant.first & block for block in behaviour)
    missing = invariant.first & sum(behaviour)
    for block in behaviour:
        if block & invariant.second and missing:
            return False
        missing &= ~block
    return True
