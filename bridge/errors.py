"""Errors that the project's parts share."""

from __future__ import annotations


class DefinitionError(ValueError):
    """A device is defined in a way that cannot work; the message says what must be, and what was given."""


class WireError(ValueError):
    """A message is not laid out as the protocol says."""


class StreamError(ValueError):
    """A trace is not laid out as `bridge.stream` says."""
