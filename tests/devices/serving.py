"""A device served on a real socket, with a client on it, in one event loop."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.endpoint import HasEndpoint
from pyvfio_user.bridge.server import serve

RAM = 0x4000_0000
"""Where `attached` puts a MiB of guest memory."""


@asynccontextmanager
async def attached(device: HasEndpoint, *, shared: bool = True) -> AsyncIterator[Client]:
    """A client that enabled memory space and bus mastering, and gave the device a MiB of RAM."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "device.sock"
        async with serve(device, path), Client.connect(path) as client:
            await client.add_memory(RAM, 1 << 20, shared=shared)
            await client.config.set_memory_space(True)
            await client.config.set_bus_master(True)
            yield client
