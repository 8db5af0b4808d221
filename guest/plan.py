"""The messages between the host and the bare-metal guest, packed and unpacked (little-endian, fixed-size entries).

One message is one command; its answer has the same 16-byte header. ``guest/baremetal/plan.h`` is the guest's side of
this file and a test compares the two. Offsets and sizes are in bytes, addresses are physical unless called virtual.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

from ..bridge.errors import DefinitionError
from .battery import BATTERY
from .operation import PAGE

MAGIC = 0x4E414C50
VERSION = 1
PLATFORM = 0xFF
"""The BAR number of a range that is no BAR: its offset is a physical address below 1 GiB."""

MAIR = bytes((0x00, 0x04, 0x08, 0x0C, 0x44, 0xBB, 0xFF, 0xF0))
"""The eight stage-1 types by index: the bytes of MAIR_EL1 and MAIR_EL2 (Arm ARM DDI 0487, D24.2)."""

MAX_RUN = 24576
"""Most entries of one RUN: its results fill the guest's answer buffer of 1 MiB."""
MAX_INSTALL = 4096

HEADER = struct.Struct("<IHHII")
INSTALL_ENTRY = struct.Struct("<BBBBIQII")
RUN_ENTRY = struct.Struct("<IHBBBBBBIQ")
RESULT = struct.Struct("<IBBHQQQQ")
CONTEXT = struct.Struct("<8Q")


class Command(IntEnum):
    """The command of a message."""

    INSTALL = 1
    RUN = 2
    WORKLOAD = 3
    SCRIPT = 4
    HELLO = 5
    OFF = 6


class Refusal(IntEnum):
    """Why the guest refused a message; the answer's ``argument``, 0 when it did not.

    ``count`` names the entry; for MEMSLOT it is the errno.
    """

    NONE = 0
    FORMAT = 1
    COMMAND = 2
    LENGTH = 3
    ENTRY = 4
    NO_FWB = 5
    TABLES = 6
    NO_DEVICE = 7
    MEMSLOT = 8


_REFUSALS = {
    Refusal.FORMAT: "the message's magic and version must be the guest's own",
    Refusal.COMMAND: "the guest knows no such command",
    Refusal.LENGTH: "the message's length must match its entry count and the guest's buffers",
    Refusal.ENTRY: "entry {count} names a BAR, page or type that the guest does not have",
    Refusal.NO_FWB: "the CPU has no FEAT_S2FWB: FWB must be 0",
    Refusal.TABLES: "entry {count} needs more page tables than the guest has",
    Refusal.NO_DEVICE: "the guest found no device with that vendor and device number",
    Refusal.MEMSLOT: "KVM does not take the memslot, errno {count}",
}


class GuestRefused(RuntimeError):
    """The guest refused a message; `reason` says why, `count` is the number that came with it."""

    def __init__(self, reason: Refusal, count: int) -> None:
        super().__init__("the guest refused a message: " + _REFUSALS[reason].format(count=count))
        self.reason, self.count = reason, count


class Fault(IntFlag):
    """Ways to break the guest on purpose, for tests that see whether the verdicts notice. Argument of INSTALL."""

    NONE = 0
    WRONG_MAIR = 1 << 8
    """Slots 1 (Device-nGnRE) and 4 (Normal-NC) of MAIR_EL1 and MAIR_EL2 are exchanged."""
    SKIP_TLBI = 1 << 9
    """No TLB entry is ever invalidated: neither by this INSTALL nor before an experiment."""
    EL1_AT_EL2 = 1 << 10
    """Experiments for EL1 run at EL2, in the host window."""


class Asked(IntFlag):
    """What a VMM asks for pages: `enum ask` of the bare-metal guest's hypervisor.h."""

    NOTHING = 0
    WRITE_COMBINE = 1
    SPECULATION = 2
    CACHEABLE = 4


class Status(IntEnum):
    """How one experiment ended."""

    DONE = 0
    FAULT = 1
    UNDEFINED = 2
    BAD_ENTRY = 3
    """The entry names no operation, no BAR, or an exception level the operation cannot run at: nothing was run."""


