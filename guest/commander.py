"""The host's end of the bare-metal guest: one coroutine a command, over the probe's mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from ..devices.mailbox import Submission
from .hello import Hello, pack_hello, pack_off, unpack_hello
from .plan import Context, Experiment, Fault, Range, Runs, pack_install, pack_run, unpack_install, unpack_run
from .script import Action, Outcome, Space, Step, StepStatus, pack_script, unpack_script
from .workload import Pushed, Workload, pack_workload, unpack_workload


class StepFailed(RuntimeError):
    """A single access that the guest made on request ended in a fault, a timeout or a refusal."""

    def __init__(self, step: Step, outcome: Outcome) -> None:
        super().__init__(
            f"the guest's {step.action.name.lower()} of {step.size} bytes of {step.space.name} at {step.address:#x} "
            f"must be done, not {outcome.status.name} (value {outcome.value:#x}, ESR {outcome.esr:#x})"
        )
        self.outcome = outcome


class Post(Protocol):
    """What a guest is reached by: `devices.mailbox.Mailbox` has it."""

    def post(self, message: bytes) -> asyncio.Future[Submission]:
        """Queue a message; the future is the answer."""


class Guest:
    """One running guest. ``last`` is the newest submission: its transactions and the mapped window's bytes.

    ``bounded`` wraps each wait: `Qemu.bounded` there makes the end of QEMU an error at once, not a wait for ever.

    Every command raises `GuestRefused` when the guest says no, and what the mailbox raises.
    """

    def __init__(self, mailbox: Post, bounded: Callable[[Awaitable[Submission]], Awaitable[Submission]] | None = None):
        self._mailbox = mailbox
        self._bounded = bounded
        self.last = Submission(b"", [], b"")

    async def _exchange(self, message: bytes) -> bytes:
        answer = self._mailbox.post(message)
        self.last = await (self._bounded(answer) if self._bounded else answer)
        return self.last.data

    async def hello(self, vendor: int = 0, device: int = 0) -> Hello:
        """What the guest is and found; with numbers, that device comes under test."""
        return unpack_hello(await self._exchange(pack_hello(vendor, device)))

    async def install(self, ranges: Iterable[Range], *, fwb: bool = False, faults: Fault = Fault.NONE) -> Context:
        """Make these ranges all that stage 2 and the host window map."""
        return unpack_install(await self._exchange(pack_install(ranges, fwb=fwb, faults=faults)))

    async def run(self, experiments: Sequence[Experiment]) -> Runs:
        """Run up to `plan.MAX_RUN` experiments."""
        return unpack_run(await self._exchange(pack_run(experiments)))

    async def script(self, steps: Sequence[Step]) -> list[Outcome]:
        """Make single accesses, in order."""
        return unpack_script(await self._exchange(pack_script(steps)))

    async def workload(self, workload: Workload) -> Pushed:
        """Run the push loop."""
        return unpack_workload(await self._exchange(pack_workload(workload)))

    async def off(self) -> None:
        """Turn the machine off."""
        await self._exchange(pack_off())

    async def read(self, space: Space, size: int, address: int) -> int:
        """One read.

        Raises:
            StepFailed: It was not done.
        """
        return await self._step(Step(Action.READ, space, size, address))

    async def write(self, space: Space, size: int, address: int, value: int) -> None:
        """One write.

        Raises:
            StepFailed: It was not done.
        """
        await self._step(Step(Action.WRITE, space, size, address, value))

    async def wait(self, space: Space, size: int, address: int, value: int, *, mask: int = -1) -> int:
        """Read until the masked value is this one, for at most a second.

        Raises:
            StepFailed: It was not done, or the time was over.
        """
        return await self._step(Step(Action.WAIT, space, size, address, value, mask))

    async def steps(self, steps: Sequence[Step]) -> list[int]:
        """Accesses one after the other: what was read.

        Raises:
            StepFailed: One was not done; those after it were tried all the same.
        """
        outcomes = await self.script(steps)
        for step, outcome in zip(steps, outcomes, strict=True):
            if outcome.status is not StepStatus.DONE:
                raise StepFailed(step, outcome)
        return [outcome.value for outcome in outcomes]

    async def _step(self, step: Step) -> int:
        return (await self.steps([step]))[0]
