"""A client that polls reads one by one, with something else now and then: all is done once, and nothing is kept.

Such a client is answered before its message is taken (`session_look` in bridge/hotpath/session.c), as long as it comes
soon with the next: the bench's client does, one in Python is too slow. The device counts its reads.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ..bench.programs import await_socket, build, run_client, started


def turns(folder: Path, seconds: float) -> tuple[int, int]:
    """How often there was something else in so long, and how many descriptors more the server has than before.

    Raises BenchError for an answer that is missing or wrong.
    """
    build(folder)
    path, log = folder / "turns.sock", folder / "turns.log"
    with started(
        [Path(sys.executable).parent / "pyvfio-user", "serve", "bench", "--socket", path], None, log
    ) as server:
        await_socket(path, server, log)
        fds = Path(f"/proc/{server.pid}/fd")
        run_client(folder, "turns", path, None, 0.1, "--poll")
        before = len(os.listdir(fds))
        count = run_client(folder, "turns", path, None, seconds, "--poll").count
        end = time.monotonic() + 5
        while len(os.listdir(fds)) > before and time.monotonic() < end:
            time.sleep(0.01)  # a thread closes them
        return count, len(os.listdir(fds)) - before
