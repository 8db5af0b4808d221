"""What holds for every test."""

from __future__ import annotations

import signal

import pytest

from pyvfio_user.bridge.log import Limit, logger
from pyvfio_user.devices import handlers


def pytest_configure() -> None:
    """Have SIGINT do something, and in what the tests start, too: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """What the tests before had the log say limits nothing."""
    for each in (logger, handlers.logger):
        each.filters[:] = [Limit()]
