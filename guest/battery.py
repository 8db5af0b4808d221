"""The access battery as data: every instruction that is tried on every memory type, and its named subsets.

One instruction an access, so that a fault or a missing transaction has one cause. The table is the single source: the
guest's stubs (`stubs`) are generated from it, verdicts are computed from it. An operation's number in a plan is its
index in `BATTERY`.
"""

from __future__ import annotations

from types import MappingProxyType

from .doorbells import DOORBELLS
from .idioms import IDIOMS
from .operation import SLOT, Access, Element, Kind, Op, Update

_UNITS = {"b": 1, "h": 2, "w": 4, "x": 8, "q": 16}


def _register(unit: str, number: int) -> str:
    if unit == "q":
        return f"q{number}"
    return f"{'x' if unit == 'x' else 'w'}{number + 3}"


def _suffix(unit: str) -> str:
    return unit if unit in "bh" else ""


def _where(offset: int) -> str:
    """The name's ending: "+1" for an offset in the slot, "/page" for the end of the page."""
    return "" if offset == 0 else f"+{offset}"


def _load(unit: str, offset: int = 0, *, crossing: bool = False) -> Op:
    size, reg, sfx = _UNITS[unit], _register(unit, 0), _suffix(unit)
    return Op(
        name=f"ldr-{unit}" + ("/page" if crossing else _where(offset)),
        kind=Kind.LOAD,
        access=Access.SINGLE,
        asm=(f"ldr{sfx} {reg}, [x0]",),
        finish=(f"str {reg if unit == 'q' else 'x3'}, [x1, #128]",),
        offset=offset,
        size=size,
        elements=(Element(offset, size, False, size),),
        crossing=crossing,
    )


def _store(unit: str, offset: int = 0, *, crossing: bool = False) -> Op:
    size, reg, sfx = _UNITS[unit], _register(unit, 0), _suffix(unit)
    return Op(
        name=f"str-{unit}" + ("/page" if crossing else _where(offset)),
        kind=Kind.STORE,
        access=Access.SINGLE,
        setup=(f"ldr{sfx} {reg}, [x1]",),
        asm=(f"str{sfx} {reg}, [x0]",),
        offset=offset,
        size=size,
        elements=(Element(offset, size, True, size),),
        crossing=crossing,
    )


def _pair(unit: str, offset: int = 0, *, write: bool, crossing: bool = False) -> Op:
    size, one, two = _UNITS[unit], _register(unit, 0), _register(unit, 1)
    pack = ("bfi x3, x4, #32, #32",) if unit == "w" else ()
    keep = {"w": ("str x3, [x1, #128]",), "x": ("stp x3, x4, [x1, #128]",), "q": ("str q0, [x1, #128]",)}[unit]
    return Op(
        name=f"{'stp' if write else 'ldp'}-{unit}" + ("/page" if crossing else _where(offset)),
        kind=Kind.STORE if write else Kind.LOAD,
        access=Access.PAIR,
        setup=(f"ldp {one}, {two}, [x1]",) if write else (),
        asm=(f"{'stp' if write else 'ldp'} {one}, {two}, [x0]",),
        finish=() if write else (*pack, *keep),
        offset=offset,
        size=2 * size,
        elements=tuple(
            Element(offset + i * size, size, write, size, source=i * size, access=Access.PAIR) for i in range(2)
        ),
        crossing=crossing,
    )


def _vector(count: int, offset: int = 0, *, write: bool, lanes: str = "16b", crossing: bool = False) -> Op:
    """LD1, ST1 of ``count`` registers: elements of one byte (16b) or eight (2d), which is also their alignment."""
    unit = {"16b": 1, "2d": 8}[lanes]
    registers = "{" + ", ".join(f"v{i}.{lanes}" for i in range(count)) + "}"
    fill = "{" + ", ".join(f"v{i}.16b" for i in range(count)) + "}"
    size = 16 * count
    return Op(
        name=f"{'st1' if write else 'ld1'}-{count}x{lanes}" + ("/page" if crossing else _where(offset)),
        kind=Kind.STORE if write else Kind.LOAD,
        access=Access.VECTOR,
        setup=(f"ld1 {fill}, [x1]",) if write else (),
        asm=(f"{'st1' if write else 'ld1'} {registers}, [x0]",),
        finish=() if write else ("str q0, [x1, #128]",),
        offset=offset,
        size=size,
        elements=tuple(
            Element(offset + at, unit, write, unit, source=at, access=Access.VECTOR) for at in range(0, size, unit)
        ),
        crossing=crossing,
    )


