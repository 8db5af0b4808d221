"""Interrupts: which eventfd is signalled how often, whatever client and device do, against the rules of VFIO."""

from __future__ import annotations

import contextlib
import os
import struct

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from .bench import MSI_VECTORS, MSIX_VECTORS
from .machine import LENGTH, ServedMachine
from .raw import REPLY, RESET, SET_IRQS, set_irqs

INTX, MSI, MSIX = 0, 1, 2
COUNTS = {INTX: 1, MSI: MSI_VECTORS, MSIX: MSIX_VECTORS}
NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER = 1, 2, 4, 8, 16, 32
KINDS = st.sampled_from(list(COUNTS))
PBA = 0x800


class Eventfd:
    """One that the client made, and the signals that it must have had."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.expected = self.seen = 0

    def look(self) -> int:
        """All signals so far."""
        with contextlib.suppress(BlockingIOError):
            self.seen += os.eventfd_read(self.fd)
        return self.seen


class InterruptsMachine(ServedMachine):
    """The client sets interrupts up; the device raises them."""

    def __init__(self) -> None:
        self.made: list[Eventfd] = []
        self.bus_master = self.disabled = False
        super().__init__()

    def connect(self) -> None:
        """Nothing is set up."""
        super().connect()
        self.vectors: dict[int, list[Eventfd | None]] = {kind: [None] * count for kind, count in COUNTS.items()}
        self.enabled = dict.fromkeys(COUNTS, False)
        self.forget_levels()
        self.bus_master = self.disabled = False

    def release(self) -> None:
        """All eventfds that the machine made."""
        for each in self.made:
            os.close(each.fd)

    def forget_levels(self) -> None:
        """As after a reset."""
        self.level = self.pulse = self.again = self.masked = self.automasked = False
        self.pending: set[int] = set()

    @property
    def mode(self) -> str:
        """The kind in use."""
        for kind, name in ((MSIX, "msix"), (MSI, "msi"), (INTX, "intx")):
            if self.enabled[kind]:
                return name
        return "none"

    def set_irqs(
        self, flags: int, kind: int, start: int, count: int, data: bytes = b"", fds: tuple[int, ...] = ()
    ) -> None:
        """A SET_IRQS that must work."""
        reply = self.run(self.raw.request(SET_IRQS, set_irqs(flags, kind, start, count, data), fds))
        assert reply.flags == REPLY, reply

    @rule(kind=KINDS, start=st.integers(0, MSIX_VECTORS - 1), count=st.integers(1, 16), given=st.booleans())
    def give(self, kind: int, start: int, count: int, given: bool) -> None:
        """Eventfds for some vectors, or none for them any more."""
        start %= COUNTS[kind]
        count = min(count, COUNTS[kind] - start)
        new = [Eventfd() if given else None for _ in range(count)]
        self.made += [each for each in new if each]
        self.set_irqs(EVENTFD | TRIGGER, kind, start, count, fds=tuple(each.fd for each in new if each))
        self.vectors[kind][start : start + count] = new
        self.enabled[kind] = kind != INTX or given
        if kind == MSIX:
            for vector in range(start, start + count):
                eventfd = self.vectors[kind][vector]
                if eventfd and vector in self.pending:
                    self.pending.discard(vector)
                    eventfd.expected += 1
        if kind == INTX:
            self.masked = self.automasked = False
            self.update()

    @rule(kind=KINDS)
    def disable(self, kind: int) -> None:
        """All of a kind."""
        self.set_irqs(NONE | TRIGGER, kind, 0, 0)
        self.vectors[kind] = [None] * COUNTS[kind]
        self.enabled[kind] = False
        if kind == INTX:
            self.masked = self.automasked = self.pulse = self.again = False
            self.update()

    @rule(kind=KINDS, chosen=st.lists(st.booleans(), min_size=1, max_size=MSIX_VECTORS))
    def trigger(self, kind: int, chosen: list[bool]) -> None:
        """The client's own test signal."""
        chosen = chosen[: COUNTS[kind]]
        self.set_irqs(BOOL | TRIGGER, kind, 0, len(chosen), bytes(chosen))
        for eventfd, wanted in zip(self.vectors[kind], chosen, strict=False):
            if eventfd and wanted:
                eventfd.expected += 1

    @rule(masked=st.booleans())
    def mask(self, masked: bool) -> None:
        """INTx; unmasking is the end of an interrupt."""
        self.set_irqs(NONE | (MASK if masked else UNMASK), INTX, 0, 1)
        self.masked = masked
        if not masked and self.automasked:
            self.automasked = False
            self.pulse, self.again = self.again, False
        self.update()

    @rule(bus_master=st.booleans(), disabled=st.booleans())
    def command(self, bus_master: bool, disabled: bool) -> None:
        """Bus Master Enable and Interrupt Disable."""
        self.run(self.raw.write(7, 4, struct.pack("<H", 4 * bus_master | 0x400 * disabled)))
        self.bus_master, self.disabled = bus_master, disabled
        self.update()

    @rule(vector=st.integers(0, MSIX_VECTORS))
    def fire(self, vector: int) -> None:
        """By the device."""
        if vector == MSIX_VECTORS:
            with pytest.raises(IndexError, match=f"vector must be 0 to {MSIX_VECTORS - 1}, not {vector}"):
                self.bench.interrupts.fire(vector)
            return
        eventfd: Eventfd | None = None
        raised = True
        if self.mode == "none" or (self.mode != "intx" and not self.bus_master):
            raised = False
        elif self.mode == "msix":
            eventfd = self.vectors[MSIX][vector]
            if eventfd is None:
                self.pending.add(vector)
        elif self.mode == "msi":
            last = max((n for n, each in enumerate(self.vectors[MSI]) if each), default=0)
            eventfd = self.vectors[MSI][min(vector, last)]
            raised = eventfd is not None
        else:
            self.again = self.again or self.pulse
            self.pulse = True
            self.update()
        if eventfd:
            eventfd.expected += 1
        assert self.bench.interrupts.fire(vector) == raised

    @rule(asserted=st.booleans())
    def line(self, asserted: bool) -> None:
        """INTx, by the device."""
        if asserted:
            self.level = True
            self.bench.interrupts.intx_assert()
        else:
            self.level = self.pulse = self.again = False
            self.bench.interrupts.intx_deassert()
        self.update()

    @rule()
    def reset(self) -> None:
        """Eventfds stay."""
        assert self.run(self.raw.request(RESET)).flags == REPLY
        self.forget_levels()
        self.bus_master = self.disabled = False

    @rule()
    def come_again(self) -> None:
        """Nothing stays."""
        self.disconnect()
        self.connect()

    def update(self) -> None:
        """A line that is asserted, and neither masked nor disabled, interrupts once and is masked."""
        eventfd = self.vectors[INTX][0]
        usable = eventfd is not None and not (self.masked or self.automasked or self.disabled)
        if eventfd and usable and (self.level or self.pulse) and self.mode == "intx":
            self.automasked = True
            eventfd.expected += 1

    @invariant()
    def signals(self) -> None:
        """On every eventfd there ever was."""
        assert [each.look() for each in self.made] == [each.expected for each in self.made]

    @invariant()
    def told(self) -> None:
        """What the guest can read: Interrupt Status, and the pending bits."""
        assert self.bench.interrupts.mode == self.mode
        status = self.run(self.raw.read(7, 6, 2))[0] & 8
        assert (status != 0) == (self.level or self.pulse)
        pending = int.from_bytes(self.run(self.raw.read(4, PBA, 8)), "little")
        assert {n for n in range(64) if pending >> n & 1} == self.pending


TestInterrupts = InterruptsMachine.TestCase
TestInterrupts.settings = LENGTH
