"""The store sequences that drivers and libraries use on write-combining BARs, as operations of the battery.

Each is written here as straight-line code for one size and alignment, after: Linux ``__iowrite64_copy`` (arm64, since
6.10) and its 32-bit twin, ``memcpy_toio``/``memcpy_fromio``, the mlx5 write-combining self-test (``st1``), rdma-core's
64-byte copy (``st4``), and a C library's ``memcpy`` and ``memset``. `doorbells` has a payload followed by a doorbell.
"""

from __future__ import annotations

from .operation import RESULT_OFFSET, Access, Element, Kind, Op


def _consecutive(unit: int, count: int) -> tuple[Element, ...]:
    return tuple(Element(i * unit, unit, True, unit, instruction=i, source=i * unit) for i in range(count))


def _pairs(first: int, count: int, step: int, register: str, base: str) -> tuple[str, ...]:
    """Loads of ``count`` registers two by two from ``base``."""
    return tuple(
        f"ldp {register}{n}, {register}{n + 1}, [{base}, #{step * (n - first)}]" for n in range(first, first + count, 2)
    )


_PAYLOAD_LOAD = _pairs(3, 8, 8, "x", "x1")
_PAYLOAD_STORE = tuple(f"str x{3 + i}, [x0, #{8 * i}]" for i in range(8))
_DGH = "hint #6"

IOWRITE64 = Op(
    name="iowrite64-copy",
    kind=Kind.STORE,
    access=Access.IDIOM,
    setup=_PAYLOAD_LOAD,
    asm=(*_PAYLOAD_STORE, _DGH),
    size=64,
    elements=_consecutive(8, 8),
)

IOWRITE32 = Op(
    name="iowrite32-copy",
    kind=Kind.STORE,
    access=Access.IDIOM,
    setup=(*_pairs(3, 14, 4, "w", "x1"), "ldr w17, [x1, #56]", "ldr w2, [x1, #60]"),
    asm=(*(f"str w{3 + i}, [x0, #{4 * i}]" for i in range(15)), "str w2, [x0, #60]", _DGH),
    size=64,
    elements=_consecutive(4, 16),
)


def _io_copy(*, write: bool) -> Op:
    """``memcpy_toio`` and ``memcpy_fromio`` of 61 bytes at +5: three bytes, seven eights, two bytes, all aligned."""
    pieces = [(5, 1), (6, 1), (7, 1), *((at, 8) for at in range(8, 64, 8)), (64, 1), (65, 1)]
    asm: list[str] = []
    elements: list[Element] = []
    for at, size in pieces:
        # The address is aligned, its distance from x0 is not: hence the unscaled forms.
        load, store, register = ("ldur", "stur", "x3") if size == 8 else ("ldrb", "strb", "w3")
        source, target = f"x1, #{at - 5}", f"x0, #{at - 5}"
        if not write:
            source, target = target, f"x1, #{RESULT_OFFSET + at - 5}"
        elements.append(Element(at, size, write, size, instruction=len(asm) + int(write), source=at - 5))
        asm += [f"{load} {register}, [{source}]", f"{store} {register}, [{target}]"]
    return Op(
        name="memcpy-toio" if write else "memcpy-fromio",
        kind=Kind.STORE if write else Kind.LOAD,
        access=Access.IDIOM,
        asm=tuple(asm),
        offset=5,
        size=61,
        elements=tuple(elements),
    )


ST4 = Op(
    name="rdma-core-st4",
    kind=Kind.STORE,
    access=Access.IDIOM,
    setup=("ld4 {v0.2d, v1.2d, v2.2d, v3.2d}, [x1]",),
    asm=("dsb st", "st4 {v0.2d, v1.2d, v2.2d, v3.2d}, [x0]", "dsb st"),
    size=64,
    elements=tuple(Element(at, 8, True, 8, instruction=1, source=at, access=Access.VECTOR) for at in range(0, 64, 8)),
)

LIBC_MEMCPY = Op(
    name="libc-memcpy",
    kind=Kind.STORE,
    access=Access.IDIOM,
    setup=("ldr q0, [x1]", "ldr q1, [x1, #16]", "ldur q2, [x1, #29]"),
    asm=("str q0, [x0]", "str q1, [x0, #16]", "stur q2, [x0, #29]"),
    offset=3,
    size=45,
    elements=tuple(Element(3 + at, 16, True, 16, instruction=i, source=at) for i, at in enumerate((0, 16, 29))),
)
"""45 bytes at +3: three 16-byte stores, the last overlapping, none aligned."""

LIBC_MEMSET = Op(
    name="libc-memset",
    kind=Kind.STORE,
    access=Access.IDIOM,
    setup=("movi v0.16b, #0", "add x3, x0, #48"),
    asm=("str q0, [x0]", "stp q0, q0, [x0, #16]", "dc zva, x3"),
    offset=16,
    size=112,
    elements=(
        Element(16, 16, True, 16, instruction=0, source=-1),
        Element(32, 16, True, 16, instruction=1, source=-1, access=Access.PAIR),
        Element(48, 16, True, 16, instruction=1, source=-1, access=Access.PAIR),
        Element(64, 64, True, 64, instruction=2, source=-1, access=Access.ZERO),
    ),
)
"""Clears 112 bytes at +16: aligned stores up to the next 64-byte block, then DC ZVA."""


IDIOMS: tuple[Op, ...] = (
    IOWRITE64,
    IOWRITE32,
    _io_copy(write=True),
    _io_copy(write=False),
    ST4,
    LIBC_MEMCPY,
    LIBC_MEMSET,
)
