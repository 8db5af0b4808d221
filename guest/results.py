"""What a matrix run found: the records that the table, the HTML report and the JSON file are made from.

The JSON document is these structures, field by field. Attribute bytes are two lower-case hexadecimal digits in the
encoding of MAIR_ELx and PAR_EL1 (Arm ARM DDI 0487, D24.2 MAIR_EL1), a stage-2 MemAttr is one, ``fwb`` is 0 or 1.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .findings import Finding
from .orders.results import Orders
from .verdict import Verdict, worst

__all__ = ["Battery", "Cell", "Finding", "HostCell", "Kernel", "Matrix", "Proof", "Row", "Verdict", "worst"]


class Row(msgspec.Struct, frozen=True):
    """One operation of the battery on one range under one pair of types.

    ``observed`` maps where and how it ran ("EL1 cold", "EL0 warm", "EL2 cold") to what happened ("works",
    "EL1 fault 96000021"). ``device`` says what reached the device, as sizes in bytes ("8x1").
    """

    op: str
    expected: str
    observed: dict[str, str]
    device: str
    verdict: Verdict
    reason: str = ""


class Battery(msgspec.Struct, frozen=True):
    """The rows of one battery, full (every operation) or short. Batteries that came out alike are one."""

    key: str
    size: str
    rows: tuple[Row, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of its rows."""
        return worst([row.verdict for row in self.rows])


class Cell(msgspec.Struct, frozen=True):
    """One scheme, one range, one stage-1 type of the guest.

    ``case`` is what the VMM asked for: "asking" (just what the device stands), "nothing", or "changed" (a page
    became write-combining-safe while the guest ran).
    ``architecture`` and ``observed`` are attribute bytes; ``verdict`` compares them, ``accesses`` is the battery's.
    ``battery`` names the entry of ``batteries`` that was run with exactly this scheme's tables installed;
    ``full`` the one that ran every operation on the same range and pair of types, under whichever scheme came first.
    ``orders`` names the entry of ``orders.pairs`` for a payload in this range: modelled, never seen.
    ``kernel`` is the release of the hypervisor in lane kvm. There ``observed`` follows from stage 1 and the descriptor
    that was found in memory: a virtual machine's PAR_EL1 shows stage 1 alone.
    """

    lane: str
    cpu: str
    fwb: int
    scheme: str
    case: str
    range: str
    s1: str
    s2: str | None
    architecture: str | None
    observed: str | None
    verdict: Verdict
    accesses: Verdict
    battery: str | None = None
    full: str | None = None
    experiments: int = 0
    transactions: int = 0
    note: str = ""
    orders: str | None = None
    kernel: str = ""

    @property
    def name(self) -> str:
        """What a probe is called in the scorecard."""
        return f"{_where(self)} s1={self.s1}"


class HostCell(msgspec.Struct, frozen=True):
    """One scheme, one range: the host's own mapping (what the VMM or a host DPDK process gets).

    Lane el2 runs a battery through it at EL2; in lane kvm ``observed`` is the VMM's own stage 1, found in memory.
    """

    lane: str
    cpu: str
    fwb: int
    scheme: str
    case: str
    range: str
    type: str | None
    observed: str | None
    verdict: Verdict
    accesses: Verdict
    battery: str | None = None
    full: str | None = None
    experiments: int = 0
    transactions: int = 0
    note: str = ""
    orders: str | None = None
    kernel: str = ""

    @property
    def name(self) -> str:
        """What a probe is called in the scorecard."""
        return f"{_where(self)} host"


def _where(cell: Cell | HostCell) -> str:
    lane = f"{cell.lane} Linux {cell.kernel}" if cell.kernel else cell.lane
    return f"{lane} -cpu {cell.cpu} FWB={cell.fwb} {cell.scheme} ({cell.case}) {cell.range}"


class Proof(msgspec.Struct, frozen=True):
    """Stage 2 of one range, mapped in one way, by three witnesses: the descriptors in memory, the guest, the device.

    ``way`` is what lies under the memslot: "vfio", "vfio pieces", "sysfs", "sysfs wc", "ram". ``role`` is "policy", or
    the control that it is: "negative control" (no kernel relaxes it), "positive control" (plain memory). ``pages``
    descriptors were found, all alike: ``level``, ``memattr`` (one hexadecimal digit), ``access`` (S2AP). ``wanted`` is
    the MemAttr that the scheme has. ``effect`` and ``device`` are of an unaligned 8-byte store that the guest maps
    Normal-NC. ``quarrel`` says what the three do not agree about; "" when they tell the same.
    """

    kernel: str
    cpu: str
    fwb: int
    scheme: str
    way: str
    role: str
    range: str
    pages: int
    level: int
    memattr: str
    access: str
    wanted: str
    effect: str
    device: str
    quarrel: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the three tell the same story, and it is the scheme's."""
        return not self.quarrel and self.memattr == self.wanted


class Kernel(msgspec.Struct, frozen=True):
    """What a kernel was found to do with a BAR.

    ``name`` is how it was asked for, ``release`` what it is. ``scheme`` is None when none is known to do that;
    ``alike`` are those that what was seen does not tell apart from it. ``differs`` says, of the scheme that comes
    nearest, what is otherwise. Its cells were judged by ``judged_by``; ``expected`` is what it had to be, if anything.
    ``unobservable`` maps what could not be looked at to why. ``failure``, if there is one, is why nothing was found.
    """

    name: str
    release: str
    cpu: str
    fwb: int = 0
    scheme: str | None = None
    alike: tuple[str, ...] = ()
    differs: str = ""
    judged_by: str = ""
    expected: str | None = None
    unobservable: dict[str, str] = {}
    command: str = ""
    seconds: float = 0.0
    failure: str = ""

    @property
    def title(self) -> str:
        """Which run it is, for people."""
        return f"Linux {self.release}, -cpu {self.cpu}, FWB={self.fwb}"


class Matrix(msgspec.Struct, frozen=True):
    """A whole run.

    ``pairs`` are every stage-1 type under every stage-2 attribute on one range, for the heat map. ``scorecard`` maps
    scheme, then question, to an answer that says how it was found. ``vanished`` names known deviations that had their
    chance to show and did not. ``orders`` is there if it was asked for. ``kernels``, ``proofs`` and ``findings`` are of
    lane kvm.
    """

    provenance: dict[str, Any]
    cells: tuple[Cell, ...]
    host: tuple[HostCell, ...]
    pairs: tuple[Cell, ...]
    batteries: dict[str, Battery]
    scorecard: dict[str, dict[str, Any]]
    problems: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()
    orders: Orders | None = None
    kernels: tuple[Kernel, ...] = ()
    proofs: tuple[Proof, ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> bytes:
        """The JSON document, indented, in UTF-8."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)
