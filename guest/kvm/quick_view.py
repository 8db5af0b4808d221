"""Single scenarios for a person: run one kernel after the other, and shown as they end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from ..report.kernel import show_findings
from ..verdict import Verdict
from .job import KernelJob
from .quick import run_scenarios


async def show_scenarios(jobs: Sequence[KernelJob], names: Iterable[str], console: Console) -> bool:
    """Run and show them; whether all was as it must be. Raises what `run_scenarios` raises."""
    wanted = tuple(names)
    right = True
    for job in jobs:
        started = time.monotonic()
        found = await run_scenarios(job, wanted)
        for run in dict.fromkeys(finding.cpu for finding in found):
            console.print(Text(run, "bold"))
            show_findings([finding for finding in found if finding.cpu == run], console)
        console.print(f"{job.title}: {time.monotonic() - started:.1f} s", highlight=False)
        right &= all(finding.verdict is not Verdict.DISAGREE for finding in found)
    return right
