"""herd7's answers, asked for once a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pyvfio_user.guest.provision.herd import Herd, provide_herd
from pyvfio_user.guest.provision.progress import Progress

from .litmus import Outcome, run
from .programs import programs, typed_programs

PERIPHERAL = Path(__file__).with_name("peripheral.cat")
ARRIVAL = ("-variant", "vmsa", "-model", str(PERIPHERAL), "-skipcheck", "external")
"""What makes herd7 judge by peripheral arrival order."""


@pytest.fixture(scope="session")
def herd() -> Herd:
    """The herd7 to ask."""
    return provide_herd(Progress())


@pytest.fixture(scope="session")
def stock(herd: Herd, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, frozenset[Outcome]]:
    """What its AArch64 model permits of the programs that say no types."""
    return run(herd, programs(), tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="session")
def arrival(herd: Herd, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, frozenset[Outcome]]:
    """What our model of peripheral arrival order permits of those that do."""
    return run(herd, typed_programs(), tmp_path_factory.mktemp("arrival"), *ARRIVAL)
