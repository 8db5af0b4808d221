"""Interrupts: the eventfds that the client gave for a device's vectors, and which of them the guest uses.

vfio-user, section "VFIO_USER_DEVICE_SET_IRQS"; the levels of INTx as VFIO has them (AUTOMASKED).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Literal

from .errors import DefinitionError
from .hotpath._native import ffi, lib
from .regions import Region
from .wire import IrqFlag, IrqIndex, IrqSet

Mode = Literal["msix", "msi", "intx", "none"]

_ACTIONS = IrqSet.MASK | IrqSet.UNMASK | IrqSet.TRIGGER
_DATA = IrqSet.DATA_NONE | IrqSet.DATA_BOOL | IrqSet.DATA_EVENTFD


class Interrupts:
    """The interrupts of a device.

    Args:
        intx: the device has an INTx pin.
        msi: number of MSI vectors, 0 for none.
        msix: number of MSI-X vectors, 0 for none.
        pba: region and offset of the MSI-X pending bits; a vector that fires while it has no eventfd is pending there.
    """

    def __init__(
        self, *, intx: bool = False, msi: int = 0, msix: int = 0, pba: tuple[Region, int] | None = None
    ) -> None:
        for name, count, limit in (("msi", msi, 32), ("msix", msix, 2048)):
            if not 0 <= count <= limit:
                raise DefinitionError(f"{name} must be 0 to {limit} vectors, not {count}")
        if msix and pba is None:
            raise DefinitionError(f"pba must be given for {msix} MSI-X vectors, not None")
        self.counts: dict[IrqIndex, int] = {
            IrqIndex.INTX: int(intx),
            IrqIndex.MSI: msi,
            IrqIndex.MSIX: msix,
            IrqIndex.ERR: 1,
            IrqIndex.REQ: 0,
        }
        self.on_intx_status: Callable[[bool], None] | None = None
        """Called when the INTx line's state changes: the Interrupt Status bit of the config space."""
        self.on_raised: Callable[[str, bool], None] | None = None
        """Called when the device raises an interrupt here, not in C: with its name, and whether the guest takes it."""
        self.msix_eventfds = ffi.new("int32_t[]", [-1] * msix)
        """For C: of each MSI-X vector the eventfd, or -1 where firing takes more than to write to one."""
        self.same_user = True
        """The client is the server's own user's, who could stop the server anyway: C may write to its eventfds, which
        it could have block (see `signal.c`)."""
        self._bus_master = True
        self._in_use = False  # the client set something up
        self._told = False  # C has eventfds
        self._pba = pba
        self._eventfds: dict[IrqIndex, list[int | None]] = {index: [None] * n for index, n in self.counts.items()}
        self._enabled: dict[IrqIndex, bool] = dict.fromkeys(self.counts, False)
        self._maskfds: dict[IrqSet, int] = {}
        self._level = False
        self._pulse = False  # fire() while INTx is in use: asserted until the client's end-of-interrupt
        self._again = False  # and once more after it
        self._masked = False
        self._automasked = False
        self._intx_disabled = False
        self._status = False

    @property
    def mode(self) -> Mode:
        """The kind of interrupt that the guest enabled."""
        if self._enabled[IrqIndex.MSIX]:
            return "msix"
        if self._enabled[IrqIndex.MSI]:
            return "msi"
        return "intx" if self._enabled[IrqIndex.INTX] else "none"

    @property
    def bus_master(self) -> bool:
        """Bus Master Enable of the Command register; the config space sets it."""
        return self._bus_master

    @bus_master.setter
    def bus_master(self, enabled: bool) -> None:
        self._bus_master = enabled
        self._tell_c()

    @property
    def intx_asserted(self) -> bool:
        """The INTx line's state, which the guest sees as Interrupt Status; Interrupt Disable does not change it."""
        return self._level or self._pulse

    @property
    def intx_disabled(self) -> bool:
        """The Interrupt Disable bit of the Command register; the config space sets it."""
        return self._intx_disabled

    @intx_disabled.setter
    def intx_disabled(self, disabled: bool) -> None:
        self._intx_disabled = disabled
        self._update_intx()

    def flags(self, index: IrqIndex) -> IrqFlag:
        """The flags of GET_IRQ_INFO."""
        if index == IrqIndex.INTX:
            return IrqFlag.EVENTFD | IrqFlag.MASKABLE | IrqFlag.AUTOMASKED
        return IrqFlag.EVENTFD

    def fire(self, vector: int = 0) -> bool:
        """Raises an interrupt of the kind that the guest enabled; False when none was raised, for it enabled none.

        MSI and MSI-X are memory writes: without bus mastering they are lost (PCIe 7.5.1.1.3).

        An MSI-X vector without an eventfd becomes pending instead. A guest that enabled fewer MSI vectors than the
        device has gets the higher ones as its last. INTx, which has no vectors, is asserted until the client's
        end-of-interrupt.

        Raises:
            IndexError: the device has no such vector.
        """
        sent = self._fire(vector)
        if self.on_raised is not None:
            names = {"msix": f"MSI-X {vector}", "msi": f"MSI {vector}", "intx": "INTx"}
            self.on_raised(names.get(self.mode, f"interrupt {vector}"), sent)
        return sent

    def _fire(self, vector: int) -> bool:
        mode = self.mode
        limit = max(self.counts[IrqIndex.MSIX], self.counts[IrqIndex.MSI], self.counts[IrqIndex.INTX])
        if not 0 <= vector < limit:
            raise IndexError(f"vector must be 0 to {limit - 1}, not {vector}")
        if mode in ("msix", "msi") and not self.bus_master:
            return False
        if mode == "msix":
            return self._fire_msix(vector)
        if mode == "msi":
            eventfds = self._eventfds[IrqIndex.MSI]
            last = max((n for n, fd in enumerate(eventfds) if fd is not None), default=0)
            return _signal(eventfds[min(vector, last)])
        if mode == "none":
            return False
        if self._pulse:
            self._again = True
        self._pulse = True
        self._update_intx()
        return True

    def intx_assert(self) -> None:
        """Asserts the INTx line, until `intx_deassert`: the interrupt comes again after each end-of-interrupt."""
        self._level = True
        self._update_intx()
        if self.on_raised is not None:
            self.on_raised("INTx", self.mode == "intx")

    def intx_deassert(self) -> None:
        """Deasserts the INTx line."""
        self._level = self._pulse = self._again = False
        self._update_intx()

    def error(self) -> bool:
        """Tells the client that the device failed beyond recovery (ERR); False when the client does not listen."""
        return _signal(self._eventfds[IrqIndex.ERR][0])

    def set_irqs(self, flags: int, index: int, start: int, count: int, data: bytes, fds: list[int]) -> None:
        """Does a SET_IRQS. Descriptors that are kept are taken out of `fds`; the rest stays the caller's.

        Raises:
            OSError: EINVAL, for what the protocol or the device does not have.
        """
        action, form = IrqSet(flags & _ACTIONS), IrqSet(flags & _DATA)
        one_each = flags & ~int(_ACTIONS | _DATA) == 0 and action.bit_count() == 1 and form.bit_count() == 1
        if not one_each or index not in self.counts or start + count > self.counts[IrqIndex(index)]:
            raise OSError(
                errno.EINVAL,
                f"SET_IRQS must be of vectors there are, not flags {flags:#x}, kind {index}, {count} from {start}",
            )
        self._in_use = True
        irq = IrqIndex(index)
        disable = action == IrqSet.TRIGGER and form == IrqSet.DATA_NONE and count == 0
        fits = len(fds) in ((0, count) if form == IrqSet.DATA_EVENTFD else (0,))
        fits = fits and len(data) >= (count if form == IrqSet.DATA_BOOL else 0)
        if not fits or not (count or disable) or not (action == IrqSet.TRIGGER or irq == IrqIndex.INTX):
            raise OSError(
                errno.EINVAL,
                f"SET_IRQS must be of a known form, not flags {flags:#x}, {count} vectors, "
                f"{len(fds)} file descriptors and {len(data)} bytes",
            )
        try:
            if disable:
                self._disable(irq)
            elif form == IrqSet.DATA_EVENTFD:
                self._take_eventfds(irq, action, start, count, fds)
            else:
                chosen = [start + n for n in range(count) if form == IrqSet.DATA_NONE or data[n]]
                self._act(irq, action, chosen)
        finally:
            self._tell_c()  # C must not know descriptors that are closed by now, whatever came of the rest

    def reset(self) -> None:
        """Deasserts INTx and forgets what is pending, as a device reset does; the client's eventfds stay."""
        self.intx_deassert()
        self._masked = self._automasked = False
        if self._pba is not None:
            region, offset = self._pba
            length = (self.counts[IrqIndex.MSIX] + 63) // 64 * 8
            region.memory[offset : offset + length] = bytes(length)

    def drop(self) -> None:
        """Forgets all that the client set up: it left."""
        if not self._in_use:
            return
        self._in_use = False
        for index in self.counts:
            self._disable(index)
        for action in list(self._maskfds):
            self._unwatch(action)
        self._tell_c()

    def _tell_c(self) -> None:
        usable = self.mode == "msix" and self._bus_master and self.same_user
        if not usable and not self._told:
            return
        self._told = usable
        for vector, fd in enumerate(self._eventfds[IrqIndex.MSIX]):
            self.msix_eventfds[vector] = fd if usable and fd is not None else -1

    def _take_eventfds(self, irq: IrqIndex, action: IrqSet, start: int, count: int, fds: list[int]) -> None:
        for fd in fds:
            _check_eventfd(fd)
            os.set_blocking(fd, False)  # for the writes of C
        given: list[int | None] = [*fds] or [None] * count
        fds.clear()
        if action != IrqSet.TRIGGER:
            self._unwatch(action)
            if given[0] is not None:
                self._watch(action, given[0])
            return
        eventfds = self._eventfds[irq]
        for vector, eventfd in enumerate(given, start):
            old, eventfds[vector] = eventfds[vector], eventfd
            if old is not None:
                os.close(old)
        self._enabled[irq] = irq in (IrqIndex.MSI, IrqIndex.MSIX) or eventfds[0] is not None
        if irq == IrqIndex.MSIX:
            for vector in range(start, start + count):
                if eventfds[vector] is not None and self._pending(vector, False):
                    _signal(eventfds[vector])
        elif irq == IrqIndex.INTX:
            self._masked = self._automasked = False
            self._update_intx()

    def _act(self, irq: IrqIndex, action: IrqSet, vectors: list[int]) -> None:
        if action == IrqSet.TRIGGER:
            for vector in vectors:
                _signal(self._eventfds[irq][vector])
        elif vectors:
            self._mask(action == IrqSet.MASK)

    def _mask(self, masked: bool) -> None:
        self._masked = masked
        if not masked and self._automasked:  # the end of the interrupt
            self._automasked = False
            self._pulse, self._again = self._again, False
        self._update_intx()

    def _update_intx(self) -> None:
        eventfd = self._eventfds[IrqIndex.INTX][0] if self.counts[IrqIndex.INTX] else None
        usable = eventfd is not None and not (self._masked or self._automasked or self._intx_disabled)
        if self.intx_asserted and usable and self.mode == "intx":
            self._automasked = True
            _signal(eventfd)
        if self.intx_asserted != self._status:
            self._status = self.intx_asserted
            if self.on_intx_status is not None:
                self.on_intx_status(self._status)

    def _fire_msix(self, vector: int) -> bool:
        eventfd = self._eventfds[IrqIndex.MSIX][vector]
        return _signal(eventfd) if eventfd is not None else self._pending(vector, True) or True

    def _pending(self, vector: int, pending: bool) -> bool:
        """Sets or clears a vector's pending bit; what it was."""
        assert self._pba is not None
        region, offset = self._pba
        at, bit = offset + vector // 8, 1 << vector % 8
        before = region.memory[at]
        region.memory[at] = before | bit if pending else before & ~bit
        return bool(before & bit)

    def _disable(self, irq: IrqIndex) -> None:
        eventfds = self._eventfds[irq]
        for vector, fd in enumerate(eventfds):
            if fd is not None:
                os.close(fd)
            eventfds[vector] = None
        self._enabled[irq] = False
        if irq == IrqIndex.INTX:
            self._masked = self._automasked = False
            self._pulse = self._again = False
            self._update_intx()

    def _watch(self, action: IrqSet, fd: int) -> None:
        """Masks or unmasks INTx each time the client signals `fd`."""

        def signalled() -> None:
            try:
                os.preadv(fd, [bytearray(8)], -1, os.RWF_NOWAIT)  # the client may have read it, and cleared O_NONBLOCK
            except BlockingIOError:
                return
            self._mask(action == IrqSet.MASK)

        asyncio.get_running_loop().add_reader(fd, signalled)
        self._maskfds[action] = fd

    def _unwatch(self, action: IrqSet) -> None:
        fd = self._maskfds.pop(action, None)
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)


def _check_eventfd(fd: int) -> None:
    """Raises OSError, EINVAL, for what another kind of file is: to signal it could do anything, or block."""
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if kind != "anon_inode:[eventfd]":
        raise OSError(errno.EINVAL, f"SET_IRQS must carry eventfds, not {kind}")


def _signal(eventfd: int | None) -> bool:
    if eventfd is None:
        return False
    status = lib.pvu_signal(eventfd)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return True
