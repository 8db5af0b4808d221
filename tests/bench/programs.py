"""The programs that measure, and those that are measured: built, started, pinned, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
_CLIENT = ("client.c", "common.c", "exchange.c", "session.c", "registers.c", "dma.c", "qtest.c")
_LIMIT = ("limit.c", "common.c")


class BenchError(Exception):
    """A program failed: the message is what it said."""


@dataclass(frozen=True)
class Sample:
    """What the client measured: operations, wall-clock seconds, and the CPU seconds that both sides used."""

    count: int
    seconds: float
    client_cpu: float
    peer_cpu: float

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.count / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Operations for a second of CPU time of both sides: what others did meanwhile does not count."""
        return self.count / max(self.client_cpu + self.peer_cpu, 1e-9)


def build(folder: Path) -> None:
    """Builds client and limit program into `folder` with the machine's C compiler ($CC, or cc)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sources in (("client", _CLIENT), ("limit", _LIMIT)):
        command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(folder / name)]
        done = subprocess.run(
            [*command, *(str(SOURCES / source) for source in sources)], capture_output=True, text=True
        )
        if done.returncode:
            raise BenchError(f"the {name} cannot be built: {done.stderr}")


def pinned(cpu: int | None) -> Callable[[], None] | None:
    """What a new process does to stay on `cpu`."""
    return None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})


@contextlib.contextmanager
def started(command: Sequence[str | Path], cpu: int | None, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs a program on `cpu` meanwhile; its standard output and errors go to `log`."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=pinned(cpu),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def await_socket(path: Path, process: subprocess.Popen[str], log: Path) -> None:
    """Waits until the program listens on its socket: asked of the kernel, since a connection would be a client."""
    deadline = time.monotonic() + 20
    while not _listens(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{process.args!r} does not serve {path}: {log.read_text()}")
        time.sleep(0.01)


def server_of(path: Path | str) -> int | None:
    """The process that listens on a socket, or None when it cannot be told: asked of the kernel, as above."""
    sought = f"socket:[{_listening(path)}]"
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it came and went, or is another user's
            if os.readlink(entry) == sought:
                return int(entry.parts[2])
    return None


def _listens(path: Path) -> bool:
    return _listening(path) is not None


def _listening(path: Path | str) -> int | None:
    """The inode of the socket at `path` that has the flag __SO_ACCEPTCON in /proc/net/unix, proc(5)."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        if line.endswith(f" {path}") and int(line.split()[3], 16) & 0x10000:
            return int(line.split()[6])
    return None


def run_client(
    folder: Path, operation: str, socket: Path | str, cpu: int | None, seconds: float, *options: str
) -> Sample:
    """Has the client measure one operation on the server of `socket`."""
    command = [str(folder / "client"), operation, str(socket), "--seconds", str(seconds), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 5 * seconds, preexec_fn=pinned(cpu))
    except subprocess.TimeoutExpired:
        raise BenchError(f"{operation} on {socket} did not end") from None
    if done.returncode:
        raise BenchError(f"{operation} on {socket}: {done.stderr.partition(chr(10))[0]}")
    return Sample(**json.loads(done.stdout))


def python(*arguments: str) -> list[str]:
    """A command that runs this Python."""
    return [sys.executable, *arguments]
