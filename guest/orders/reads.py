"""Whether a register is read though nobody asked: a program for each mapping of its range, all behaviours looked at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ...bridge.attributes import NGNRE, MemoryType
from ...bridge.interconnect import (
    RULES,
    Behaviours,
    Mapped,
    Program,
    Rules,
    never_arrives,
    reaches,
    speculated,
    store,
)
from ...devices.probe_map import Reg
from ..layout import LAYOUT
from .programs import DOORBELL, DOORBELL_BAR

REGISTERS = {"control": Reg.READS, "fifo": Reg.FIFO}
"""The register that a read changes, of each range that has one; of others their first bytes are looked at."""
WIDTH = 4

ASKED = "STR w to the doorbell, nGnRE; nobody loads {}"
"""The program: what the guest does."""


@dataclass(frozen=True)
class Read:
    """Of the program's `legal` behaviours, `reading` read the register; `why`: through which mapping, by which section.

    With a mapping that nobody may speculate through there is one behaviour, and it does not.
    """

    register: str
    program: str
    legal: int
    reading: int
    why: str


@cache
def unasked(name: str, kind: MemoryType, who: str, rules: Rules = RULES) -> Read:
    """What a mapping of a range, gaps included, does to its register. Raises KeyError for a range that is not."""
    where = LAYOUT.find(name)
    assert where.bar is not None, name
    bar, offset = where.bar, int(REGISTERS.get(name, where.offset))
    mapped = Mapped(bar, offset, WIDTH, kind, who)
    asked = Program.of(store(DOORBELL, 4, 1, type=NGNRE, bar=DOORBELL_BAR))
    found = Behaviours(speculated(asked, [mapped], seed=0, most=1), rules)
    reads = sum(e.bit for e in found.effects if e.reads and e.event.bar == bar and offset <= e.offset < offset + WIDTH)
    checked = found.check([never_arrives(reads)])
    why = "; ".join(map(str, reaches([mapped])))
    register = f"bar{bar}+{offset:#x} {WIDTH}"
    return Read(register, ASKED.format(register), checked.count, checked.broken[0], why)
