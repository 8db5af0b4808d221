"""Runs `program.c` in a traced QEMU, and says what was traced in a line an event."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pyvfio_user.bridge.stream import NO_STAGE_2, Event, Flag, Kind
from pyvfio_user.guest import payload
from pyvfio_user.guest.provision.compiler import find_compiler
from pyvfio_user.guest.tracing import Tracer

MARK = 0x800
_FLAGS = [flag for flag in Flag if flag]


def compile_program(folder: Path, stores: int = 0) -> Path:
    """The ELF of `program.c`, with the bare-metal guest's parts around it; `stores` makes it run for longer."""
    main = (Path(__file__).parent / "program.c").read_text()
    return payload.compile_in(folder, find_compiler(), {**payload.sources(), "main.c": main}, [f"-DSTORES={stores}ull"])


def run_traced(qemu: Path, kernel: Path, tracer: Tracer | None, *, cpu: str = "max", smp: int = 2) -> str:
    """Run it to its end, with 1 MiB of RAM as BAR 2 of ivshmem; its console."""
    command = [str(qemu), "-M", "virt,virtualization=on,gic-version=3" + (",mte=on" if cpu == "max" else "")]
    command += ["-cpu", cpu, "-smp", str(smp), "-m", "256M", "-nodefaults", "-display", "none", "-serial", "stdio"]
    command += ["-object", "memory-backend-memfd,id=bar,size=1M,share=on", "-device", "ivshmem-plain,memdev=bar"]
    command += ["-semihosting-config", "enable=on", "-kernel", str(kernel), *(tracer.options if tracer else ())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done
    return done.stdout


def by_case(events: list[Event]) -> dict[int, list[Event]]:
    """The events behind each store to MARK, by the number stored."""
    cases: dict[int, list[Event]] = {0: []}
    case = 0
    for event in events:
        if event.bar == 2 and event.offset == MARK:
            case = int.from_bytes(event.data, "little")
            cases[case] = []
        else:
            cases[case].append(event)
    return cases


def access(event: Event) -> str:
    """What was done: "store 2+0x0 8: 0x1234 pair #1", or a barrier as an assembler has it."""
    if event.kind in (Kind.BARRIER, Kind.DGH):
        return str(event.barrier or "dgh")
    bar = "?" if event.bar is None else f"{event.bar:x}"
    flags = "".join(f" {flag.name.lower()}" for flag in _FLAGS if flag & event.flags and flag.name)
    number = f" #{event.element}" if event.element else ""
    data = f": {int.from_bytes(event.data, 'little'):#x}" if event.data else ""
    return f"{event.kind.name.lower()} {bar}+{event.offset:#x} {event.size}{data}{flags}{number}"


def label(event: Event) -> str:
    """Of which type: "ff over 1 = 04 at EL1"; FWB as a prime."""
    stage2 = {None: "?", NO_STAGE_2: "none"}.get(event.stage2, str(event.stage2)) + ("'" if event.fwb else "")
    return f"{event.stage1 or '?'} over {stage2} = {event.type or '?'} at EL{event.el}"