class RunFlag(IntFlag):
    """Flags of an experiment."""

    NONE = 0
    WARM = 1
    """After the TLBI, an aligned 8-byte load of the eight bytes the access starts in; a crossing operation makes
    another, of the first eight bytes of the next page. Without effect on AT."""
    SKIP_TLBI = 2
    UNMARKED = 4
    """The MARK register is not written: the device's log tells this experiment from its neighbours by its slot."""


class ResultFlag(IntFlag):
    """Low byte of a result's flags. Bits 0-1 are the exception level the operation ran at."""

    WARM = 4
    TLBI = 8
    """A TLBI was executed before the operation."""
    IN_WARM_UP = 16
    """The fault is the warm-up load's; the operation was not run."""


class Range(NamedTuple):
    """Pages that INSTALL maps: everything else has no stage-2 mapping."""

    bar: int
    offset: int
    pages: int
    memattr: int
    """Stage-2 MemAttr[3:0]."""
    host: int
    """Index in `MAIR` of the type in the EL2 host window."""
    ask: Asked = Asked.NOTHING
    """Where the hypervisor is not the guest itself: what its VMM asks the kernel for."""


class Experiment(NamedTuple):
    """One execution of one operation of the battery."""

    mark: int
    """Written to the probe's MARK register first, unless 0; its low byte seeds the pattern."""
    op: int
    """Index in `battery.BATTERY`."""
    el: int
    s1: int
    """Index in `MAIR` of the guest's stage-1 type; without effect at EL2 except for AT S1E1x and S12E1x."""
    bar: int
    offset: int
    """Start of the slot, a multiple of 128; for a crossing operation the last slot of a page."""
    flags: int = 0
    bar2: int = 0
    """BAR, stage-1 type and offset of the doorbell, for operations that ring one."""
    s1_2: int = 0
    offset2: int = 0


class Result(NamedTuple):
    """What one experiment came to."""

    mark: int
    status: int
    level: int
    """The exception level that took the exception: 1 or 2; 0 if there was none."""
    flags: int
    esr: int
    far: int
    """Virtual address; `Hello.address` gives what it must be."""
    value0: int
    """What was loaded (first 16 bytes), or PAR_EL1."""
    value1: int

    @property
    def ran_at(self) -> int:
        """The exception level at which the operation ran, as the saved program status had it."""
        return self.flags & 3

    @property
    def instruction(self) -> int:
        """Index in the operation's ``asm`` of the instruction that took the exception."""
        return self.flags >> 8

    @property
    def tlbi(self) -> bool:
        """Whether a TLBI was executed before the operation."""
        return self.flags & 8 != 0  # ResultFlag.TLBI, as a plain number: it is asked for each experiment


class Context(NamedTuple):
    """System registers as the guest read them back when it answered an INSTALL or a RUN."""

    mair_el1: int
    mair_el2: int
    hcr_el2: int
    vtcr_el2: int
    tcr_el1: int
    sctlr_el1: int
    sctlr_el2: int
    current_el: int

    @property
    def fwb(self) -> bool:
        """HCR_EL2.FWB."""
        return bool(self.hcr_el2 >> 46 & 1)


class Runs(NamedTuple):
    """The answer to a RUN."""

    context: Context
    results: list[Result]


@dataclass(frozen=True, slots=True)
class Header:
    """The 16 bytes every message starts with."""

    magic: int
    command: int
    version: int
    count: int
    argument: int


def within(name: str, value: int, low: int, high: int) -> None:
    """Refuse a value outside low..high with a `DefinitionError`."""
    if not low <= value <= high:
        raise DefinitionError(f"{name} must be between {low} and {high}, not {value}")


def message(command: Command, entries: Sequence[bytes], argument: int = 0) -> bytes:
    """A message: the header, then the packed entries."""
    return HEADER.pack(MAGIC, command, VERSION, len(entries), argument) + b"".join(entries)


