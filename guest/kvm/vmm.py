"""The VMM's registers, as a guest's script has them: DMA addresses, memslots to try, pages to map anew while it runs.

`guest/baremetal/hypervisor.h` has the other side.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

from ..commander import Guest
from ..hello import Hello
from ..plan import INSTALL_ENTRY, Range
from ..script import Action, Space, Step

BASE = 0x0B00_0000
_DMA, _REMAP, _TRY = BASE + 0x08, BASE + 0x28, BASE + 0x30
_REQUEST = struct.Struct("<QQIIIII4x")
_ROOM = 0x100
"""Bytes of the scratch area for one request: its struct and its entries."""


class Trial(IntEnum):
    """Memslots that KVM is asked to take: `enum trial`."""

    BAR = 0
    PIECES = 1
    LOGGED_BAR = 2
    LOGGED_RAM = 3
    TAGGED_BAR = 4
    TAGGED_RAM = 5


class Vmm:
    """The VMM that a guest runs under."""

    def __init__(self, guest: Guest, hello: Hello) -> None:
        """Requests are put into the last 4 KiB of the guest's scratch area."""
        self._guest, self._hello = guest, hello
        self._room = hello.scratch + hello.scratch_size - 0x1000

    async def dma(self, address: int) -> int:
        """By which address a device reaches an address in RAM; 0: by none."""
        return await self._ask(_DMA, address)

    async def try_slot(self, trial: Trial) -> int:
        """The errno that KVM gives for a memslot; 0 when it takes it. ENOTSUP: it has no MTE."""
        return await self._ask(_TRY, trial)

    async def remap(
        self, ranges: Sequence[Range], register: int, *, value: int, done: int, failed: int, number: int = 0
    ) -> None:
        """Have pages mapped anew as soon as a 4-byte register has ``value``; ``done`` or ``failed`` is written to it.

        ``register`` is its physical address, in a BAR; ``number`` is the PCI device, on bus 0, whose pages they are.
        """
        entries = [
            INSTALL_ENTRY.pack(each.bar, each.memattr, each.host, 1, each.pages, each.offset, each.ask, 0)
            for each in ranges
        ]
        where = self._room
        request = _REQUEST.pack(where + _REQUEST.size, register, len(entries), number, value, done, failed)
        data = request + b"".join(entries)
        if len(data) > _ROOM:
            raise ValueError(f"ranges must fit into {_ROOM} bytes, not {len(ranges)} of them")
        await self._guest.steps([*_store(where, data), Step(Action.WRITE, Space.MMIO, 8, _REMAP, where)])

    async def _ask(self, register: int, value: int) -> int:
        write = Step(Action.WRITE, Space.MMIO, 8, register, value)
        return (await self._guest.steps([write, Step(Action.READ, Space.MMIO, 8, register)]))[1]


def _store(address: int, data: bytes) -> list[Step]:
    data += bytes(-len(data) % 8)
    return [
        Step(Action.WRITE, Space.RAM, 8, address + at, int.from_bytes(data[at : at + 8], "little"))
        for at in range(0, len(data), 8)
    ]
