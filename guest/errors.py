"""The errors of running a guest; those of fetching its parts are in `provision.errors`."""

from __future__ import annotations

_EXTRA = ("elftools", "jinja2", "msgspec", "perfetto", "qemu", "rich")  # the modules that the extra `guest` brings


def missing_extra(error: ModuleNotFoundError, what: str) -> str | None:
    """What to do about `error` when `what` needs the extra `guest` and has it not; None when that is not why."""
    if not error.name or error.name.partition(".")[0] not in _EXTRA:
        return None
    return f"{what} needs the extra `guest` ({error}): pip install 'pyvfio-user[guest]'"


class QemuError(Exception):
    """QEMU could not start, ended too early, ran too long or refused a command.

    The message holds the exact command, quoted for a shell, and the console's last lines.
    """


class MatrixError(RuntimeError):
    """A run of the matrix ended without a result; the message says why, QEMU's command and console included."""


class BuildError(RuntimeError):
    """Something that a guest or QEMU is to run could not be built; the message has the command and what it said."""


class TraceError(RuntimeError):
    """A guest cannot be traced, or a trace not be shown; the message says why."""


class KernelError(Exception):
    """A kernel, or what it was given with, cannot be used: says why, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        """`remedy` is what the user can do, as an instruction."""
        super().__init__(f"{what}\n  what to do: {remedy}")
        self.what = what
        self.remedy = remedy
