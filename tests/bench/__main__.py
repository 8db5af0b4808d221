"""`make bench`, or `python -m tests.bench --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from pyvfio_user.guest.machines import device_option, load_config
from pyvfio_user.guest.provision.qemu import find_qemu

from . import report
from .measure import LIMIT, OURS, Figures, Take, repeat
from .orders import orders
from .programs import BenchError, Sample, await_socket, build, python, run_client, server_of, started
from .rows import QEMU_ROWS, ROWS, Placement, Row
from .whole import ROOT, Bench, Found, attach, attached, idle_cpu, many_devices, responsive

KIT = "kit"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything once and briefly: does it work?")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose operation has this in its name")
    parser.add_argument("--repetitions", type=int, default=9, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.25, metavar="S", help="of each measurement")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=SOCKET", help="measure this server too")
    parser.add_argument("--serve", metavar="COMMAND", help="our server, if not `pyvfio-user serve bench`: {socket}")
    parser.add_argument("--no-qemu", action="store_true", help="leave out what needs QEMU")
    parser.add_argument("--json", type=Path, default=Path("out/bench.json"), metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; exit status 1 when our server failed, whatever the figures are."""
    wanted = options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    peers = dict(peer.split("=", 1) for peer in wanted.peer)
    if wanted.quick:
        wanted.repetitions, wanted.seconds = 1, 0.02
    cpus = sorted(os.sched_getaffinity(0))
    programs = Path("out/bench").absolute()
    build(programs)
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-bench-") as folder:
        far = cpus[-1] if len(cpus) > 1 else None
        bench = Bench(programs, Path(folder), cpus[0], far, wanted.seconds, wanted.repetitions)
        figures, others = measure(bench, wanted, peers, console)
    report.show(console, figures, others, list(peers))
    report.write(wanted.json, figures, others)
    console.print(f"JSON: {wanted.json}")
    return 1 if any(OURS in each.failures for each in figures) else 0


def measure(
    bench: Bench, wanted: argparse.Namespace, peers: dict[str, str], console: Console
) -> tuple[list[Figures], list[Found]]:
    """All rows, and what is no row."""
    sockets = {name: bench.folder / f"{name}.sock" for name in (LIMIT, OURS, KIT)}
    serve = wanted.serve or f"{Path(sys.executable).parent / 'pyvfio-user'} serve bench --socket {{socket}}"
    figures, others = [], []
    attempts = wanted.repetitions * (1 if wanted.quick else 3)
    with ExitStack() as stack:
        servers = {
            LIMIT: [str(bench.programs / "limit"), str(sockets[LIMIT])],
            OURS: serve.format(socket=sockets[OURS]).split(),
            KIT: ["env", f"PYTHONPATH={ROOT}", *python("-m", f"{__package__}.kit", str(sockets[KIT]))],
        }
        for name, command in servers.items():
            log = bench.folder / f"{name}.log"
            process = stack.enter_context(started(command, bench.server_cpu, log))
            await_socket(sockets[name], process, log)
        reachable = {LIMIT: str(sockets[LIMIT]), OURS: str(sockets[OURS]), **peers}
        of_kit = {LIMIT: str(sockets[LIMIT]), OURS: str(sockets[KIT])}
        for row in ROWS:
            if wanted.only in row.operation and (bench.client_cpu is not None or row.placement is Placement.SAME):
                console.print(f"{row.name}, {row.placement.value} ...", style="dim")
                at = of_kit if row.kit else reachable
                takes = {name: take(bench, row, path) for name, path in at.items()}
                figures.append(repeat(row, takes, wanted.repetitions, attempts))
        if not wanted.no_qemu:
            qemu = load_config("qtest").command(find_qemu().require().path, [])
            for row in QEMU_ROWS:
                if wanted.only in row.operation:
                    console.print(f"{row.name} ...", style="dim")
                    takes = {name: through_qemu(bench, row, qemu, path) for name, path in reachable.items()}
                    figures.append(repeat(row, takes, wanted.repetitions, attempts))
            if wanted.only in "attach":
                device = ["-device", device_option(sockets[OURS])]
                others.append(attach(bench, qemu, device))
    if wanted.only in "orders":
        console.print("orders of arrival ...", style="dim")
        others += orders(wanted.repetitions, wanted.seconds)
    if not wanted.only:
        console.print("the whole ...", style="dim")
        others += [idle_cpu(bench, 1 if wanted.quick else 10), *responsive(bench), *many_devices(bench)]
    return figures, others


def take(bench: Bench, row: Row, path: str) -> Take:
    """How to measure a row on the server at `path`."""
    options = ["--length", str(row.length)]
    cpu = bench.server_cpu if row.placement is Placement.SAME else bench.client_cpu
    if row.placement is Placement.POLLING:
        options.append("--poll")
    limit = ["--limit", *(["--bulk"] if row.bulk else []), *(["--room"] if row.room else [])]
    limit += ["--peer-polls"] if row.placement is not Placement.SAME else []

    def one(name: str) -> Sample:
        operation = row.measured or row.operation if name == LIMIT else row.operation
        return run_client(
            bench.programs, operation, path, cpu, bench.seconds, *options, *(limit if name == LIMIT else [])
        )

    return one


def through_qemu(bench: Bench, row: Row, qemu: list[str], path: str) -> Take:
    """How to measure a row through QEMU: the client's peer is QEMU then, and the server's CPU time counts as well."""
    server = server_of(path)

    def one(name: str) -> Sample:
        also = [] if name == LIMIT or server is None else ["--also", str(server)]
        device = [] if name == LIMIT else ["-device", device_option(Path(path))]
        operation = "qtest-own-read" if name == LIMIT else row.operation
        with attached(bench, qemu, device) as qtest:
            return run_client(bench.programs, operation, qtest, bench.server_cpu, bench.seconds, *also)

    return one


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except BenchError as error:
        raise SystemExit(f"bench: {error}") from error
    except json.JSONDecodeError as error:
        raise SystemExit(f"bench: a program must print JSON: {error}") from error
