"""A GICv3 with an ITS, set up by a guest's scripts: a device's MSI-X interrupts reach the guest.

Registers are where the `virt` machine has them; a virtual machine of KVM's has them in the same places. Tables and
commands are in the guest's scratch area (Arm GIC architecture, IHI 0069H: 5 LPIs, 12.19 GITS registers, 5.3 commands).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..commander import Guest
from ..hello import Hello, PciFunction
from ..script import Action, Space, Step

DISTRIBUTOR, ITS, REDISTRIBUTOR = 0x0800_0000, 0x0808_0000, 0x080A_0000
TRANSLATER = ITS + 0x1_0040
FIRST_LPI = 8192
_AREA = 0x10_0000
"""Offset in the scratch area, from where all of this is."""
_DEVICES, _COLLECTIONS, _PENDING, _COMMANDS, _PROPERTIES, _ENTRIES = (0x1_0000 * index for index in range(6))
"""Offsets there: what starts at a multiple of 64 KiB suits every ITS, whatever its pages are."""
_LPI_BITS = 14
_PRIORITY_ENABLED = 0xA1
_VALID = 1 << 63
_PAGES_64K = 2 << 8
_MSIX, _MSIX_ENABLED = 0x11, 0x8000
_COMMAND_REGISTER, _STATUS, _CAPABILITIES = 0x04, 0x06, 0x34
_MEMORY_AND_MASTER = 6


@dataclass(frozen=True)
class Message:
    """A vector's message as the device has it, and the number of the interrupt that the guest gets."""

    vector: int
    number: int


class Its:
    """The interrupts of one guest."""

    def __init__(self, guest: Guest, hello: Hello) -> None:
        """Nothing is done yet."""
        self._guest, self._hello = guest, hello
        self._base = hello.scratch + _AREA
        self._next = FIRST_LPI
        self._queued = 0

    async def start(self) -> None:
        """Switch on LPIs and the ITS. Raises `StepFailed`."""
        base = self._base
        await self._guest.steps(
            [
                self._mmio(DISTRIBUTOR, 0x12, 4),  # GICD_CTLR: ARE_NS, EnableGrp1A
                self._mmio(REDISTRIBUTOR + 0x14, 0, 4),  # GICR_WAKER
                self._mmio(REDISTRIBUTOR + 0x70, base + _PROPERTIES | _LPI_BITS - 1),
                self._mmio(REDISTRIBUTOR + 0x78, base + _PENDING | 1 << 62),  # the table is zero
                self._mmio(REDISTRIBUTOR, 1, 4),  # GICR_CTLR.EnableLPIs
                self._mmio(ITS + 0x100, _VALID | base + _DEVICES | _PAGES_64K),  # GITS_BASER0, 1: by what they are
                self._mmio(ITS + 0x108, _VALID | base + _COLLECTIONS | _PAGES_64K),
                self._mmio(ITS + 0x80, _VALID | base + _COMMANDS),
                self._mmio(ITS + 0x88, 0),
                self._mmio(ITS, 1, 4),
                *self._command(0x09, 0, 0, _VALID),  # MAPC: collection 0 is CPU 0's
                *self._run(),
            ]
        )

    async def enable(self, function: PciFunction, vectors: int) -> list[Message]:
        """Switch on a function's MSI-X and its first vectors; BARs and configuration space are the guest's to have.

        Raises:
            StepFailed: The guest could not reach a register, or MSI-X does not stay enabled: a TIMEOUT.
            LookupError: The function has no MSI-X.
        """
        capability = await self._capability(function)
        table = await self._guest.read(Space.CONFIG, 4, function.address + capability + 4)
        start = function.bars[table & 7] + (table & ~7)
        identity = function.address >> 12
        messages = [Message(vector, self._next + vector) for vector in range(vectors)]
        self._next += vectors
        steps = self._command(0x08 | identity << 32, 5 - 1, self._base + _ENTRIES + 0x1000 * (identity >> 3), _VALID)
        for each in messages:
            properties = self._base + _PROPERTIES + each.number - FIRST_LPI
            steps += [
                Step(Action.WRITE, Space.RAM, 1, properties, _PRIORITY_ENABLED),
                *self._command(0x0A | identity << 32, each.vector | each.number << 32, 0, 0),  # MAPTI, collection 0
                *self._command(0x0C | identity << 32, each.vector, 0, 0),  # INV
            ]
            entry = start + 16 * each.vector
            words = (TRANSLATER & 0xFFFF_FFFF, TRANSLATER >> 32, each.vector, 0)
            steps += [self._mmio(entry + 4 * at, word, 4) for at, word in enumerate(words)]
        command = Step(Action.WRITE, Space.CONFIG, 2, function.address + _COMMAND_REGISTER, _MEMORY_AND_MASTER)
        control = function.address + capability + 2
        steps += [*self._run(), command, Step(Action.WRITE, Space.CONFIG, 2, control, _MSIX_ENABLED)]
        await self._guest.steps([*steps, Step(Action.WAIT, Space.CONFIG, 2, control, _MSIX_ENABLED, _MSIX_ENABLED, 0)])
        return messages

    async def _capability(self, function: PciFunction) -> int:
        """The offset of MSI-X in configuration space (PCI Express 7.5.1.1.11, 7.7.2)."""
        config = function.address
        at = await self._guest.read(Space.CONFIG, 1, config + _CAPABILITIES)
        while at and await self._guest.read(Space.CONFIG, 1, config + at) != _MSIX:
            at = await self._guest.read(Space.CONFIG, 1, config + at + 1)
        if not at:
            raise LookupError(f"{function.vendor:04x}:{function.device:04x} must have MSI-X to send messages")
        return at

    def _command(self, word0: int, word1: int, word2: int, valid: int) -> list[Step]:
        """One command in the queue."""
        at = self._base + _COMMANDS + 32 * self._queued
        self._queued += 1
        words = (word0, word1, word2 | valid, 0)
        return [Step(Action.WRITE, Space.RAM, 8, at + 8 * index, word) for index, word in enumerate(words)]

    def _run(self) -> list[Step]:
        """Have the ITS do what is queued, and wait until it has: GITS_CREADR is where GITS_CWRITER is."""
        sync = self._command(0x05, 0, 0, 0)
        end = 32 * self._queued
        return [*sync, self._mmio(ITS + 0x88, end), Step(Action.WAIT, Space.MMIO, 8, ITS + 0x90, end)]

    @staticmethod
    def _mmio(address: int, value: int, size: int = 8) -> Step:
        return Step(Action.WRITE, Space.MMIO, size, address, value)
