"""The one error of provisioning."""

from __future__ import annotations


class ProvisionError(Exception):
    """A part is missing and could not be fetched: says what is missing and what to do about it."""

    def __init__(self, missing: str, remedy: str) -> None:
        """`missing` names the part and why it is not there; `remedy` is what the user can do, as an instruction."""
        super().__init__(f"{missing}\n  what to do: {remedy}")
        self.missing = missing
        self.remedy = remedy
