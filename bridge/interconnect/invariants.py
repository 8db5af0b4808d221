"""What must hold in every behaviour: predicates that are checked in C."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..errors import DefinitionError
from ..hotpath._native import lib
from .effects import Effect, Effects, Op


class Invariant(NamedTuple):
    """One predicate, as `pvu_invariant` of `bridge/hotpath/api.h` has it; see the functions below."""

    name: str
    kind: int
    first: int = 0
    second: int = 0
    offset: int = 0
    expected: bytes = b""
    bar: int | None = 0

    def __str__(self) -> str:
        """Its name."""
        return self.name


class Data(NamedTuple):
    """Where an effect writes in the image of `final_image`, and what."""

    at: int
    content: bytes


def arrives_before(first: int, second: int, name: str = "") -> Invariant:
    """All effects in the mask `first` have arrived before any in `second`, and not in one block with it.

    One that never arrives, such as a load that a store answered, breaks nothing.
    """
    return Invariant(name or f"{first:#x} before {second:#x}", lib.PVU_INVARIANT_BEFORE, first, second)


def in_one_block(effects: int, name: str = "") -> Invariant:
    """All effects in the mask arrive as one. Whether that is one TLP is a matter of `tlps`: of holes and boundaries."""
    return Invariant(name or f"{effects:#x} in one block", lib.PVU_INVARIANT_TOGETHER, effects)


def never_arrives(effects: int, name: str = "") -> Invariant:
    """None of the effects in the mask arrives: of optional ones, such as speculative reads."""
    return Invariant(name or f"{effects:#x} never", lib.PVU_INVARIANT_NEVER, effects)


def final_image(offset: int, expected: bytes, bar: int | None = 0, name: str = "") -> Invariant:
    """In the end these bytes, zeros at first, are at the offset of the BAR; None: of RAM. At most 4096."""
    if not 1 <= len(expected) <= lib.PVU_ORDERS_IMAGE:
        raise DefinitionError(f"expected must be 1 to {lib.PVU_ORDERS_IMAGE} bytes, not {len(expected)}")
    return Invariant(
        name or f"image at {offset:#x}", lib.PVU_INVARIANT_FINAL, offset=offset, expected=expected, bar=bar
    )


def data_in(effects: Effects, image: Invariant) -> list[Data]:
    """What each effect writes of an image. Raises DefinitionError for a store of unknown data, or an atomic, there."""
    return [_data(effect, image) for effect in effects]


def _data(effect: Effect, image: Invariant) -> Data:
    start = max(effect.offset, image.offset)
    end = min(effect.end, image.offset + len(image.expected))
    if effect.op is Op.READ or effect.event.bar != image.bar or start >= end:
        return Data(0, b"")
    if effect.data is None or effect.op is Op.ATOMIC:
        raise DefinitionError(f"data of all stores to the image must be known, not those of effect {effect}")
    return Data(start - image.offset, effect.data[start - effect.offset : end - effect.offset])


def only_image(invariants: Iterable[Invariant]) -> Invariant | None:
    """The one final image there may be. Raises DefinitionError for several."""
    images = [each for each in invariants if each.kind == lib.PVU_INVARIANT_FINAL]
    if len(images) > 1:
        raise DefinitionError(f"there must be at most one final image, not {len(images)}")
    return images[0] if images else None