def _both(size: int, offset: int, access: Access) -> tuple[Element, ...]:
    return tuple(Element(offset, size, write, size, instruction=0, access=access) for write in (False, True))


def _exclusive(unit: str, offset: int = 0) -> Op:
    size, new, old = _UNITS[unit], _register(unit, 0), _register(unit, 1)
    read, write = _both(size, offset, Access.EXCLUSIVE)
    return Op(
        name=f"ldxr-stxr-{unit}" + _where(offset),
        kind=Kind.UPDATE,
        access=Access.EXCLUSIVE,
        setup=(f"ldr {new}, [x1]",),
        asm=(f"ldxr {old}, [x0]", f"stxr w5, {new}, [x0]"),
        finish=("stp x4, x5, [x1, #128]",),
        offset=offset,
        size=size,
        elements=(read, Element(offset, size, write.write, size, instruction=1, access=Access.EXCLUSIVE)),
        update=Update.SWAP,
    )


def _atomic(name: str, update: Update, unit: str = "x", offset: int = 0) -> Op:
    size, new, old = _UNITS[unit], _register(unit, 0), _register(unit, 1)
    setup = [f"ldr {new}, [x1]"]
    asm = f"{name} {new}, {old}, [x0]"
    if update is Update.COMPARE_ZERO:
        setup.append("mov x4, #0")
        asm = f"{name} {old}, {new}, [x0]"
    return Op(
        name=f"{name}-{unit}" + _where(offset),
        kind=Kind.UPDATE,
        access=Access.ATOMIC,
        setup=tuple(setup),
        asm=(asm,),
        finish=("str x4, [x1, #128]",),
        offset=offset,
        size=size,
        elements=_both(size, offset, Access.ATOMIC),
        update=update,
        feature="lse",
    )


def _ordered(unit: str, offset: int = 0, *, write: bool) -> Op:
    size, reg = _UNITS[unit], _register(unit, 0)
    return Op(
        name=f"{'stlr' if write else 'ldar'}-{unit}" + _where(offset),
        kind=Kind.STORE if write else Kind.LOAD,
        access=Access.ORDERED,
        setup=(f"ldr {reg}, [x1]",) if write else (),
        asm=(f"{'stlr' if write else 'ldar'} {reg}, [x0]",),
        finish=() if write else ("str x3, [x1, #128]",),
        offset=offset,
        size=size,
        elements=(Element(offset, size, write, size, access=Access.ORDERED),),
    )


def _translate(name: str, level: int) -> Op:
    return Op(
        name=f"at-{name}",
        kind=Kind.TRANSLATE,
        access=Access.TRANSLATE,
        asm=(f"at {name}, x0",),
        finish=("isb", "mrs x3, par_el1", "str x3, [x1, #128]"),
        levels=(level,),
    )


_DC_ZVA = Op(
    name="dc-zva",
    kind=Kind.STORE,
    access=Access.ZERO,
    asm=("dc zva, x0",),
    size=64,
    elements=(Element(0, 64, True, 64, source=-1, access=Access.ZERO),),
)

_ST64B = Op(
    name="st64b",
    kind=Kind.STORE,
    access=Access.SINGLE_COPY_64,
    setup=tuple(f"ldp x{n}, x{n + 1}, [x1, #{8 * (n - 4)}]" for n in range(4, 12, 2)),
    asm=(".inst 0xf83f9004  // st64b x4, [x0]",),
    size=64,
    elements=(Element(0, 64, True, 64, access=Access.SINGLE_COPY_64),),
    feature="ls64",
)

