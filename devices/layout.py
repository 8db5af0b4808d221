"""A device class's declarations, collected and checked: what would not work in a guest is refused here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..bridge.config_image import BarShape, MsixShape, PciId
from ..bridge.errors import DefinitionError
from .bar import Bar, Placed
from .element import Element
from .handlers import Hook, collect_hooks
from .interrupts import Intx, Msi, MsiX
from .piece import PAGE, Area, check_areas
from .registers import Registers
from .rom import Rom

T = TypeVar("T")


@dataclass(frozen=True)
class BarLayout:
    """One BAR: its shape, the pieces in it, and the parts that are memory shared with the client."""

    shape: BarShape
    placed: tuple[Placed[Any], ...]
    mapped: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Layout:
    """All that a device class declares."""

    identity: PciId
    bars: tuple[BarLayout, ...]
    hooks: tuple[Hook, ...]
    intx: bool
    msi: int
    msix: MsixShape | None
    rom: Rom | None


def layout_of(device_class: type, base: type, identity: PciId) -> Layout:
    """Collect the declarations of a device class and its bases; `DefinitionError` when they cannot work.

    `base` is the class of all devices, whose attributes no declaration may hide.
    """
    members = _members(device_class, base)
    bars = sorted(_all(members, Bar), key=lambda bar: bar.name)
    for bar in bars:
        bar.check()
    msix = _only(members, MsiX)
    msix_bar = msix.bar if msix is not None else None
    if msix is not None and msix_bar is None:
        msix_bar = _free_bar(msix, bars)
        bars = sorted([*bars, msix_bar], key=lambda bar: bar.name)
    _check_slots(bars)
    placed = [bar.contents for bar in bars if bar.contents is not None] + _all(members, Placed)
    for each in placed:
        _check_home(each, each.bar, bars)
        each.check()
    if msix is not None:
        msix.check()
        _check_home(msix, msix_bar, bars)
    hooks = collect_hooks(device_class)
    _check_hooks(hooks, placed)
    msi = _only(members, Msi)
    return Layout(
        identity=identity,
        bars=tuple(_bar_layout(bar, placed, msix if bar is msix_bar else None) for bar in bars),
        hooks=hooks,
        intx=_only(members, Intx) is not None,
        msi=msi.vectors if msi is not None else 0,
        msix=msix.shape(msix_bar.index) if msix is not None and msix_bar is not None else None,
        rom=_only(members, Rom),
    )


def _members(device_class: type, base: type) -> list[object]:
    named: dict[str, object] = {}
    for each in reversed(device_class.__mro__):
        named.update(vars(each))
    for name, member in named.items():
        if isinstance(member, Bar | Placed | Intx | Msi | MsiX | Rom) and (
            hasattr(base, name) or name in base.__annotations__
        ):
            raise DefinitionError(f"{name} must be a name that Device leaves free, not one that it uses itself")
    return list(named.values())


def _all(members: Sequence[object], kind: type[T]) -> list[T]:
    return [each for each in members if isinstance(each, kind)]


def _only(members: Sequence[object], kind: type[T]) -> T | None:
    found = _all(members, kind)
    if len(found) > 1:
        raise DefinitionError(f"{kind.__name__} must be declared once, not {len(found)} times")
    return found[0] if found else None


def _free_bar(msix: MsiX, bars: Sequence[Bar[Any]]) -> Bar[Any]:
    taken = {bar.index + half for bar in bars for half in range(bar.bits // 32)}
    free = [index for index in range(6) if index not in taken]
    if not free:
        raise DefinitionError("bar of MsiX must be named, not left out: no BAR is free for it")
    end = max(area.offset + area.length for area in msix.areas())
    bar = Bar(size=max(PAGE, 1 << (end - 1).bit_length()))
    bar.name = f"bar{free[0]}"
    return bar


def _check_slots(bars: Sequence[Bar[Any]]) -> None:
    names = {bar.name for bar in bars}
    for bar in bars:
        upper = f"bar{bar.index + 1}"
        if bar.bits == 64 and upper in names:
            raise DefinitionError(f"{upper} must be left out, not declared: it is the upper half of the 64-bit {bar}")


def _check_home(what: object, bar: Bar[Any] | None, bars: Sequence[Bar[Any]]) -> None:
    if bar not in bars:
        raise DefinitionError(f"bar of {what} must be a BAR of the same device, not {bar}")


def _check_hooks(hooks: Sequence[Hook], placed: Sequence[Placed[Any]]) -> None:
    homes: Counter[Element] = Counter()
    for each in placed:
        if isinstance(each.piece, Registers):
            homes.update(each.piece.elements)
    for hook in hooks:
        if homes[hook.element] != 1:
            raise DefinitionError(
                f"{hook.element}, which {hook.method} handles, must lie in the device's BARs once, "
                f"not {homes[hook.element]} times"
            )


def _bar_layout(bar: Bar[Any], placed: Sequence[Placed[Any]], msix: MsiX | None) -> BarLayout:
    own = tuple(each for each in placed if each.bar is bar)
    areas = [area for each in own for area in each.areas()]
    if msix is not None:
        areas += msix.areas()
    for area in areas:
        _check_area(bar, area)
    check_areas(areas)
    return BarLayout(
        shape=BarShape(bar.index, bar.size, bar.bits, bar.prefetchable),
        placed=own,
        mapped=_joined(areas),
    )


def _joined(areas: Sequence[Area]) -> tuple[tuple[int, int], ...]:
    """The mapped areas as (offset, length), those that touch joined: each is a memory slot of a hypervisor."""
    joined: list[tuple[int, int]] = []
    for area in sorted((area for area in areas if area.mapped), key=lambda each: each.offset):
        if joined and sum(joined[-1]) == area.offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + area.length)
        else:
            joined.append((area.offset, area.length))
    return tuple(joined)


def _check_area(bar: Bar[Any], area: Area) -> None:
    if area.mapped and bar.size < PAGE:
        raise DefinitionError(
            f"size of {bar} must be at least {PAGE} bytes to hold the mapped {area.name}, not {bar.size}"
        )
    if area.offset < 0 or area.offset + area.length > bar.size:
        raise DefinitionError(
            f"{area.name} must lie within the {bar.size:#x} bytes of {bar}, "
            f"not at {area.offset:#x} to {area.offset + area.length - 1:#x}"
        )
    if area.read_side_effects and bar.prefetchable:
        raise DefinitionError(
            f"{bar} must be non-prefetchable, not prefetchable: reads of {area.name} have a side effect"
        )
