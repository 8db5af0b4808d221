"""The pytest plugin: fixtures for tests of devices, and what QEMU and the device did in a failing test's report.

It is active wherever pyvfio-user is installed. The fixtures (see `fixtures`) need pytest-asyncio, and the extra `guest`
for those that start QEMU; a test that uses one where that is missing is told so.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .errors import missing_extra

if TYPE_CHECKING:
    from ..bridge.endpoint import HasEndpoint
    from .qemu import Qemu

_LAST = 20


def _litmus_page(test: str, error: BaseException, folder: Path) -> list[tuple[str, str]]:
    """Write the page of an order that breaks a driver, and say where; nothing for any other error."""
    from ..bridge.explore import LitmusFailure

    if not isinstance(error, LitmusFailure):
        return []
    try:
        from .report.litmus import render
    except ModuleNotFoundError as missing:
        return [("litmus card", missing_extra(missing, "--litmus-pages") or str(missing))]
    page = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', test)}.html"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text(render(error.card), encoding="utf-8")
    return [("litmus card", f"{page}")]


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


class _WithoutAsyncio:
    """In place of the fixtures: pytest's "fixture not found" would not say why."""

    @pytest.fixture
    def serve_device(self, request: pytest.FixtureRequest) -> None:
        """Fail the test: it needs pytest-asyncio."""
        name = request.fixturename
        pytest.fail(f"the fixture {name} needs pytest-asyncio: pip install pytest-asyncio", pytrace=False)

    vfio_client = qemu_qtest = baremetal_guest = serve_device


EVIDENCE = pytest.StashKey[Evidence]()


def evidence_of(request: pytest.FixtureRequest) -> Evidence:
    """Return the evidence of the test that `request` belongs to."""
    evidence: Evidence = request.node.stash.setdefault(EVIDENCE, Evidence())
    return evidence


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--litmus-pages`."""
    parser.getgroup("pyvfio-user").addoption(
        "--litmus-pages",
        type=Path,
        metavar="DIR",
        help="write a page with the litmus card and a timeline for each test that explore() fails (extra `guest`)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixtures, which are made with pytest-asyncio; where it is not there, what says so."""
    if config.pluginmanager.hasplugin("asyncio"):
        from . import fixtures

        config.pluginmanager.register(fixtures, "pyvfio_user_fixtures")
    else:
        config.pluginmanager.register(_WithoutAsyncio(), "pyvfio_user_fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failing test's report the exact QEMU command, the console's last lines, and the last transactions.

    Of an order that breaks a driver, the page that was written, if pages were asked for.
    """
    report = yield
    if call.excinfo is not None and (folder := item.config.getoption("--litmus-pages")) is not None:
        report.sections.extend(_litmus_page(item.nodeid, call.excinfo.value, folder))
    if report.failed and report.when != "teardown" and EVIDENCE in item.stash:
        report.sections.extend(item.stash[EVIDENCE].sections())
    return report
