"""What the command `pyvfio-user` starts, and `python -m pyvfio_user.guest`."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. Ctrl-C ends it silently even while it is being imported."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not so in a shell's background
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main as command

    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command(prog_name="pyvfio-user")


if __name__ == "__main__":
    main()
