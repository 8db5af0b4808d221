"""Stage 2 as a hypervisor installed it: its registers and tables, read from outside (Arm ARM DDI 0487, D8.3)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import QemuError
from .gdbstub import GdbStub
from .translation import Memory, Snapshot, walk

_PATIENCE = 20.0
"""Seconds: a virtual machine that waits for its next command is seldom running."""
_VM, _TGE, _FWB = 1, 1 << 27, 1 << 46


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A leaf of stage 2: the level it is at (3 is a page), MemAttr[3:0], S2AP[1:0] (1 read, 2 write), and where to."""

    level: int
    memattr: int
    access: int
    output: int
    """The physical address of the page that was looked up."""


@dataclass(frozen=True)
class Tables:
    """VTTBR_EL2, VTCR_EL2, HCR_EL2 while a virtual machine runs, and descriptors by page: None for no mapping."""

    vttbr: int
    vtcr: int
    hcr: int
    pages: dict[int, Descriptor | None]

    @property
    def fwb(self) -> bool:
        """HCR_EL2.FWB."""
        return bool(self.hcr & _FWB)


async def read_tables(stub: GdbStub, addresses: Iterable[int]) -> Tables:
    """Stop the machine in its virtual machine, and look up the pages at these guest physical addresses.

    Raises:
        QemuError: The machine was never in a virtual machine when it was stopped.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        hcr, level = await stub.register("HCR_EL2"), await stub.register("CPSR") >> 2 & 3
        if level < 2 and hcr & _VM and not hcr & _TGE:
            break
        if time.monotonic() > deadline:
            raise QemuError(
                "the machine must be in its virtual machine when it is stopped, not always in its hypervisor"
            )
        await stub.run_on(0.001)
    vttbr, vtcr = await stub.register("VTTBR_EL2"), await stub.register("VTCR_EL2")
    memory = Snapshot(stub)
    pages = {address: await look_up(memory, vttbr, vtcr, address) for address in addresses}
    return Tables(vttbr, vtcr, hcr, pages)


async def look_up(memory: Memory, vttbr: int, vtcr: int, address: int) -> Descriptor | None:
    """The descriptor of a guest physical address, for a granule of 4 KiB; None where there is no valid one.

    Raises:
        QemuError: The tables have another granule.
    """
    if vtcr >> 14 & 3:
        raise QemuError(f"stage 2 must have a granule of 4 KiB, not VTCR_EL2.TG0 = {vtcr >> 14 & 3}")
    leaf = await walk(memory, vttbr & 0x0000_FFFF_FFFF_FFFE, 2 - (vtcr >> 6 & 3), 64 - (vtcr & 63), address)
    return leaf and Descriptor(leaf.level, leaf.entry >> 2 & 15, leaf.entry >> 6 & 3, leaf.output)
