"""The command line, `pyvfio-user`. A user's mistake is one line, never a traceback; Ctrl-C ends both sides (130)."""

from __future__ import annotations

import errno
import signal
from typing import Any

import click

from ..bridge.errors import DefinitionError, StreamError
from .catalogue import UnknownDevice
from .commands.kernel import kernel
from .commands.kvm import kvm
from .commands.matrix import matrix
from .commands.parts import doctor, machines, setup
from .commands.push import push
from .commands.qemu import qemu
from .commands.serve import serve
from .commands.trace import trace
from .errors import BuildError, KernelError, MatrixError, QemuError, TraceError, missing_extra
from .machines import ConfigError
from .provision.errors import ProvisionError

_INTERRUPTED = 128 + signal.SIGINT

_MISTAKES = (
    ConfigError,
    UnknownDevice,
    DefinitionError,
    ProvisionError,
    QemuError,
    BuildError,
    KernelError,
    MatrixError,
    StreamError,
    TraceError,
)


class _Commands(click.Group):
    """Turns the errors that a user can cause into messages, and Ctrl-C into exit status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        except _MISTAKES as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno is None or error.errno == errno.EPIPE:  # click ends silently when nobody reads any more
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror}") from error
        except ModuleNotFoundError as error:
            if message := missing_extra(error, "this command"):
                raise click.ClickException(message) from error
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pyvfio-user")
def main() -> None:
    """PCIe devices in Python over vfio-user, and guests that exercise every Arm memory type against them."""


for _command in (serve, qemu, trace, matrix, kvm, kernel, push, machines, doctor, setup):
    main.add_command(_command)
