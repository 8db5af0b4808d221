"""Every test of client and server runs on both event loops: asyncio's own, and the one that the hot path sits in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from pyvfio_user.bridge.loop import HotPathEventLoop

from .bench import Bench, serve_bench

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "hotpath": HotPathEventLoop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops that an asynchronous test runs on."""
    both = item.path.name.startswith(("test_server_", "test_client", "test_peer_"))
    return LOOPS if both else {"asyncio": asyncio.SelectorEventLoop}


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are told by their first sixteen, in hex."""
    return val[:16].hex() or "empty" if isinstance(val, bytes) else None


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A served device with one of everything."""
    async with serve_bench(tmp_path / "bench.sock") as bench:
        yield bench
