"""What is not one operation over and over: idle CPU, a responsive loop, many devices, memory, attaching to QEMU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .programs import BenchError, await_socket, pinned, python, run_client, started

DEVICES = 64
ROOT = Path(__file__).resolve().parents[2]
_ECAM_SLOT_1 = 0x3F008000


@dataclass(frozen=True)
class Found:
    """One figure: its value with its unit, over which range, what to reach, and whether it is."""

    name: str
    where: str
    value: str
    spread: str
    target: str
    met: bool | None
    """None when others disturbed it."""


@dataclass(frozen=True)
class Bench:
    """Where programs are and where they run."""

    programs: Path
    folder: Path
    server_cpu: int
    client_cpu: int | None
    seconds: float
    repetitions: int

    @property
    def polling_cpu(self) -> int:
        """Where a client that spins may be."""
        return self.server_cpu if self.client_cpu is None else self.client_cpu


@contextmanager
def hosted(bench: Bench, devices: int) -> Iterator[subprocess.Popen[str]]:
    """Serves devices in one process meanwhile."""
    for name in ("ready", "report"):
        (bench.folder / name).unlink(missing_ok=True)
    log = bench.folder / "host.log"
    command = python("-m", f"{__package__}.host", str(bench.folder), str(devices))
    with started(["env", f"PYTHONPATH={ROOT}", *command], bench.server_cpu, log) as host:
        await_file(bench.folder / "ready", host, log)
        yield host


def await_file(path: Path, process: subprocess.Popen[str], log: Path) -> None:
    """Waits until a program has written a file."""
    deadline = time.monotonic() + 20
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{path} was not written: {log.read_text()}")
        time.sleep(0.005)


def idle_cpu(bench: Bench, seconds: float) -> Found:
    """CPU time of a server whose client was busy, and then says nothing."""
    with hosted(bench, 1) as host:
        path = str(bench.folder / "0.sock")
        run_client(bench.programs, "read", path, bench.server_cpu, bench.seconds)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            time.sleep(0.2)
            before = _cpu(host.pid)
            time.sleep(seconds)
            used = (_cpu(host.pid) - before) * 1000
    return Found("idle server, a client attached", "", f"{used:.2f} ms", f"in {seconds:g} s", "0 ms", used < 1)


def responsive(bench: Bench) -> list[Found]:
    """How late a timer is while a client hammers: in the repetitions in which the server waited least for its CPU."""
    found = []
    for name, operation, options in (
        ("timer while reads are hammered", "read", ["--poll"]),
        ("timer while posted writes are hammered", "posted-batched", []),
    ):
        reports = []
        with hosted(bench, 1) as host:
            _tell(host, "timer")
            for _ in range(3 * bench.repetitions):
                path, waited = bench.folder / "0.sock", _waited(host.pid)
                run_client(bench.programs, operation, path, bench.polling_cpu, bench.seconds * 2, *options)
                _tell(host, "report")
                await_file(bench.folder / "report", host, bench.folder / "host.log")
                report = json.loads((bench.folder / "report").read_text())
                (bench.folder / "report").unlink()
                reports.append((_waited(host.pid) - waited, report["most"], report["p99"], report["calls"]))
        kept = sorted(reports)[: bench.repetitions]
        tops, waited = [most for _, most, _, _ in kept], kept[-1][0]
        late = median(tops)
        found.append(
            Found(
                name,
                "across",
                f"{late:.0f} us late at most",
                f"[{min(tops):.0f}..{max(tops):.0f}], 99 % within {median(p99 for _, _, p99, _ in kept):.0f}, "
                f"{sum(calls for *_, calls in kept)} calls; others had its CPU for {waited:.1f} ms",
                "< 1000 us",
                True if late < 1000 else None if waited > 0.5 else False,
            )
        )
    return found


def many_devices(bench: Bench) -> list[Found]:
    """64 devices of one process with 64 clients, against one of each; and the memory of a device."""
    one, many = [], []
    path = f"{bench.folder}/%d.sock"
    with hosted(bench, 1) as host:
        small = _resident(host.pid)
    with hosted(bench, DEVICES + 1) as host:
        each = (_resident(host.pid) - small) / DEVICES
        for _ in range(bench.repetitions):
            one.append(run_client(bench.programs, "read", path, bench.server_cpu, bench.seconds))
            options = ("--clients", str(DEVICES))
            many.append(run_client(bench.programs, "read", path, bench.server_cpu, bench.seconds * 2, *options))
        used = (_resident(host.pid) - small) / DEVICES
    # CPU time is what both are measured by: 65 processes on one core are fair game for everything else on it.
    ratios = [m.cpu_rate / o.cpu_rate for m, o in zip(many, one, strict=True)]
    return [
        Found(
            f"{DEVICES} devices, {DEVICES} clients: reads",
            "same core",
            f"{median(m.rate for m in many):,.0f}/s, {median(ratios):.2f} x one",
            f"[{min(ratios):.2f}..{max(ratios):.2f}] by CPU time",
            ">= 0.8 x one client",
            median(ratios) >= 0.8,
        ),
        Found(
            "memory of an idle device", "", f"{each:.0f} KiB", f"{used:.0f} after a client", "< 1024 KiB", used < 1024
        ),
    ]


def attach(bench: Bench, qemu: list[str], device: list[str]) -> Found:
    """How much later QEMU answers when a device is attached."""
    without, attached = [], []
    for _ in range(3 * bench.repetitions):
        without.append(_start(bench, qemu) * 1e3)
        attached.append(_start(bench, [*qemu, *device]) * 1e3)
    added = min(attached) - min(without)  # what others do meanwhile only adds
    return Found(
        "attach: what it adds to QEMU's start",
        "same core",
        f"{added:.2f} ms",
        f"least of {len(attached)}: {min(without):.1f} ms without; medians differ by "
        f"{median(attached) - median(without):.2f}",
        "<= 3 ms",
        # Starts of the same QEMU that differ by as much as is asked about tell nothing.
        None if median(without) - min(without) > 3 else added <= 3,
    )


def _start(bench: Bench, command: list[str]) -> float:
    """Seconds from the start of QEMU to its first answer."""
    path = bench.folder / "answer"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(30)
        begun = time.perf_counter()
        process = subprocess.Popen(
            [*command, "-qtest", f"unix:{path}", "-qtest-log", "none"], preexec_fn=pinned(bench.server_cpu)
        )
        try:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"readl %#x\n" % _ECAM_SLOT_1)
                if not connection.recv(100).startswith(b"OK"):
                    raise BenchError("QEMU must answer a read with OK")
                taken = time.perf_counter() - begun
        except TimeoutError:
            raise BenchError(f"QEMU does not start: {command}") from None
        finally:
            process.kill()
            process.wait()
    return taken


@contextmanager
def attached(bench: Bench, qemu: list[str], device: list[str]) -> Iterator[Path]:
    """A QEMU with a device, pinned to the server's core; the path of its qtest socket."""
    path = bench.folder / "qtest"
    with suppress(FileNotFoundError):
        path.unlink()
    log = bench.folder / "qemu.log"
    options = ["-qtest", f"unix:{path},server=on,wait=off", "-qtest-log", "none"]
    with started([*qemu, *device, *options], bench.server_cpu, log) as process:
        await_socket(path, process, log)
        yield path


def _cpu(pid: int) -> float:
    """CPU seconds of a process."""
    return time.clock_gettime((~pid << 3) | 2)


def _resident(pid: int) -> float:
    """Resident memory of a process, in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1024


def _waited(pid: int) -> float:
    """For how many milliseconds a process was ready to run while others had its CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e6


def _tell(host: subprocess.Popen[str], line: str) -> None:
    assert host.stdin is not None
    host.stdin.write(f"{line}\n")
    host.stdin.flush()
