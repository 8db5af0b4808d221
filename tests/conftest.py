"""What holds for every test."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.log import Limit, logger
from pyvfio_user.devices import handlers


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """What the tests before had the log say limits nothing."""
    for each in (logger, handlers.logger):
        each.filters[:] = [Limit()]
