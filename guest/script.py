"""SCRIPT: a host's test drives the guest by hand: configuration space, MMIO and RAM, read, written or waited for."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from ..bridge.errors import DefinitionError
from .plan import Command, answer, body_of, message, within

ENTRY = struct.Struct("<BBBBIQQQ")
RESULT = struct.Struct("<IIQ")
MAX_STEPS = 4096


class Action(IntEnum):
    """What a step does."""

    READ = 0
    WRITE = 1
    WAIT = 2
    """Reads until (value read & mask) == value, or the time is over."""
    INTERRUPT = 3
    """Waits for an interrupt, takes it, acknowledges and ends it: ``value`` is its number. Or the time is over."""
    EXECUTE = 4
    """EL1 executes the instruction at a physical address, as Normal-NC: the step's ``esr``, and the level that took the
    exception as ``value``. Zeros are no instruction, so that memory that can be executed gives an ESR of 0x02000000."""


class Space(IntEnum):
    """Where a step does it."""

    CONFIG = 0
    """Address: an offset in the ECAM, `PciFunction.address` + register."""
    MMIO = 1
    """Address: physical, below 1 GiB (BARs are there); accessed as Device-nGnRnE at EL2."""
    RAM = 2
    """Address: physical; written only in the scratch area that HELLO names."""


class StepStatus(IntEnum):
    """How a step ended."""

    DONE = 0
    FAULT = 1
    TIMEOUT = 2
    BAD = 3


class Step(NamedTuple):
    """One access of ``size`` bytes (1, 2, 4 or 8), naturally aligned."""

    action: Action
    space: Space
    size: int
    address: int
    value: int = 0
    mask: int = (1 << 64) - 1
    timeout_us: int = 1_000_000


class Outcome(NamedTuple):
    """What a step came to: ``value`` is what was read; ``esr`` the syndrome of a fault."""

    status: StepStatus
    esr: int
    value: int


def pack_script(steps: Sequence[Step]) -> bytes:
    """A SCRIPT of 1 to `MAX_STEPS` steps, done in order.

    Raises:
        DefinitionError: A field is out of range.
    """
    within("number of steps", len(steps), 1, MAX_STEPS)
    entries = []
    for step in steps:
        if step.size not in (1, 2, 4, 8):
            raise DefinitionError(f"size must be 1, 2, 4 or 8, not {step.size}")
        if step.address < 0 or step.address % step.size:
            raise DefinitionError(f"address must be a multiple of size {step.size}, not {step.address:#x}")
        within("value", step.value, 0, (1 << 8 * step.size) - 1)
        within("timeout_us", step.timeout_us, 0, 60_000_000)
        entries.append(
            ENTRY.pack(
                step.action,
                step.size,
                step.space,
                0,
                step.timeout_us,
                step.address,
                step.value,
                step.mask & ((1 << 64) - 1),
            )
        )
    return message(Command.SCRIPT, entries)


def unpack_script(data: bytes) -> list[Outcome]:
    """The outcomes, one a step.

    Raises:
        GuestRefused: The guest could not do it.
        DefinitionError: This is no answer to a SCRIPT.
    """
    header, body = answer(Command.SCRIPT, data)
    body_of(body, header.count * RESULT.size)
    return [Outcome(StepStatus(status), esr, value) for status, esr, value in RESULT.iter_unpack(body)]
