"""The matrix: schemes x ranges x the guest's stage-1 types, on each CPU, judged and put together."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from ..bridge.errors import DefinitionError
from ..bridge.schemes import SCHEMES
from .errors import MatrixError
from .jobs import ALL_PAIRS, Job, JobResult
from .kvm.job import KernelJob
from .lanes.places import PLACES
from .orders.attach import Ordered, with_orders
from .provision.qemu import find_qemu
from .results import Battery, Cell, Kernel, Matrix
from .scorecard import answers
from .worker import AnyJob, run_in_process

FWB_SETTINGS = {"max": (1, 0), "neoverse-n2": (1, 0), "neoverse-v1": (1, 0)}
"""The CPUs of QEMU that have FEAT_S2FWB, so that HCR_EL2.FWB can be 1 or 0; every other CPU has 0 alone."""
DEFAULT_CPUS = ("max", "cortex-a76")

Progress = Callable[[str, int, int, str], None]
"""Called with the job's name, its steps done, its steps in all, and what is next."""


def plan_jobs(schemes: Sequence[str], cpus: Sequence[str], ranges: Sequence[str] = ()) -> list[Job]:
    """One job a CPU and FWB setting. The first with a setting runs the full battery, later ones the short one.

    Raises:
        DefinitionError: There is no scheme, or no range, with such a name.
    """
    for name in ranges:
        if name not in PLACES:
            raise DefinitionError(f"range must be one of {', '.join(PLACES)}, not {name}")
    for name in schemes:
        if name != ALL_PAIRS and name not in SCHEMES:
            raise DefinitionError(f"scheme must be one of {', '.join([*SCHEMES, ALL_PAIRS])}, not {name}")
    jobs: list[Job] = []
    for cpu in dict.fromkeys(cpus):
        for fwb in FWB_SETTINGS.get(cpu, (0,)):
            full = all(job.fwb != fwb for job in jobs)
            # The pairs of types by themselves need one CPU a setting.
            wanted = [name for name in schemes if name != ALL_PAIRS or full]
            if wanted:
                jobs.append(Job(cpu, fwb, tuple(wanted), full, tuple(ranges)))
    return jobs


async def run_jobs(
    jobs: Sequence[AnyJob],
    *,
    explicit: bool = False,
    orders: Ordered | None = None,
    progress: Progress | None = None,
) -> Matrix:
    """Run jobs of any lane, one on each CPU of this machine at a time, and put their results together.

    A kernel that cannot be looked at is among the results, with the reason; ``explicit`` is `assemble`'s. With
    ``orders``, what the types that were reached permit is worked out after that.

    Raises:
        MatrixError: A run of lane el2 failed; the message has QEMU's command and console.
    """
    started = time.monotonic()
    processors = sorted(os.sched_getaffinity(0))
    free = asyncio.Queue[int]()
    for number in processors:
        free.put_nowait(number)

    async def one(job: AnyJob) -> JobResult:
        number = await free.get()
        try:
            return await run_in_process(job, number, lambda *step: progress(job.title, *step) if progress else None)
        except MatrixError as error:
            if isinstance(job, KernelJob):
                return _failed(job, str(error))
            raise
        finally:
            free.put_nowait(number)

    tasks = [asyncio.create_task(one(job)) for job in jobs]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    matrix = assemble(jobs, results, explicit=explicit, seconds=time.monotonic() - started)
    return matrix if orders is None else await with_orders(matrix, orders, progress=progress)


def _failed(job: KernelJob, why: str) -> JobResult:
    kernel = Kernel(job.name, job.release, job.cpu, expected=job.expected, failure=why)
    problem = f"{job.title} could not be looked at: {why.partition(chr(10))[0]}"
    return JobResult((), (), {}, (problem,), {}, {}, 0, 0, (), kernels=(kernel,))


def assemble(jobs: Sequence[AnyJob], results: Sequence[JobResult], *, explicit: bool, seconds: float) -> Matrix:
    """Put the jobs' results together; ``explicit``: the pairs of types were asked for, so they are cells."""
    cells: list[Cell] = [cell for result in results for cell in result.cells]
    pairs = tuple(cell for cell in cells if cell.scheme == ALL_PAIRS)
    chosen = tuple(cell for cell in cells if explicit or cell.scheme != ALL_PAIRS)
    host = tuple(cell for result in results for cell in result.host)
    batteries: dict[str, Battery] = {}
    for result in results:
        batteries.update(result.batteries)
    experiments = sum(result.experiments for result in results)
    transactions = sum(result.transactions for result in results)
    problems = [problem for result in results for problem in result.problems]
    kernels = tuple(kernel for result in results for kernel in result.kernels)
    if not (experiments and transactions and chosen) and not any(kernel.failure for kernel in kernels):
        problems.append(f"a run must make experiments and transactions, not {experiments} and {transactions}")
    shown = _total(results)
    missed = {name: where for result in results for name, where in result.missed.items() if name not in shown}
    vanished = tuple(f"{name} (first: {where})" for name, where in sorted(missed.items()))
    found = find_qemu().require()
    provenance = {
        "tool": f"pyvfio-user {version('pyvfio-user')}",
        "python": platform.python_version(),
        "host": f"{platform.system()} {platform.release()} {platform.machine()}",
        "qemu": found.version,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds)),
        "seconds": round(seconds, 1),
        "experiments": experiments,
        "transactions": transactions,
        "known_deviations_seen": _by_name(shown),
        "jobs": [
            {**_provenance(job), "features": result.features, "command": result.command}
            for job, result in zip(jobs, results, strict=True)
        ],
    }
    scorecard = answers(sorted({cell.scheme for cell in chosen} - {ALL_PAIRS}, key=list(SCHEMES).index), chosen, host)
    proofs = tuple(proof for result in results for proof in result.proofs)
    findings = tuple(finding for result in results for finding in result.findings)
    return Matrix(
        provenance,
        chosen,
        host,
        pairs,
        batteries,
        scorecard,
        tuple(problems),
        vanished,
        kernels=kernels,
        proofs=proofs,
        findings=findings,
    )


def _provenance(job: AnyJob) -> dict[str, Any]:
    if isinstance(job, KernelJob):
        return {"lane": "kvm", "cpu": job.cpu, "kernel": job.release}
    return {"lane": "el2", "cpu": job.cpu, "fwb": job.fwb, "full": job.full}


def _total(results: Sequence[JobResult]) -> Counter[str]:
    """How often each known deviation showed, by instruction."""
    return sum((Counter(result.shown) for result in results), Counter())


def _by_name(shown: Counter[str]) -> dict[str, int]:
    """The same by deviation: its name stands before the colon."""
    total: Counter[str] = Counter()
    for key, count in shown.items():
        total[key.partition(":")[0]] += count
    return dict(total)
