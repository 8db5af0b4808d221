"""How much slower a guest is when it is traced: `python -m tests.bench.tracing`; a table.

A run is one QEMU, untraced or traced, in turn. A traced one's events are taken from the ring meanwhile, as for a file.
The figures are each side's quickest run: others on the machine only ever slow one down.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pyvfio_user.guest import payload
from pyvfio_user.guest.provision.compiler import find_compiler
from pyvfio_user.guest.provision.qemu import find_qemu
from pyvfio_user.guest.tracing import Recorded, Tracer, recording

ROWS = {
    "store": ("8-byte store to a mapped BAR, in a loop", "<= 15"),
    "burst": ("64-byte burst to a mapped BAR: 8 stores and a DGH", ""),
    "load": ("4-byte load from a mapped BAR, in a loop", ""),
    "trapped": ("4-byte load from a register of QEMU's own", ""),
    "sort": ("ordinary code: a word sorted", "<= 4"),
    "arithmetic": ("registers only", ""),
}


def compile_program(folder: Path, count: int) -> Path:
    """The ELF of `traced.c` around the bare-metal guest's parts."""
    main = Path(__file__).with_name("traced.c").read_text()
    return payload.compile_in(folder, find_compiler(), {**payload.sources(), "main.c": main}, [f"-DCOUNT={count}ull"])


def run(kernel: Path, options: Sequence[str]) -> dict[str, float]:
    """Nanoseconds by row."""
    command = [str(find_qemu().require().path), "-M", "virt,virtualization=on,gic-version=3", "-cpu", "max"]
    command += ["-m", "256M", "-nodefaults", "-display", "none", "-serial", "stdio", "-kernel", str(kernel)]
    command += ["-object", "memory-backend-memfd,id=bar,size=1M,share=on", "-device", "ivshmem-plain,memdev=bar"]
    command += ["-semihosting-config", "enable=on", *options]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=True)
    return {name: int(picoseconds) / 1000 for name, picoseconds in re.findall(r"^(\w+): (\d+)$", done.stdout, re.M)}


def traced(kernel: Path) -> tuple[dict[str, float], Recorded]:
    """The same, traced."""
    said = Recorded()
    with Tracer() as tracer, recording(tracer, Path("/dev/null"), said):
        found = run(kernel, tracer.options)
    return found, said


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; exit status 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tracing", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("--count", type=int, default=8_000_000, metavar="N", help="operations of a measurement")
    wanted = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("operation", "untraced ns", "traced ns", "ratio [of pairs]", "to reach", title="the cost of tracing")
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-bench-") as folder:
        kernel = compile_program(Path(folder), wanted.count)
        pairs, written, lost = [], 0, 0
        for _ in range(wanted.repetitions):
            plain = run(kernel, [])
            slow, said = traced(kernel)
            pairs.append((plain, slow))
            written, lost = written + said.events, lost + said.lost
    for name, (title, target) in ROWS.items():
        ratios = sorted(slow[name] / plain[name] for plain, slow in pairs)
        plain_best, slow_best = (min(each[name] for each in side) for side in zip(*pairs, strict=True))
        spread = f"{slow_best / plain_best:.1f} [{ratios[0]:.1f}..{ratios[-1]:.1f}]"
        table.add_row(title, f"{plain_best:.2f}", f"{slow_best:.2f}", spread, target)
    console.print(table)
    console.print(f"{written:,} events were written, {lost:,} were lost", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
