"""What the state machines have in common: a served bench, one client, and how long they run."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine

from pyvfio_user.bridge.loop import HotPathEventLoop

from .bench import serve_bench
from .raw import Raw

T = TypeVar("T")

_LONG = os.environ.get("HYPOTHESIS_MACHINES") == "long"
LENGTH = settings(
    max_examples=80 if _LONG else 25,
    stateful_step_count=80 if _LONG else 30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""Of `make test`; `make fuzz` asks for more."""


class ServedMachine(RuleBasedStateMachine):
    """A machine whose rules are a client's messages; `run` does them on the loop that serves the bench."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self._loop = HotPathEventLoop()
        self._stack = AsyncExitStack()
        self.bench = self.run(self._stack.enter_async_context(serve_bench(self._folder / "s")))
        self._before = self.bench.descriptors()
        self.connect()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does work on the loop, within 20 s."""
        return self._loop.run_until_complete(asyncio.wait_for(work, 20))

    def connect(self) -> None:
        """A new client, which negotiates."""
        self._client = AsyncExitStack()
        self.raw = self.run(self._client.enter_async_context(Raw.connect(self.bench.path)))

    def disconnect(self) -> None:
        """The client leaves, and the server has seen it."""
        self.run(self._client.aclose())
        self.run(self.bench.server.wait_disconnected())

    def release(self) -> None:
        """What the machine itself holds open beside its client."""

    def teardown(self) -> None:
        """The client leaves; nothing that it gave may stay."""
        try:
            self.disconnect()
            self.release()
            assert self.bench.leaked(self._before) == []
            self.run(self._stack.aclose())
        finally:
            self._loop.close()
            shutil.rmtree(self._folder)
