"""Payload, barrier, doorbell: the programs, as labelled events, that `matrix --orders` works out for a pair of types.

64 bytes go to a window of BAR 2, aligned to 64, then 4 bytes to a doorbell in BAR 0, another page of the same function.
`tests/guest/orders` holds the programs against what the tracer records of the bare-metal guest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...bridge.attributes import NGNRNE, Access, Kind, MemoryType, Outcome, Page, outcomes
from ...bridge.attributes import Effect as Came
from ...bridge.interconnect import Part, Program, burst, dc_zva, dgh, dmb, dsb, load, pair, st1, store
from ...bridge.stream import Event, Flag
from ...bridge.stream import Kind as Did
from ...devices.probe_map import RANGES, Reg
from ..doorbells import BETWEEN

WINDOW_BAR, WINDOW, SIZE = 2, RANGES["wc-trapped"].offset, 64
DOORBELL_BAR, DOORBELL = 0, int(Reg.DOORBELL)


@dataclass(frozen=True)
class Idiom:
    """How 64 bytes are stored. `way`: the same in the names of the battery's programs (`doorbells`)."""

    name: str
    text: str
    stores: Callable[[MemoryType], Part]
    way: str

    def operation(self, barrier: str) -> str:
        """The name of the battery's operation that is this program. Raises KeyError for no such barrier."""
        return f"{self.way}-{_NAMES[barrier]}-doorbell"

    def faults(self, kind: MemoryType, aligned: bool = False) -> str:
        """Why it does not come to its end on a type, in words; empty when it does.

        `aligned`: stage 1 is Device though the effective type is not, as where FWB=1 forces Write-Back.
        """
        page = Page(NGNRNE if aligned else kind)
        for number, event in enumerate(self.stores(kind), 1):
            came = outcomes(_access(event), page)
            if all(each.effect is Came.FAULT for each in came):
                return f"{_fault(came)} at store {number}"
        return ""


def _access(event: Event) -> Access:
    """An event as the fault rules want it: ST1 here has elements of one byte (.16b)."""
    if event.kind is Did.ZERO:
        return Access(Kind.DC_ZVA, True, event.size)
    return Access(Kind.PLAIN, True, event.size, event.offset, 1 if event.flags & Flag.STRUCTURE else event.size)


def _fault(came: frozenset[Outcome]) -> str:
    (outcome,) = came
    return f"alignment fault ({outcome.rule.partition(' ')[0]})"


def _by(size: int) -> Callable[[MemoryType], Part]:
    return lambda kind: burst(WINDOW, SIZE, size, type=kind, bar=WINDOW_BAR)


def _stp(kind: MemoryType) -> Part:
    return tuple(e for at in range(0, SIZE, 16) for e in pair(store(WINDOW + at, type=kind, bar=WINDOW_BAR)))


def _memcpy(kind: MemoryType) -> Part:
    return tuple(e for at in (0, 13, 29, 45, 48) for e in store(WINDOW + at, 16, type=kind, bar=WINDOW_BAR))


IDIOMS: Mapping[str, Idiom] = MappingProxyType(
    {
        idiom.name: idiom
        for idiom in (
            Idiom(
                "8 x STR x",
                "eight STR of x registers, ascending: Linux' __iowrite64_copy, its DGH being a barrier here",
                _by(8),
                "payload",
            ),
            Idiom(
                "16 x STR w",
                "sixteen STR of w registers, ascending: Linux' __iowrite32_copy, its DGH being a barrier here",
                _by(4),
                "str-w",
            ),
            Idiom("4 x STP x", "four STP of x registers, ascending", _stp, "stp-x"),
            Idiom(
                "ST1",
                "one ST1 of four 16-byte registers: the mlx5 self-test, 64 bytes by NEON",
                lambda kind: st1(WINDOW, type=kind, bar=WINDOW_BAR),
                "st1",
            ),
            Idiom("4 x STR q", "four STR of 16-byte registers, ascending", _by(16), "str-q"),
            Idiom(
                "memcpy",
                "five overlapping STR of 16-byte registers, at +0, +13, +29, +45, +48: a C library's memcpy",
                _memcpy,
                "memcpy",
            ),
            Idiom(
                "DC ZVA",
                "64 zeros by one DC ZVA: a C library's memset",
                lambda kind: dc_zva(WINDOW, type=kind, bar=WINDOW_BAR),
                "dc-zva",
            ),
        )
    }
)
"""The idioms by name."""

BARRIERS: Mapping[str, str] = MappingProxyType(
    {
        "none": "nothing between",
        "dmb ishst": "DMB ISHST, the classic mistake: a device is Outer Shareable",
        "dmb oshst": "DMB OSHST: Linux' writel",
        "dsb st": "DSB ST",
        "dgh": "DGH, a hint",
        "store-release": "the doorbell is rung with STLR",
        "read-back": "LDR of the payload's last 4 bytes, then DMB OSHLD: Linux' readl, with no barrier before it",
    }
)
"""What may stand between payload and doorbell, and what that is."""

_NAMES = dict(zip(BARRIERS, BETWEEN, strict=True))
"""The barriers in the names of the battery's programs."""

_BETWEEN: Mapping[str, Callable[[MemoryType], Part]] = {
    "dmb ishst": lambda kind: dmb("ishst"),
    "dmb oshst": lambda kind: dmb("oshst"),
    "dsb st": lambda kind: dsb("st"),
    "dgh": lambda kind: dgh(),
    "read-back": lambda kind: load(WINDOW + SIZE - 4, 4, type=kind, bar=WINDOW_BAR) + dmb("oshld"),
}


def program(idiom: Idiom, barrier: str, payload: MemoryType, doorbell: MemoryType) -> Program:
    """The program, with the effective types of the window and of the doorbell. Raises KeyError for no such barrier."""
    BARRIERS[barrier]
    between = _BETWEEN[barrier](payload) if barrier in _BETWEEN else ()
    release = Flag.RELEASE if barrier == "store-release" else Flag.NONE
    bell = store(DOORBELL, 4, 1, type=doorbell, bar=DOORBELL_BAR, flags=release)
    return Program.of(idiom.stores(payload), between, bell)
