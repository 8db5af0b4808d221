"""The probe: the instrument that guests measure attribute schemes with.

BAR 0 is trapped registers and doorbells, BAR 2 windows of every kind; what a report looks at is recorded, each
transaction of it. A guest fetches its orders and hands back results through the mailbox. `probe_map` has the numbers.
"""

from __future__ import annotations

import errno
from collections import deque

from ..bridge.config_image import PciId
from . import probe_map
from .bar import Bar
from .device import Device
from .doorbell import Doorbell
from .interrupts import Intx, Msi, MsiX
from .mailbox import Mailbox, Submission
from .probe_map import RANGES, MailboxCommand, MailboxStatus, Reg
from .registers import RC, RO, W1C, Field, Register, Registers
from .windows import Memory, WriteCombineWindow


class Control(Registers):
    """The probe's registers and doorbells."""

    id = Register(Reg.ID, access=RO, reset=probe_map.IDENTITY)
    version = Register(Reg.VERSION, access=RO, reset=probe_map.VERSION)
    scratch = Register(Reg.SCRATCH)
    mark = Register(Reg.MARK, record=True)
    wc_safe = Register(Reg.WC_SAFE, reserved=0xFFFF_0000)
    status = Register(Reg.STATUS, access=W1C)
    rung = Field(status, 0, probe_map.DOORBELLS)
    interrupt = Field(status, 8)
    reads = Register(Reg.READS, access=RC)
    irq = Register(Reg.IRQ)
    mailbox_address = Register(Reg.MAILBOX_ADDRESS, width=8)
    mailbox_capacity = Register(Reg.MAILBOX_CAPACITY)
    mailbox_length = Register(Reg.MAILBOX_LENGTH)
    mailbox_command = Register(Reg.MAILBOX_COMMAND)
    mailbox_status = Register(Reg.MAILBOX_STATUS, access=RO)
    mailbox_error = Register(Reg.MAILBOX_ERROR, access=RO)
    doorbell = Doorbell(Reg.DOORBELL, count=probe_map.DOORBELLS, stride=probe_map.DOORBELL_STRIDE, record=True)
    fifo = Register(Reg.FIFO, access=RO, record=True)
    fifo_level = Register(Reg.FIFO_LEVEL, access=RO, reset=0xFFFF_FFFF)


def _arena(name: str) -> Memory:
    return Memory(RANGES[name].arena_size, record=True)


class Probe(Device):
    """The device that guests are sent to."""

    identity = PciId(vendor=probe_map.VENDOR, device=probe_map.DEVICE, class_code=probe_map.CLASS_CODE)
    ranges = RANGES

    bar0 = Bar(Control, size=probe_map.BAR0_SIZE)
    control_arena = bar0.place(_arena("control"), RANGES["control"].arena_offset)
    doorbell_arena = bar0.place(_arena("doorbell"), RANGES["doorbell"].arena_offset)
    fifo_arena = bar0.place(_arena("fifo"), RANGES["fifo"].arena_offset)

    bar2 = Bar(
        WriteCombineWindow(RANGES["wc-mapped"].size, mapped=True), size=probe_map.BAR2_SIZE, bits=64, prefetchable=True
    )
    wc_trapped = bar2.place(WriteCombineWindow(RANGES["wc-trapped"].size, record=True), RANGES["wc-trapped"].offset)
    strict = bar2.place(_arena("strict"), RANGES["strict"].arena_offset)
    dynamic = bar2.place(_arena("dynamic"), RANGES["dynamic"].arena_offset)
    msix_arena = bar2.place(_arena("msix"), RANGES["msix"].arena_offset)

    intx = Intx()
    msi = Msi(vectors=probe_map.VECTORS)
    msix = MsiX(vectors=probe_map.VECTORS, bar=bar2, table=probe_map.MSIX_TABLE, pba=probe_map.MSIX_PBA)

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox(self.memory, self._collect)
        self.wc_safe_changes: deque[int] = deque(maxlen=1024)
        """The values written to WC_SAFE since the last reset, the newest 1024."""

    def on_reset(self) -> None:
        """Fail what a guest fetched from the mailbox and did not answer."""
        self.mailbox.reset()
        self.wc_safe_changes.clear()

    @property
    def wc_safe_pages(self) -> frozenset[int]:
        """The pages of the range `dynamic` that are write-combining-safe now."""
        return frozenset(page for page in range(16) if self.bar0.wc_safe >> page & 1)

    def _collect(self, data: bytes) -> Submission:
        window = bytes(self.bar2.memory)
        self.bar2.memory[:] = bytes(len(window))
        return Submission(data, self.endpoint.recorder.drain(), window)

    @Control.wc_safe.on_write
    def change_wc_safe(self, value: int) -> None:
        """Remember what became of WC_SAFE."""
        self.wc_safe_changes.append(value)

    @Control.fifo.on_read
    def pop(self) -> int:
        """Give the next number: the side effect that shows a read that nobody asked for."""
        number = 0xFFFF_FFFF - self.bar0.fifo_level
        self.bar0.fifo_level = max(0, self.bar0.fifo_level - 1)
        self.bar0.reads = min(self.bar0.reads + 1, 0xFFFF_FFFF)
        return number

    @Control.doorbell.rung
    def ring(self, index: int, value: int) -> None:
        """Say in STATUS which doorbell rang."""
        self.bar0.rung |= 1 << index

    @Control.irq.on_write
    def raise_interrupt(self, vector: int) -> None:
        """Fire the vector that is written, of what the guest enabled; a vector that the probe does not have is none."""
        self.bar0.interrupt = 1
        if vector < probe_map.VECTORS:
            self.interrupts.fire(vector)

    @Control.mailbox_command.on_write
    def exchange(self, command: int) -> None:
        """Carry out FETCH or SUBMIT, within the write: DMA through mapped memory only."""
        registers = self.bar0
        address, capacity, error = registers.mailbox_address, registers.mailbox_capacity, 0
        if command == MailboxCommand.FETCH:
            status, registers.mailbox_length, error = self.mailbox.fetch(address, capacity)
        elif command == MailboxCommand.SUBMIT:
            status, error = self.mailbox.submit(address, registers.mailbox_length, capacity)
        else:
            status, error = MailboxStatus.REFUSED, errno.EINVAL
        registers.mailbox_status, registers.mailbox_error = status, error
