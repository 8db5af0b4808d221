"""Where QEMU's TCG departs from the architecture: findings to report, never to inherit as expectations.

Each entry was measured on QEMU 11.1.3. A verdict consults these lists only after an observation was found to differ
from the architecture, and only the very observation that is listed is a *known deviation*. One that had its chance to
show and did not is reported as vanished, so that no entry outlives its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from ..bridge.attributes import DFSC_ALIGNMENT, Effect, Kind, Outcome

_NC_WITH_R = "QEMU answers nGnRE when one stage is Normal-NC and the other nGRE or GRE (FWB=0)"
_REPLACES = "with FWB=1 QEMU lets a stage-2 Device type replace a stage-1 Device type; the stricter must win"

ATTRIBUTES = MappingProxyType(
    {
        (0, "08", "5"): ("04", _NC_WITH_R),
        (0, "08", "9"): ("04", _NC_WITH_R),
        (0, "08", "d"): ("04", _NC_WITH_R),
        (0, "0c", "5"): ("04", _NC_WITH_R),
        (0, "0c", "9"): ("04", _NC_WITH_R),
        (0, "0c", "d"): ("04", _NC_WITH_R),
        (0, "44", "2"): ("04", _NC_WITH_R),
        (0, "44", "3"): ("04", _NC_WITH_R),
        (1, "00", "1"): ("04", _REPLACES),
        (1, "00", "2"): ("08", _REPLACES),
        (1, "00", "3"): ("0c", _REPLACES),
        (1, "04", "2"): ("08", _REPLACES),
        (1, "04", "3"): ("0c", _REPLACES),
        (1, "08", "3"): ("0c", _REPLACES),
    }
)
"""(FWB, stage-1 byte, stage-2 MemAttr): (the byte that QEMU's PAR_EL1 shows, why). All 14 of the 160 pairs."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One instruction that the architecture says must fault, as far as a deviation can depend on how it ran.

    ``warm``: the page had been accessed since the last TLBI. ``vector``: it is LDn or STn of Advanced SIMD.
    ``s2_device`` is None at EL2, which has one stage.
    """

    kind: Kind
    vector: bool
    warm: bool
    s1_device: bool
    s2_device: bool | None


@dataclass(frozen=True, slots=True)
class Deviation:
    """Something that QEMU does otherwise, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class AccessDeviation(Deviation):
    """A class of accesses that must fault and that QEMU treats otherwise.

    ``effect`` is what they come to instead; for a fault, the level it is taken to.
    """

    applies: Callable[[Trial], bool]
    effect: Effect
    level: int = 0

    def shown_by(self, observed: Outcome) -> bool:
        """Whether what was observed is what this deviation predicts."""
        if observed.effect is not self.effect:
            return False
        return self.effect is not Effect.FAULT or (observed.level == self.level and observed.dfsc == DFSC_ALIGNMENT)


ACCESSES: tuple[AccessDeviation, ...] = (
    AccessDeviation(
        "dc-zva-on-device",
        "QEMU does not check DC ZVA against the memory type: no alignment fault on Device",
        lambda trial: trial.kind is Kind.DC_ZVA,
        Effect.WORKS,
    ),
    AccessDeviation(
        "vector-elements-on-device",
        "QEMU does not check the alignment of the elements of LD1 and ST1 against the memory type",
        lambda trial: trial.vector,
        Effect.WORKS,
    ),
    AccessDeviation(
        "warm-device-over-normal",
        "once the page is in QEMU's TLB, alignment is checked by stage 2's own type alone: Device over Normal passes",
        lambda trial: trial.warm and trial.s1_device and trial.s2_device is False,
        Effect.WORKS,
    ),
    AccessDeviation(
        "warm-normal-over-device",
        "once the page is in QEMU's TLB, an alignment fault that is stage 2's is taken to EL1, not EL2",
        lambda trial: trial.warm and not trial.s1_device and trial.s2_device is True,
        Effect.FAULT,
        1,
    ),
)
"""Faults that QEMU does not take, or takes elsewhere. The first that applies is the one that must show."""

EXCLUSIVE_STORE_READS = Deviation(
    "exclusive-store-reads",
    "QEMU carries out STXR as a compare-and-swap, so the device sees a read that the program did not make",
)
"""Seen in the transactions, on trapped memory of every type."""
