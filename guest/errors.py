"""The errors of running a guest; those of fetching its parts are in `provision.errors`."""

from __future__ import annotations


class QemuError(Exception):
    """QEMU could not start, ended too early, ran too long or refused a command.

    The message holds the exact command, quoted for a shell, and the console's last lines.
    """


class MatrixError(RuntimeError):
    """A run of the matrix ended without a result; the message says why, QEMU's command and console included."""


class TraceError(RuntimeError):
    """A guest cannot be traced, or a trace not be shown; the message says why."""
