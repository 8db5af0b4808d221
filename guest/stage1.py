"""Stage 1 of a hypervisor's own processes, read from outside: which memory type maps an address (DDI 0487, D8.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..bridge.attributes import MemoryType
from .translation import Memory, walk

_E2H = 1 << 34
_TABLE = 0x0000_FFFF_FFFF_FFC0
"""TTBR0_EL2.BADDR; a first table may be smaller than a page."""


class Stopped(Memory, Protocol):
    """A machine that stands still: `GdbStub` has one."""

    async def register(self, name: str) -> int:
        """A system register by its name in the Arm ARM."""


async def host_types(machine: Stopped, addresses: Iterable[int]) -> dict[int, MemoryType | None] | None:
    """The types of virtual addresses of the process that runs the vCPU, None where nothing is mapped.

    A host that runs at EL2 itself (FEAT_VHE, HCR_EL2.E2H) leaves the process's tables in TTBR0_EL2 while the virtual
    machine runs. None as a whole: it does not, so that the tables cannot be seen; or their granule is not 4 KiB.
    """
    tcr = await machine.register("TCR_EL2")
    if not await machine.register("HCR_EL2") & _E2H or tcr >> 14 & 3:
        return None
    table, mair = await machine.register("TTBR0_EL2") & _TABLE, await machine.register("MAIR_EL2")
    bits = 64 - (tcr & 63)
    first = 4 - -(-(bits - 12) // 9)
    found: dict[int, MemoryType | None] = {}
    for address in addresses:
        leaf = await walk(machine, table, first, bits, address)
        found[address] = None if leaf is None else MemoryType.parse(f"{mair >> 8 * (leaf.entry >> 2 & 7) & 0xFF:02x}")
    return found
