"""MSI-X of a device, through the ITS that a script has set up, to the bare-metal guest's own vector."""

from __future__ import annotations

import pytest

from pyvfio_user.devices.probe import Probe
from pyvfio_user.devices.probe_map import Reg
from pyvfio_user.guest.fixtures import StartGuest
from pyvfio_user.guest.kvm.its import FIRST_LPI, Its
from pyvfio_user.guest.script import Action, Outcome, Space, Step, StepStatus

pytestmark = pytest.mark.asyncio

WAIT = Step(Action.INTERRUPT, Space.MMIO, 4, 0, timeout_us=20_000)
NONE = Outcome(StepStatus.TIMEOUT, 0, 0)


async def test_each_vector_is_an_interrupt_of_its_own(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    hello = await running.guest.hello()
    function = hello.find(Probe.identity.vendor, Probe.identity.device)
    its = Its(running.guest, hello)
    await its.start()
    messages = await its.enable(function, 3)
    assert [(each.vector, each.number - FIRST_LPI) for each in messages] == [(0, 0), (1, 1), (2, 2)]
    fire = [Step(Action.WRITE, Space.MMIO, 4, function.bars[0] + Reg.IRQ, vector) for vector in (2, 0)]
    outcomes = await running.guest.script([WAIT, fire[0], WAIT, fire[1], WAIT, WAIT])
    assert [outcomes[at] for at in (0, 2, 4, 5)] == [
        NONE,
        Outcome(StepStatus.DONE, 0, FIRST_LPI + 2),
        Outcome(StepStatus.DONE, 0, FIRST_LPI),
        NONE,
    ]


async def test_a_vector_that_is_masked_waits(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    hello = await running.guest.hello()
    function = hello.find(Probe.identity.vendor, Probe.identity.device)
    its = Its(running.guest, hello)
    await its.start()
    await its.enable(function, 1)
    control = function.bars[2] + 0x60000 + 12
    mask, unmask = (Step(Action.WRITE, Space.MMIO, 4, control, value) for value in (1, 0))
    fire = Step(Action.WRITE, Space.MMIO, 4, function.bars[0] + Reg.IRQ, 0)
    outcomes = await running.guest.script([mask, fire, WAIT, unmask, WAIT])
    assert [outcomes[2], outcomes[4]] == [NONE, Outcome(StepStatus.DONE, 0, FIRST_LPI)]


async def test_an_instruction_of_the_devices(baremetal_guest: StartGuest) -> None:
    """Where stage 2 has nothing EL2 takes an instruction abort; a page that it maps is never for execution."""
    running = await baremetal_guest()
    hello = await running.guest.hello()
    steps = [
        Step(Action.EXECUTE, Space.MMIO, 4, hello.physical(2, 0x20000)),
        Step(Action.EXECUTE, Space.MMIO, 4, 1 << 30),
    ]
    absent, beyond = await running.guest.script(steps)
    assert (absent.status, absent.esr >> 26, absent.value) == (StepStatus.FAULT, 0x20, 2)
    assert beyond.status is StepStatus.BAD
