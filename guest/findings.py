"""What is tried for itself and is no battery: a rule of the kernel's, a whole scenario, a change at run time."""

from __future__ import annotations

import msgspec

from .verdict import Verdict


class Finding(msgspec.Struct, frozen=True):
    """One thing that was tried: what must come of it by the kernel's rules, and what came.

    ``kind``: "rule", "doorbell", "change" or "linux". ``note`` says why something is unobservable, or what to know.
    """

    lane: str
    cpu: str
    kind: str
    name: str
    expected: str
    observed: str
    verdict: Verdict
    note: str = ""
    battery: str | None = None
    """The entry of ``batteries`` that was run."""

    @classmethod
    def of(cls, cpu: str, kind: str, name: str, expected: str, observed: str) -> Finding:
        """One of the `kvm` lane that agrees when it is as expected."""
        verdict = Verdict.AGREE if observed == expected else Verdict.DISAGREE
        return cls("kvm", cpu, kind, name, expected, observed, verdict)

    @classmethod
    def unobservable(cls, cpu: str, kind: str, name: str, expected: str, why: str) -> Finding:
        """One that this kernel or this machine cannot show."""
        return cls("kvm", cpu, kind, name, expected, "", Verdict.UNOBSERVABLE, why)

    @property
    def problem(self) -> str | None:
        """What disagrees, for people."""
        if self.verdict is not Verdict.DISAGREE:
            return None
        return f"{self.kind}, {self.name}: must be {self.expected}, not {self.observed}"
