"""A server that is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pyvfio_user.bridge.hotpath._native import lib
from pyvfio_user.bridge.loop import Poller


@contextmanager
def nobody_serves() -> Iterator[None]:
    """Sessions of this event loop are not served meanwhile."""
    loop = asyncio.get_running_loop()
    poller = Poller.of(loop)
    fd = lib.pvu_poller_fd(poller.native)
    loop.remove_reader(fd)
    try:
        yield
    finally:
        loop.add_reader(fd, poller._serve_ready)  # type: ignore[attr-defined]
