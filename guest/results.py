"""What a matrix run found: the records that the table, the HTML report and the JSON file are made from.

The JSON document is these structures, field by field. Attribute bytes are two lower-case hexadecimal digits in the
encoding of MAIR_ELx and PAR_EL1 (Arm ARM DDI 0487, D24.2 MAIR_EL1), a stage-2 MemAttr is one, ``fwb`` is 0 or 1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from .orders.results import Orders


class Verdict(StrEnum):
    """What one comparison of expectation and observation came to."""

    AGREE = "agree"
    DISAGREE = "disagree"
    KNOWN_DEVIATION = "known-deviation"
    UNOBSERVABLE = "unobservable"
    REFUSED = "refused"


def worst(verdicts: list[Verdict]) -> Verdict:
    """The verdict of a group: a disagreement outweighs a deviation, which outweighs an agreement.

    An empty group is a disagreement: nothing was observed where something should have been.
    """
    for verdict in (Verdict.DISAGREE, Verdict.KNOWN_DEVIATION, Verdict.AGREE, Verdict.UNOBSERVABLE):
        if verdict in verdicts:
            return verdict
    return Verdict.REFUSED if verdicts else Verdict.DISAGREE


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
        return worst([row.verdict for row in self.rows])


class Cell(msgspec.Struct, frozen=True):
    """One scheme, one range, one stage-1 type of the guest.

    ``case`` is what the VMM asked for: "asking" (just what the device stands), "nothing", or "changed" (a page
    became write-combining-safe while the guest ran).
    ``architecture`` and ``observed`` are attribute bytes; ``verdict`` compares them, ``accesses`` is the battery's.
    ``battery`` names the entry of ``batteries`` that was run with exactly this scheme's tables installed;
    ``full`` the one that ran every operation on the same range and pair of types, under whichever scheme came first.
    ``orders`` names the entry of ``orders.pairs`` for a payload in this range: modelled, never seen.
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


class HostCell(msgspec.Struct, frozen=True):
    """One scheme, one range: the host's own mapping (what the VMM or a host DPDK process gets), run at EL2."""

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


class Matrix(msgspec.Struct, frozen=True):
    """A whole run.

    ``pairs`` are every stage-1 type under every stage-2 attribute on one range, for the heat map. ``scorecard`` maps
    scheme, then question, to an answer that says how it was found. ``vanished`` names known deviations that had their
    chance to show and did not. ``orders`` is there if it was asked for.
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

    def to_json(self) -> bytes:
        """The JSON document, indented, in UTF-8."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)