def answer(command: Command, data: bytes) -> tuple[Header, bytes]:
    """The header and body of an answer to this command.

    Raises:
        GuestRefused: The guest refused the command.
        DefinitionError: This is no answer to it.
    """
    if len(data) < HEADER.size:
        raise DefinitionError(f"an answer must have at least {HEADER.size} bytes, not {len(data)}")
    header = Header(*HEADER.unpack_from(data))
    if (header.magic, header.version) != (MAGIC, VERSION):
        raise DefinitionError(
            f"an answer must have magic {MAGIC:#x}, version {VERSION}, not {header.magic:#x}, {header.version}"
        )
    if header.argument:
        raise GuestRefused(Refusal(header.argument), header.count)
    if header.command != command:
        raise DefinitionError(f"an answer must be to command {command.name}, not {header.command}")
    return header, data[HEADER.size :]


def body_of(data: bytes, size: int) -> bytes:
    """The body, which must have this size.

    Raises:
        DefinitionError: It has not.
    """
    if len(data) != size:
        raise DefinitionError(f"the answer's body must have {size} bytes, not {len(data)}")
    return data


def pack_install(ranges: Iterable[Range], *, fwb: bool = False, faults: Fault = Fault.NONE) -> bytes:
    """An INSTALL: stage 2 and the EL2 host window become exactly these ranges.

    Raises:
        DefinitionError: A field is out of range.
    """
    entries = []
    for each in ranges:
        if each.bar not in (*range(6), PLATFORM):
            raise DefinitionError(f"bar must be between 0 and 5, or {PLATFORM} for a platform range, not {each.bar}")
        if each.offset < 0 or each.offset % PAGE:
            raise DefinitionError(f"offset must be a multiple of {PAGE}, not {each.offset}")
        within("pages", each.pages, 1, 1 << 18)
        within("memattr", each.memattr, 0, 15)
        within("host", each.host, 0, 7)
        within("ask", each.ask, 0, 7)
        entries.append(INSTALL_ENTRY.pack(each.bar, each.memattr, each.host, 1, each.pages, each.offset, each.ask, 0))
    within("number of ranges", len(entries), 0, MAX_INSTALL)
    return message(Command.INSTALL, entries, int(fwb) | faults)


def unpack_install(data: bytes) -> Context:
    """The answer to an INSTALL.

    Raises:
        GuestRefused: The guest could not do it.
        DefinitionError: This is no answer to an INSTALL.
    """
    _, body = answer(Command.INSTALL, data)
    return Context._make(CONTEXT.unpack(body_of(body, CONTEXT.size)))


def pack_run(experiments: Sequence[Experiment]) -> bytes:
    """A RUN of 1 to `MAX_RUN` experiments.

    Raises:
        DefinitionError: A field is out of range.
    """
    within("number of experiments", len(experiments), 1, MAX_RUN)
    pack = RUN_ENTRY.pack
    entries = []
    for mark, op, el, s1, bar, offset, flags, bar2, s1_2, offset2 in experiments:
        if not (0 <= op < len(BATTERY) and 0 <= el <= 2 and 0 <= s1 <= 7 and 0 <= s1_2 <= 7 and 0 <= flags <= 7):
            within("op", op, 0, len(BATTERY) - 1)
            within("el", el, 0, 2)
            within("s1", s1, 0, 7)
            within("s1_2", s1_2, 0, 7)
            within("flags", flags, 0, 7)
        try:
            entries.append(pack(mark, op, el, s1, flags, bar, bar2, s1_2, offset2, offset))
        except struct.error as error:
            raise DefinitionError(
                f"mark, bar, offset and bar2 must be unsigned and fit their fields: {error}"
            ) from None
    return message(Command.RUN, entries)


def unpack_run(data: bytes) -> Runs:
    """The answer to a RUN, one result an experiment, in order.

    Raises:
        GuestRefused: The guest could not do it.
        DefinitionError: This is no answer to a RUN.
    """
    header, body = answer(Command.RUN, data)
    body_of(body, CONTEXT.size + header.count * RESULT.size)
    context = Context._make(CONTEXT.unpack_from(body))
    return Runs(context, [Result._make(fields) for fields in RESULT.iter_unpack(body[CONTEXT.size :])])
