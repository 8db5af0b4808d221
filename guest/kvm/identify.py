"""Name a kernel's scheme: which of them decides what was found, for a VMM that asks for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...bridge.attributes import MemoryType
from ...bridge.schemes import NOTHING, SCHEMES, Decision, Driver, Host, Situation, settled
from ..layout import LAYOUT


@dataclass(frozen=True)
class Found:
    """What was found of a range: stage 2's MemAttr as a digit, and the type of the host's own mapping.

    ``stage2`` may also be words, where there is no one descriptor; ``host`` is None where it was not looked at.
    """

    stage2: str
    host: MemoryType | None = None


@dataclass(frozen=True)
class Identity:
    """``scheme`` decides all that was found, and so do those ``alike``; None if no scheme does.

    ``nearest`` is then the one with the fewest differences, which ``differs`` lists.
    """

    scheme: str | None
    alike: tuple[str, ...]
    nearest: str
    differs: str


def decide(scheme: str, fwb: bool) -> Decision:
    """What a scheme decides with the plain vfio-pci driver, which knows no device, for a VMM that asks for nothing."""
    return settled(SCHEMES[scheme], Situation(LAYOUT, NOTHING, Driver(), Host(fwb=fwb)))


def identify(found: Mapping[str, Found], fwb: bool) -> Identity:
    """Compare what was found, by range, with every scheme; of several that fit, one that was released comes first."""
    differences = {name: _differences(decide(name, fwb), found) for name in SCHEMES}
    fitting = [name for name, differing in differences.items() if not differing]
    fitting.sort(key=lambda name: not SCHEMES[name].status.startswith("Linux"))
    if fitting:
        return Identity(fitting[0], tuple(fitting[1:]), fitting[0], "")
    nearest = min(differences, key=lambda name: len(differences[name]))
    return Identity(None, (), nearest, "; ".join(differences[nearest]))


def _differences(decision: Decision, found: Mapping[str, Found]) -> list[str]:
    differing = []
    for piece in decision.pieces:
        seen = found.get(piece.range)
        if seen is None:
            continue
        decided = "refused" if piece.s2 is None else f"{piece.s2:x}"
        if seen.stage2 != decided:
            differing.append(f"{piece.range} has stage 2 {seen.stage2}, not {decided}")
        if seen.host is not None and seen.host != piece.host:
            wanted = piece.host.name if piece.host else "none"
            differing.append(f"{piece.range} is mapped {seen.host.name} by the host, not {wanted}")
    return differing
