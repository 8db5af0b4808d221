"""HELLO: what the guest is and what it found: CPU features, PCI devices and where their BARs are."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..bridge.errors import DefinitionError
from .plan import PLATFORM, Command, answer, body_of, message, within

FIXED = struct.Struct("<14Q2IQ")
PCI_DEVICE = struct.Struct("<HHII4x6Q6Q")

WINDOW_SHIFT = 32
"""Virtual windows are 4 GiB apart: stage-1 type n of the guest at (n + 1) << 32, the EL2 host window at 9 << 32."""
HOST_WINDOW = 9

_FIELDS = (
    ("fwb", "mmfr2", 40, 1),
    ("lse2", "mmfr2", 32, 1),
    ("mte", "pfr1", 8, 2),
    ("lse", "isar0", 20, 2),
    ("ls64", "isar1", 60, 1),
    ("xs", "isar1", 56, 1),
    ("dgh", "isar1", 48, 1),
)
"""Feature, ID_AA64 register, lowest bit of its field, least value that has the feature (DDI 0487, D24.2)."""


class PciFunction(NamedTuple):
    """One PCI function of bus 0, as the guest configured it."""

    vendor: int
    device: int
    class_code: int
    address: int
    """Offset of its configuration space in the ECAM: bus << 20 | device << 15 | function << 12."""
    bars: tuple[int, ...]
    """Physical addresses of the six BARs; 0 where there is none."""
    sizes: tuple[int, ...]


class Hello(NamedTuple):
    """The guest's answer: ID registers, a free area of RAM for tests, and the PCI functions of bus 0."""

    midr: int
    mmfr0: int
    mmfr1: int
    mmfr2: int
    pfr0: int
    pfr1: int
    isar0: int
    isar1: int
    isar2: int
    ctr: int
    dczid: int
    counter_hz: int
    scratch: int
    """Physical address of RAM that the guest leaves alone: the only RAM a script may write."""
    scratch_size: int
    under_test: int
    """Index in `functions` of the device whose BARs plans name; -1 if there is none."""
    functions: tuple[PciFunction, ...]
    mapping: int = 0
    """Where a driver of the guest's, a Linux, has mapped the device under test: a virtual address; 0: none has."""

    @property
    def features(self) -> frozenset[str]:
        """The features that matter here, by the names `Op.feature` uses: fwb, mte, lse, lse2, ls64, dgh, xs."""
        return frozenset(
            name for name, register, shift, least in _FIELDS if getattr(self, register) >> shift & 15 >= least
        )

    def find(self, vendor: int, device: int) -> PciFunction:
        """The first function with these numbers.

        Raises:
            LookupError: There is none.
        """
        for each in self.functions:
            if (each.vendor, each.device) == (vendor, device):
                return each
        found = ", ".join(f"{each.vendor:04x}:{each.device:04x}" for each in self.functions) or "no PCI function"
        raise LookupError(f"the guest must have a PCI function {vendor:04x}:{device:04x}, not {found}")

    def physical(self, bar: int, offset: int) -> int:
        """The physical address of a place in a BAR of the device under test, or in the platform range."""
        if bar == PLATFORM:
            return offset
        if self.under_test < 0:
            raise LookupError(f"a device must be under test to have BAR {bar}, not none")
        return self.functions[self.under_test].bars[bar] + offset

    def address(self, *, el: int, s1: int, bar: int, offset: int) -> int:
        """The virtual address that an experiment at this exception level uses: what FAR has if it faults there."""
        within("el", el, 0, 2)
        window = HOST_WINDOW if el == 2 else s1 + 1
        return (window << WINDOW_SHIFT) + self.physical(bar, offset)


def pack_hello(vendor: int = 0, device: int = 0) -> bytes:
    """A HELLO. With numbers other than 0 the device that has them comes under test instead of the probe.

    Raises:
        DefinitionError: A number does not fit 16 bits.
    """
    within("vendor", vendor, 0, 0xFFFF)
    within("device", device, 0, 0xFFFF)
    return message(Command.HELLO, [], device << 16 | vendor)


def unpack_hello(data: bytes) -> Hello:
    """The answer to a HELLO.

    Raises:
        GuestRefused: There is no such device.
        DefinitionError: This is no answer to a HELLO.
    """
    header, body = answer(Command.HELLO, data)
    body_of(body, FIXED.size + header.count * PCI_DEVICE.size)
    *fields, under_test, revision, mapping = FIXED.unpack_from(body)
    if revision != 1:
        raise DefinitionError(f"the guest's revision must be 1, not {revision}")
    functions = tuple(
        PciFunction(vendor, device, class_code, address, tuple(rest[:6]), tuple(rest[6:]))
        for vendor, device, class_code, address, *rest in PCI_DEVICE.iter_unpack(body[FIXED.size :])
    )
    return Hello._make((*fields, under_test if under_test < len(functions) else -1, functions, mapping))


def pack_off() -> bytes:
    """An OFF: the guest answers, then turns the machine off."""
    return message(Command.OFF, [])
