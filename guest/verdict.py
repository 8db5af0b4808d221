"""What one comparison of expectation and observation came to."""

from __future__ import annotations

from enum import StrEnum


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
