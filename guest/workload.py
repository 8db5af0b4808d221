"""WORKLOAD: a poll-mode driver's push loop in the guest, 64-byte entries through a window, then a doorbell."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from ..bridge.errors import DefinitionError
from .plan import Command, Status, answer, body_of, message, within

REQUEST = struct.Struct("<BBBBBBBBQQIIIII4x")
RESULT = struct.Struct("<IBBHQQQ")
ENTRY_SIZE = 64


class Idiom(IntEnum):
    """How an entry is copied to the window."""

    IOWRITE64 = 0
    """Eight STR x, DGH: Linux ``__iowrite64_copy``."""
    IOWRITE32 = 1
    """Sixteen STR w, DGH."""
    ST1 = 2
    """One ST1 of four registers."""
    STP = 3
    """Four STP x."""
    MEMCPY = 4
    """Overlapping 16-byte stores at +0, +13, +29, +45 and +48, as a C library copies: three of them unaligned."""


class Barrier(IntEnum):
    """What stands between an entry and its doorbell."""

    NONE = 0
    DMB = 1
    """DMB OSHST"""
    DSB = 2
    """DSB ST"""
    DGH = 3


class Wish(IntEnum):
    """What a guest asks for the window's pages from a hypervisor that lets it ask, by a hypercall."""

    NONE = 0
    DEVICE = 1
    NORMAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One run of the loop.

    Entry ``i`` (from ``first``) goes to window_offset + (i % slots) * stride; then ``i + 1`` is written to the
    doorbell, 4 bytes. Stage-1 types are indexes in `plan.MAIR`; ``el`` is 0 (a DPDK process) or 1 (a kernel driver).
    Before its entry number ``wish_at``, counted from 0, the loop asks for ``wish``; it ends there when that is denied.
    """

    el: int
    idiom: Idiom
    barrier: Barrier
    window_s1: int
    window_bar: int
    window_offset: int
    doorbell_s1: int
    doorbell_bar: int
    doorbell_offset: int
    count: int
    slots: int
    stride: int = ENTRY_SIZE
    first: int = 0
    wish: Wish = Wish.NONE
    wish_at: int = 0


class Pushed(NamedTuple):
    """How far the loop came: entries pushed with their doorbell rung, and the fault that ended it, if one did."""

    pushed: int
    status: Status
    level: int
    ran_at: int
    esr: int
    far: int
    ticks: int
    """Time the loop took, in ticks of the guest's counter (`Hello.counter_hz`)."""


def entry(sequence: int) -> bytes:
    """The 64 bytes of an entry: sequence number u32, its complement u32, six u64 words, checksum u64.

    Word ``w`` (0..5) is (sequence + 1) * 0x9e3779b97f4a7c15 + w modulo 2**64; the checksum is the exclusive or of the
    first seven 8-byte words.
    """
    words = [(sequence & 0xFFFFFFFF) | (~sequence & 0xFFFFFFFF) << 32]
    words += [((sequence + 1) * 0x9E3779B97F4A7C15 + w) & (1 << 64) - 1 for w in range(6)]
    checksum = 0
    for word in words:
        checksum ^= word
    return struct.pack("<8Q", *words, checksum)


def pack_workload(workload: Workload) -> bytes:
    """A WORKLOAD message.

    Raises:
        DefinitionError: A field is out of range.
    """
    within("el", workload.el, 0, 1)
    within("count", workload.count, 1, (1 << 32) - 1)
    within("slots", workload.slots, 1, (1 << 32) - 1)
    within("window_s1", workload.window_s1, 0, 7)
    within("doorbell_s1", workload.doorbell_s1, 0, 7)
    if workload.wish and workload.el != 1:
        raise DefinitionError(f"el must be 1 for a loop that makes a hypercall, not {workload.el}")
    if workload.stride < ENTRY_SIZE or workload.stride % ENTRY_SIZE:
        raise DefinitionError(f"stride must be a multiple of {ENTRY_SIZE}, not {workload.stride}")
    if workload.window_offset < 0 or workload.window_offset % ENTRY_SIZE:
        raise DefinitionError(f"window_offset must be a multiple of {ENTRY_SIZE}, not {workload.window_offset}")
    if workload.doorbell_offset < 0 or workload.doorbell_offset % 4:
        raise DefinitionError(f"doorbell_offset must be a multiple of 4, not {workload.doorbell_offset}")
    packed = REQUEST.pack(
        workload.el,
        workload.idiom,
        workload.barrier,
        workload.window_s1,
        workload.window_bar,
        workload.doorbell_s1,
        workload.doorbell_bar,
        workload.wish,
        workload.window_offset,
        workload.doorbell_offset,
        workload.count,
        workload.slots,
        workload.stride,
        workload.first,
        workload.wish_at,
    )
    return message(Command.WORKLOAD, [packed])


def unpack_workload(data: bytes) -> Pushed:
    """The answer to a WORKLOAD.

    Raises:
        GuestRefused: The guest could not do it.
        DefinitionError: This is no answer to a WORKLOAD.
    """
    _, body = answer(Command.WORKLOAD, data)
    pushed, status, level, ran_at, esr, far, ticks = RESULT.unpack(body_of(body, RESULT.size))
    return Pushed(pushed, Status(status), level, ran_at, esr, far, ticks)
