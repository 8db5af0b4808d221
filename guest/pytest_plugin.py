"""The pytest plugin: fixtures for tests of devices, and what QEMU and the device did in a failing test's report.

It is active wherever pyvfio-user is installed. The fixtures (see `fixtures`) need pytest-asyncio, and the extra `guest`
for those that start QEMU; without pytest-asyncio there are none, and the plugin does nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..bridge.endpoint import HasEndpoint
    from .qemu import Qemu

_LAST = 20


@dataclass
class Evidence:
    """What took part in one test: the QEMUs and the devices that its fixtures started."""

    machines: list[Qemu] = field(default_factory=list)
    devices: list[HasEndpoint] = field(default_factory=list)

    def sections(self) -> list[tuple[str, str]]:
        """Return titles and texts for the test's report. Takes the devices' recorded transactions."""
        found = [("QEMU", machine.describe()) for machine in self.machines]
        for device in self.devices:
            recorder = device.endpoint.recorder
            transactions = recorder.drain()
            lines = [str(transaction) for transaction in transactions[-_LAST:]]
            title = (
                f"{type(device).__name__}: the last {len(lines)} of {len(transactions) + recorder.dropped} transactions"
            )
            found.append((title, "\n".join(lines or ["(none since the test last took them)"])))
        return found


EVIDENCE = pytest.StashKey[Evidence]()


def evidence_of(request: pytest.FixtureRequest) -> Evidence:
    """Return the evidence of the test that `request` belongs to."""
    evidence: Evidence = request.node.stash.setdefault(EVIDENCE, Evidence())
    return evidence


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixtures when pytest-asyncio, which they are made with, is there."""
    if config.pluginmanager.hasplugin("asyncio"):
        from . import fixtures

        config.pluginmanager.register(fixtures, "pyvfio_user_fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failing test's report the exact QEMU command, the console's last lines, and the last transactions."""
    report = yield
    if report.failed and report.when != "teardown" and EVIDENCE in item.stash:
        report.sections.extend(item.stash[EVIDENCE].sections())
    return report