_UNALIGNED = (("h", 1), ("w", 1), ("w", 2), ("x", 1), ("x", 4), ("x", 12), ("q", 4), ("q", 8))
"""Single registers off their natural alignment: odd, at half their size, and past the first eight bytes."""

_PAIR_OFFSETS = (("w", 0), ("x", 0), ("q", 0), ("x", 4), ("x", 8), ("q", 8))
"""A pair's alignment is its element's: x at +8 is aligned, x at +4 and q at +8 are not."""

_VECTORS = ((1, 0, "16b"), (2, 0, "16b"), (3, 0, "16b"), (4, 0, "16b"), (1, 1, "16b"), (4, 0, "2d"), (2, 4, "2d"))
"""16 to 64 bytes. Byte elements are aligned anywhere; eight-byte elements at +4 are not."""

BATTERY: tuple[Op, ...] = (
    *(_load(unit) for unit in _UNITS),
    *(_store(unit) for unit in _UNITS),
    *(_load(unit, offset) for unit, offset in _UNALIGNED),
    *(_store(unit, offset) for unit, offset in _UNALIGNED),
    *(_pair(unit, offset, write=False) for unit, offset in _PAIR_OFFSETS),
    *(_pair(unit, offset, write=True) for unit, offset in _PAIR_OFFSETS),
    *(_vector(count, offset, write=False, lanes=lanes) for count, offset, lanes in _VECTORS),
    *(_vector(count, offset, write=True, lanes=lanes) for count, offset, lanes in _VECTORS),
    *(make("x", SLOT - 4, crossing=True) for make in (_load, _store)),
    *(make("q", SLOT - 8, crossing=True) for make in (_load, _store)),
    *(_pair("x", SLOT - 8, write=write, crossing=True) for write in (False, True)),
    *(_vector(4, SLOT - 32, write=write, lanes="2d", crossing=True) for write in (False, True)),
    _exclusive("w"),
    _exclusive("x"),
    _exclusive("x", 4),
    _atomic("ldadd", Update.ADD, "w"),
    _atomic("ldadd", Update.ADD),
    _atomic("ldadd", Update.ADD, "x", 4),
    _atomic("swp", Update.SWAP),
    _atomic("cas", Update.COMPARE_ZERO),
    *(_ordered(unit, write=write) for unit in ("w", "x") for write in (False, True)),
    *(_ordered("x", 4, write=write) for write in (False, True)),
    _DC_ZVA,
    _ST64B,
    *IDIOMS,
    *DOORBELLS.values(),
    _translate("s1e1r", 1),
    _translate("s1e1w", 1),
    _translate("s12e1r", 2),
    _translate("s12e1w", 2),
    _translate("s1e2r", 2),
)
"""Every operation there is. The translations give PAR_EL1: at-s1e1r stage 1, at-s12e1r both, at-s1e2r the host's."""

INDEX = MappingProxyType({op.name: index for index, op in enumerate(BATTERY)})
"""An operation's number in a plan, by its name."""


def named(*names: str) -> tuple[Op, ...]:
    """The operations with these names, in this order.

    Raises:
        KeyError: There is none with that name.
    """
    return tuple(BATTERY[INDEX[name]] for name in names)


FULL = tuple(op for op in BATTERY if not op.once)
"""The whole battery, but for `doorbells.PROGRAMS`."""

SHORT = named("ldr-w", "str-x", "str-x+1", "stp-x", "at-s1e1r", "at-s12e1r", "at-s1e2r")
"""A few of each class: for mappings whose pair of types had the full battery already."""

PLATFORM = (
    *(op for op in BATTERY if op.kind is Kind.LOAD and not op.crossing),
    *(op for op in BATTERY if op.kind is Kind.TRANSLATE),
)
"""Nothing that writes: for the registers of an on-board device."""
