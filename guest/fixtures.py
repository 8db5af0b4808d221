"""Fixtures for tests of devices, asyncio-native; pytest-asyncio's strict mode is enough. Each gives a factory.

    @pytest.mark.asyncio
    async def test_text_comes_back_in_capitals(serve_device, vfio_client):
        client = await vfio_client(await serve_device(Upcase()))
        ...

All that a factory started ends with the test, in the reverse order. A failing test's report has the exact command of
every QEMU, its console's last lines, and the last transactions of every device.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import pytest_asyncio

from .errors import missing_extra
from .pytest_plugin import evidence_of

if TYPE_CHECKING:
    from ..bridge.client import Client
    from ..bridge.endpoint import HasEndpoint
    from ..bridge.server import Server
    from ..devices.probe import Probe
    from .commander import Guest
    from .provision.qemu import QemuBinary
    from .qemu import Qemu
    from .qtest import QtestMachine


@dataclass(frozen=True)
class Served:
    """A device and the socket it is served on."""

    device: HasEndpoint
    path: Path
    server: Server


class ServeDevice(Protocol):
    """The factory that `serve_device` gives."""

    async def __call__(self, device: HasEndpoint) -> Served:
        """Serve `device` until the test ends, on a socket of its own. One that records nothing records everything."""


class AttachClient(Protocol):
    """The factory that `vfio_client` gives."""

    async def __call__(self, served: Served, *, capabilities: dict[str, Any] | None = None) -> Client:
        """Attach an in-process client, which proposes `capabilities` (by default QEMU's)."""


class StartQtest(Protocol):
    """The factory that `qemu_qtest` gives."""

    async def __call__(
        self,
        *served: Served,
        config: str = "qtest",
        properties: Mapping[str, Any] | None = None,
        extra: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> QtestMachine:
        """Start QEMU without a guest, the devices attached in slots 1, 2, ...; see `MachineConfig.command`."""


@dataclass(frozen=True)
class BareMetal:
    """A running bare-metal guest: its commands (`guest`), its QEMU (`vm`), and the probe it talks through."""

    guest: Guest
    vm: Qemu
    probe: Probe


class StartGuest(Protocol):
    """The factory that `baremetal_guest` gives."""

    async def __call__(
        self,
        *served: Served,
        config: str = "el2",
        cpu: str | None = None,
        extra: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> BareMetal:
        """Boot the guest with a probe in slot 1 and the devices in slots 2, 3, ...; see `MachineConfig.command`."""


@contextlib.contextmanager
def _needing_extra(fixture: str) -> Iterator[None]:
    """Says what to install where what QEMU takes is not there. Imported within: the other fixtures need less."""
    try:
        yield
    except ModuleNotFoundError as error:
        if message := missing_extra(error, f"the fixture {fixture}"):
            pytest.fail(message, pytrace=False)
        raise


def _socket(served: object) -> Path:
    if not isinstance(served, Served):
        raise TypeError(f"what is attached must be served, as in `await serve_device(device)`, not {served!r}")
    return served.path


@pytest.fixture(scope="session")
def qemu_binary() -> QemuBinary:
    """The QEMU that all tests use: from $QEMU_SYSTEM_AARCH64, PATH or the cache; an error that says what to do."""
    with _needing_extra("qemu_binary"):
        from .provision.qemu import find_qemu

    return find_qemu().require()


@pytest_asyncio.fixture
async def serve_device(request: pytest.FixtureRequest) -> AsyncIterator[ServeDevice]:
    """Serve devices: `served = await serve_device(Upcase())`; `served.path` is the socket for any client."""
    from ..bridge.server import serve

    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyvfio-user-")))
        evidence = evidence_of(request)

        async def factory(device: HasEndpoint) -> Served:
            path = folder / f"{len(evidence.devices)}.sock"
            bars = [device.endpoint.regions[index] for index in range(6) if index in device.endpoint.regions]
            if not any(bar.records for bar in bars):
                for bar in bars:
                    bar.record_all()
            server = await stack.enter_async_context(serve(device, path))
            evidence.devices.append(device)
            return Served(device, path, server)

        yield factory


@pytest_asyncio.fixture
async def vfio_client(serve_device: ServeDevice) -> AsyncIterator[AttachClient]:
    """Attach in-process clients, no QEMU needed: `client = await vfio_client(served)`."""
    from ..bridge.client import Client

    async with contextlib.AsyncExitStack() as stack:

        async def factory(served: Served, *, capabilities: dict[str, Any] | None = None) -> Client:
            return await stack.enter_async_context(Client.connect(_socket(served), capabilities=capabilities))

        yield factory


@pytest_asyncio.fixture
async def qemu_qtest(
    request: pytest.FixtureRequest, serve_device: ServeDevice, qemu_binary: QemuBinary
) -> AsyncIterator[StartQtest]:
    """Start QEMU without a guest: `machine = await qemu_qtest(served)`, then `machine.read(address, 4)`."""
    with _needing_extra("qemu_qtest"):
        from .machines import load_config
        from .qtest import qtest_machine

    async with contextlib.AsyncExitStack() as stack:

        async def factory(
            *served: Served,
            config: str = "qtest",
            properties: Mapping[str, Any] | None = None,
            extra: Sequence[str] = (),
            timeout: float = 60.0,
        ) -> QtestMachine:
            sockets = [_socket(one) for one in served]
            command = load_config(config).command(qemu_binary.path, sockets, properties=properties, extra=extra)
            machine = await stack.enter_async_context(qtest_machine(command, timeout=timeout))
            evidence_of(request).machines.append(machine.vm)
            return machine

        yield factory


@pytest_asyncio.fixture
async def baremetal_guest(
    request: pytest.FixtureRequest, serve_device: ServeDevice, qemu_binary: QemuBinary
) -> AsyncIterator[StartGuest]:
    """Boot the bare-metal guest at EL2: `running = await baremetal_guest(served)`, then `running.guest.read(...)`."""
    with _needing_extra("baremetal_guest"):
        from ..devices.probe import Probe
        from .commander import Guest
        from .machines import PATIENT, load_config
        from .payload import build
        from .qemu import Qemu

    async with contextlib.AsyncExitStack() as stack:

        async def factory(
            *served: Served,
            config: str = "el2",
            cpu: str | None = None,
            extra: Sequence[str] = (),
            timeout: float = 60.0,
        ) -> BareMetal:
            probe = Probe()
            sockets = [(await serve_device(probe)).path, *(_socket(one) for one in served)]
            image = await asyncio.to_thread(build)
            options = ["-kernel", str(image), *extra]
            machine = load_config(config)
            command = machine.command(qemu_binary.path, sockets, cpu=cpu, properties=PATIENT, extra=options)
            vm = await stack.enter_async_context(Qemu(command, timeout=timeout))
            evidence_of(request).machines.append(vm)
            return BareMetal(Guest(probe.mailbox, vm.bounded), vm, probe)

        yield factory
