"""Stage 1 of a hypervisor's processes and of a guest's kernel, read from outside: the memory types (DDI 0487, D8.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ...bridge.attributes import MemoryType
from ..errors import QemuError
from .stage2 import Tables, look_up
from .translation import Memory, Snapshot, walk

_E2H = 1 << 34
_TABLE = 0x0000_FFFF_FFFF_FFC0
"""TTBR0_EL2.BADDR, TTBR1_EL1.BADDR; a first table may be smaller than a page."""
_TG1_4K = 2


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
    bits, memory = 64 - (tcr & 63), Snapshot(machine)
    found: dict[int, MemoryType | None] = {}
    for address in addresses:
        leaf = await walk(memory, table, _first_level(bits), bits, address)
        found[address] = None if leaf is None else _type(mair, leaf.entry)
    return found


class Mapping(NamedTuple):
    """What stage 1 makes of a virtual address: the type, and the guest physical address of its page."""

    type: MemoryType
    address: int


class _GuestMemory:
    """Guest physical memory, through stage 2."""

    def __init__(self, machine: Memory, tables: Tables) -> None:
        self._machine, self._tables = machine, tables

    async def memory(self, address: int, size: int) -> bytes:
        """So many bytes from an address, which must not cross a page. Raises `QemuError` where stage 2 has nothing."""
        found = await look_up(self._machine, self._tables.vttbr, self._tables.vtcr, address)
        if found is None:
            raise QemuError(f"the virtual machine's tables must be in its RAM, not at {address:#x}")
        return await self._machine.memory(found.output | address & 0xFFF, size)


async def kernel_mapping(machine: Stopped, tables: Tables, address: int) -> Mapping | None:
    """Look up an address of a guest's kernel, by TTBR1_EL1; None where nothing is mapped.

    ``tables`` were read while the machine stands in that virtual machine.

    Raises:
        QemuError: The tables have another granule than 4 KiB, or lie where stage 2 has nothing.
    """
    tcr = await machine.register("TCR_EL1")
    if tcr >> 30 & 3 != _TG1_4K:
        raise QemuError(f"stage 1 must have a granule of 4 KiB, not TCR_EL1.TG1 = {tcr >> 30 & 3}")
    table, mair = await machine.register("TTBR1_EL1") & _TABLE, await machine.register("MAIR_EL1")
    bits = 64 - (tcr >> 16 & 63)
    leaf = await walk(_GuestMemory(machine, tables), table, _first_level(bits), bits, address)
    return leaf and Mapping(_type(mair, leaf.entry), leaf.output)


def _first_level(bits: int) -> int:
    return 4 - -(-(bits - 12) // 9)


def _type(mair: int, entry: int) -> MemoryType:
    return MemoryType.parse(f"{mair >> 8 * (entry >> 2 & 7) & 0xFF:02x}")
