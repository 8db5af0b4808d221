"""Single scenarios from a snapshot, and that a machine whose device is not the one that is looked at cannot pass."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.bridge.server import serve
from pyvfio_user.devices.mailbox import Submission
from pyvfio_user.devices.probe import Probe
from pyvfio_user.devices.probe_map import MSIX_TABLE, RANGES, Reg
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.commander import Guest
from pyvfio_user.guest.errors import MatrixError, QemuError
from pyvfio_user.guest.hello import Hello, PciFunction
from pyvfio_user.guest.kvm.gdbstub import GdbStub
from pyvfio_user.guest.kvm.kernels import kernel_jobs
from pyvfio_user.guest.kvm.quick import check_witness
from pyvfio_user.guest.kvm.stage2 import read_tables
from pyvfio_user.guest.lanes.kvm import Backing
from pyvfio_user.guest.layout import LAYOUT
from pyvfio_user.guest.linux.boot import booted_linux
from pyvfio_user.guest.linux.ready import prepare
from pyvfio_user.guest.linux.snapshot import go_on, save, wake
from pyvfio_user.guest.operation import PAGE
from pyvfio_user.guest.plan import Range
from pyvfio_user.guest.qemu import Qemu
from pyvfio_user.guest.script import Action, Outcome, Space, Step, StepStatus

WINDOW = RANGES["wc-trapped"].offset
FUNCTION = PciFunction(0x1234, 0xBE50, 0, 0, (0x1000_0000, 0, 0x1010_0000, 0, 0, 0), (0,) * 6)
HELLO = Hello._make((*[0] * 14, 0, (FUNCTION,), 0))


@pytest.mark.parametrize(("kernel", "cpu"), [("6.12", "neoverse-n1"), ("7.3", "neoverse-n1"), ("7.3", "cortex-a72")])
def test_a_scenario_from_a_snapshot(kernel: str, cpu: str) -> None:
    arguments = ["kvm", "--kernel", kernel, "--cpu", cpu, "--scenario", "doorbell"]
    for _ in range(2):  # the first may have to take the snapshot
        done = CliRunner().invoke(main, arguments, prog_name="pyvfio-user")
        assert done.exit_code == 0, done.output
        assert "interrupt 8192 acknowledged, DOORBELL in RAM" in re.sub(r"[\s│]+", " ", done.output)
        assert "change" not in done.output


@pytest.mark.asyncio
async def test_the_page_of_the_msix_table_is_in_no_memslot() -> None:
    """The VMM emulates it: the messages of a guest that had the device's own table would go where the guest likes."""
    (job,) = kernel_jobs(["6.12"], ["neoverse-n1"])
    async with booted_linux(job.files, job.cpu, ("vfio",), going_on=True) as up:
        hello = await up.guest.hello()
        await up.guest.install([Range(bar.index, 0, bar.size // PAGE, Backing.DEVICE, 0) for bar in LAYOUT.bars])
        pages = [hello.physical(RANGES["msix"].bar, MSIX_TABLE + offset) for offset in (-PAGE, 0, PAGE)]
        await up.guest.steps([Step(Action.READ, Space.MMIO, 4, page) for page in pages])
        register = hello.physical(0, Reg.SCRATCH)
        spinning = asyncio.create_task(
            up.guest.script([Step(Action.WAIT, Space.MMIO, 4, register, 1, timeout_us=60_000_000)])
        )
        async with up.stub as stub:
            tables = await read_tables(stub, pages)
            up.probe.bar0.scratch = 1
        assert [(outcome.status, outcome.value) for outcome in await spinning] == [(StepStatus.DONE, 1)]
        assert [tables.pages[page] is None for page in pages] == [False, True, False]


def test_what_stage_2_must_be_has_to_be_known() -> None:
    arguments = ["kvm", "--kernel", __file__, "--scenario", "changes"]
    done = CliRunner().invoke(main, arguments, prog_name="pyvfio-user")
    assert done.exit_code != 0
    assert "must be named, with --expect, to judge a scenario by" in done.output


class Absent(Guest):
    """A guest that does all that it is told, to some other device: ``seen`` is what the probe gets of it."""

    def __init__(self, probe: Probe, seen: dict[str, int]) -> None:
        super().__init__(probe.mailbox)
        self.probe, self.seen = probe, seen

    async def script(self, steps: object) -> list[Outcome]:
        assert isinstance(steps, list)
        value = next(step.value for step in steps if isinstance(step, Step))
        self.probe.bar0.scratch = self.seen.get("register", 1) * value & 0xFFFF_FFFF
        stored = self.seen.get("window", 1) * value & 0xFFFF_FFFF
        log = [Transaction(0, True, 2, WINDOW, 4, stored.to_bytes(4, "little"))] if "nothing" not in self.seen else []
        self.last = Submission(b"", log, b"")
        return [Outcome(StepStatus.DONE, 0, 0)] * len(steps)


@pytest.mark.asyncio
@pytest.mark.parametrize("seen", [{"register": 3}, {"window": 3}, {"nothing": 0}], ids=str)
async def test_a_device_that_has_seen_something_else(seen: dict[str, int]) -> None:
    probe = Probe()
    await check_witness(Absent(probe, {}), HELLO, probe)
    with pytest.raises(MatrixError, match=r"^the device must see what the guest stores, 0x"):
        await check_witness(Absent(probe, seen), HELLO, probe)


@pytest.mark.asyncio
async def test_a_device_that_was_attached_when_the_state_was_saved(tmp_path: Path) -> None:
    """When it goes on its device is a new one that decodes no BARs: nothing of that may look like a pass."""
    (job,) = kernel_jobs(["6.1"], ["neoverse-n1"])
    async with booted_linux(job.files, job.cpu, ("vfio",)) as up:
        hello = await up.guest.hello()
        await check_witness(up.guest, hello, up.probe)
        await save(up.vm, tmp_path / "state")
    ready = prepare(job.files, job.cpu, ("vfio",))
    probe, socket = Probe(), tmp_path / "socket"
    options = [*ready.options(tmp_path, ["0x1234:0xbe50"], ("vfio",)), *go_on(tmp_path / "state")]
    async with serve(probe, socket), Qemu(ready.command([socket], options), timeout=60) as vm:
        await wake(vm, GdbStub(tmp_path / "gdb", vm.lost), "vfio")
        guest = Guest(probe.mailbox, vm.bounded)
        with pytest.raises((QemuError, TimeoutError)):
            async with asyncio.timeout(10):
                await check_witness(guest, hello, probe)
        assert probe.bar0.scratch == 0
