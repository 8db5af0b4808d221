"""Errors that the project's parts share."""

from __future__ import annotations


class DefinitionError(ValueError):
    """A device is defined in a way that cannot work; the message says what must be, and what was given."""


def check_integer(what: str, value: object) -> None:
    """Raises `DefinitionError` unless `value` is an integer; `what` says whose."""
    if not isinstance(value, int):
        raise DefinitionError(f"{what} must be an integer, not {value!r}")


class WireError(ValueError):
    """A message is not laid out as the protocol says."""


class StreamError(ValueError):
    """A trace is not laid out as `bridge.stream` says."""
