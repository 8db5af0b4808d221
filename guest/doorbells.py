"""A payload of 64 bytes, something between, then a doorbell: the programs of ``matrix --orders``, in the battery.

Each way to store the payload with each thing between. Eight STR with what a driver would write there are run as often
as any operation; the others, `PROGRAMS`, once for each pair of types: what reaches the device is all they are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .operation import Access, Element, Kind, Op


@dataclass(frozen=True)
class _Payload:
    """How 64 bytes are stored: x0 is where, x1 has the pattern; x2, x19 and x20 are taken."""

    setup: tuple[str, ...]
    stores: tuple[str, ...]
    elements: tuple[Element, ...]


def _single(size: int, offsets: tuple[int, ...]) -> tuple[Element, ...]:
    """One access an instruction; each stores the bytes of the pattern that lie at its own offset."""
    return tuple(Element(at, size, True, size, instruction=n, source=at) for n, at in enumerate(offsets))


def _loads(register: str, step: int, first: int, count: int) -> tuple[str, ...]:
    """Loads of ``count`` registers two by two."""
    return tuple(
        f"ldp {register}{n}, {register}{n + 1}, [x1, #{step * (n - first)}]" for n in range(first, first + count, 2)
    )


_EIGHT = _loads("x", 8, 3, 8)
_LINE = range(0, 64, 8)
_MEMCPY = (0, 13, 29, 45, 48)

_PAYLOADS = {
    "payload": _Payload(_EIGHT, tuple(f"str x{3 + at // 8}, [x0, #{at}]" for at in _LINE), _single(8, tuple(_LINE))),
    "str-w": _Payload(
        _loads("w", 4, 3, 16),
        tuple(f"str w{3 + at // 4}, [x0, #{at}]" for at in range(0, 64, 4)),
        _single(4, tuple(range(0, 64, 4))),
    ),
    "stp-x": _Payload(
        _EIGHT,
        tuple(f"stp x{3 + at // 8}, x{4 + at // 8}, [x0, #{at}]" for at in range(0, 64, 16)),
        tuple(Element(at, 8, True, 8, instruction=at // 16, source=at, access=Access.PAIR) for at in _LINE),
    ),
    "st1": _Payload(
        ("ld1 {v0.16b, v1.16b, v2.16b, v3.16b}, [x1]",),
        ("st1 {v0.16b, v1.16b, v2.16b, v3.16b}, [x0]",),
        tuple(Element(at, 1, True, 1, source=at, access=Access.VECTOR) for at in range(64)),
    ),
    "str-q": _Payload(
        _loads("q", 16, 0, 4),
        tuple(f"str q{at // 16}, [x0, #{at}]" for at in range(0, 64, 16)),
        _single(16, tuple(range(0, 64, 16))),
    ),
    "memcpy": _Payload(
        tuple(f"ld{'' if at % 16 == 0 else 'u'}r q{n}, [x1, #{at}]" for n, at in enumerate(_MEMCPY)),
        tuple(f"st{'' if at % 16 == 0 else 'u'}r q{n}, [x0, #{at}]" for n, at in enumerate(_MEMCPY)),
        _single(16, _MEMCPY),
    ),
    "dc-zva": _Payload((), ("dc zva, x0",), (Element(0, 64, True, 64, source=-1, access=Access.ZERO),)),
}

_BETWEEN: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "ishst": ("dmb ishst",),
    "dmb": ("dmb oshst",),
    "dsb": ("dsb st",),
    "dgh": ("hint #6",),
    "stlr": (),
    "read": ("ldr w20, [x0, #60]", "dmb oshld"),
}

WAYS, BETWEEN = tuple(_PAYLOADS), tuple(_BETWEEN)
"""The parts of a program's name, which is ``payload-dmb-doorbell`` for eight STR with DMB OSHST behind them."""


def _program(way: str, between: str) -> Op:
    payload, barrier = _PAYLOADS[way], _BETWEEN[between]
    elements = payload.elements
    if between == "read":
        elements += (Element(60, 4, False, 4, instruction=len(payload.stores)),)
    return Op(
        name=f"{way}-{between}-doorbell",
        kind=Kind.STORE,
        access=Access.IDIOM,
        setup=(*payload.setup, "ldr w19, [x1, #64]"),
        asm=(*payload.stores, *barrier, "stlr w19, [x2]" if between == "stlr" else "str w19, [x2]"),
        size=64,
        elements=elements,
        doorbell=True,
        barrier="stlr" if between == "stlr" else barrier[-1] if barrier else None,
        once=(way, between) not in _OFTEN,
    )


_OFTEN = frozenset(("payload", between) for between in ("none", "dmb", "dsb", "dgh", "stlr"))

DOORBELLS: Mapping[str, Op] = MappingProxyType(
    {op.name: op for op in (_program(way, between) for way in WAYS for between in BETWEEN)}
)
"""All of them, by name."""

PROGRAMS = tuple(op for op in DOORBELLS.values() if op.once)
"""Those that are run once."""
