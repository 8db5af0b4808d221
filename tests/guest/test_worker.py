"""Jobs in processes of their own: what is left of one that is stopped, and one that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from pyvfio_user.guest.errors import MatrixError
from pyvfio_user.guest.jobs import Job
from pyvfio_user.guest.worker import StepDone, run_in_process

from .fake_debian import script

JOB = Job("max", 1, ("status-quo",), True, ("fifo",))


def children() -> set[int]:
    """Processes of this one."""
    return {int(each) for each in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.asyncio
async def test_a_job_that_is_cancelled_leaves_no_socket_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    running = asyncio.Event()
    task = asyncio.create_task(run_in_process(JOB, None, lambda *step: running.set()))
    await running.wait()
    assert list(tmp_path.glob("*/probe.sock")) != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_a_process_that_dies_is_an_error_for_people() -> None:
    before = children()

    def kill(*step: object) -> None:
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(MatrixError) as caught:
        await run_in_process(JOB, None, kill)
    assert str(caught.value) == "the run with -cpu max, FWB=1 must give a result, not end with status -9"


@pytest.mark.asyncio
async def test_a_job_that_is_cancelled_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = msgspec.json.encode(StepDone(0, 1, "")).decode()
    python = script(tmp_path / "python", f"#!/bin/sh\necho '{step}'\nexec sleep 1000\n")
    monkeypatch.setattr(sys, "executable", str(python))
    before, running = children(), asyncio.Event()
    task = asyncio.create_task(run_in_process(JOB, None, lambda *step: running.set()))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert children() == before


@pytest.mark.asyncio
async def test_ctrl_c_is_the_parents_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = script(tmp_path / "python", "#!/bin/sh\nkill -INT $$\nexit 5\n")
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(MatrixError, match=r"not end with status 5$"):
        await run_in_process(JOB, None, lambda *step: None)


@pytest.mark.asyncio
async def test_what_keeps_a_job_from_running_is_told_in_its_own_words() -> None:
    with pytest.raises(MatrixError, match=r"^QEMU ended with exit status 1\nQEMU's command:\n"):
        await run_in_process(msgspec.structs.replace(JOB, cpu="none", fwb=0), None, lambda *step: None)
