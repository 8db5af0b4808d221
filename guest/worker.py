"""Run jobs: each in a process of its own, pinned to one CPU together with its QEMU, its result on standard output.

A trapped access is a conversation between QEMU and the server. On one CPU the two hand over to each other, which costs
a few microseconds; across two idle CPUs each hand-over waits for the other CPU to wake, which costs tens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import msgspec

from ..bridge.loop import run
from ..devices.probe import Probe
from ..devices.probe_map import Reg
from .boot import booted
from .commander import Guest
from .errors import BuildError, KernelError, MatrixError, QemuError
from .hello import Hello
from .jobs import Job, JobResult, Progress, Runner
from .kvm.job import KernelJob
from .kvm.schemes import look_at
from .lanes.el2 import El2Lane
from .plan import Fault
from .provision.errors import ProvisionError
from .script import Space


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """Progress: steps done, steps in all, what is next."""

    done: int
    steps: int
    what: str


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The job's result."""

    result: JobResult


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Why there is none, for people."""

    why: str


_FOR_PEOPLE = (BuildError, KernelError, MatrixError, ProvisionError, QemuError)
"""Errors whose messages say all; of others the type is said, too."""

Report = StepDone | Finished | Failed


AnyJob = Job | KernelJob


async def run_job(job: AnyJob, progress: Progress, probe: Probe | None = None) -> JobResult:
    """Serve a probe (a new one unless given), boot the guest or the kernel, run the job.

    Raises what `booted` or `look_at` raises.
    """
    if isinstance(job, KernelJob):
        return await look_at(job, progress, probe)
    async with booted(job.cpu, probe) as up:
        if job.fwb and "fwb" not in up.hello.features:
            raise ValueError(f"CPU must have FEAT_S2FWB to run with FWB=1, not {job.cpu}")
        lane = El2Lane(up.guest, up.probe, up.hello, fwb=bool(job.fwb), faults=Fault(job.faults))
        runner = Runner(lane, job, progress)
        await runner.run(lambda page: _open_page(up.guest, up.hello, up.probe, page))
    return runner.result(up.hello, up.command)


async def _open_page(guest: Guest, hello: Hello, probe: Probe, page: int) -> None:
    """The guest tells the device, through its register, to make a page of `dynamic` write-combining-safe."""
    await guest.write(Space.MMIO, 4, hello.physical(0, Reg.WC_SAFE), 1 << page)
    if probe.wc_safe_pages != {page}:
        raise RuntimeError(f"the device's safe pages must be {{{page}}}, not {set(probe.wc_safe_pages)}")


async def run_in_process(job: AnyJob, cpu_number: int | None, progress: Progress) -> JobResult:
    """Run a job in a process of its own, pinned to a CPU of this machine.

    Raises:
        MatrixError: It failed; the message says why, QEMU's command and console included.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        *([] if cpu_number is None else [str(cpu_number)]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=_ignore_interrupts,
        limit=1 << 30,
    )
    assert process.stdin is not None and process.stdout is not None
    decoder = msgspec.json.Decoder(Report)
    try:
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        async for line in process.stdout:
            report = decoder.decode(line)
            if isinstance(report, StepDone):
                progress(report.done, report.steps, report.what)
            elif isinstance(report, Finished):
                await process.wait()
                return report.result
            else:
                raise MatrixError(report.why)
        raise MatrixError(f"the run with {job.title} must give a result, not end with status {await process.wait()}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _ignore_interrupts() -> None:
    """Ctrl-C is the parent's, which then sends SIGTERM; ignored from the first, while the child still imports."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _emit(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


async def _until_terminated(job: AnyJob) -> JobResult:
    """Run the job; SIGTERM cancels it, so that QEMU and the folders of its sockets go with it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_job(job, lambda done, steps, what: _emit(StepDone(done, steps, what)))


def main() -> None:
    """Run the job on standard input; the argument, if any, is the CPU to run on."""
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=AnyJob)
    try:
        _emit(Finished(run(_until_terminated(job))))
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None
    except Exception as error:  # the parent shows it: this process has no other way to say it
        said = str(error) if isinstance(error, _FOR_PEOPLE) else f"{type(error).__name__}: {error}"
        _emit(Failed(said))
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
