"""The bare-metal guest at work on real devices: the probe's mailbox, its log, and another device driven by hand."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict

import pytest

from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.devices.probe_map import RANGES, Reg
from pyvfio_user.devices.upcase import Upcase
from pyvfio_user.guest.battery import BATTERY, INDEX
from pyvfio_user.guest.commander import Guest, StepFailed
from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.fixtures import ServeDevice, StartGuest
from pyvfio_user.guest.hello import PciFunction
from pyvfio_user.guest.operation import SLOT, Kind, Op, pattern, qemu_transactions
from pyvfio_user.guest.plan import MAIR, Experiment, Range, Status
from pyvfio_user.guest.push import Delivery, check_log
from pyvfio_user.guest.script import Space
from pyvfio_user.guest.workload import Barrier, Idiom, Workload

NC, NGNRE = MAIR.index(0x44), MAIR.index(0x04)
TRAPPED, STRICT = RANGES["wc-trapped"].offset, RANGES["strict"].offset
OPS = [op for op in BATTERY if op.kind is not Kind.TRANSLATE and op.feature != "ls64"]

pytestmark = pytest.mark.asyncio


def by_mark(transactions: list[Transaction]) -> dict[int, list[Transaction]]:
    """The transactions that follow each write to MARK."""
    found: dict[int, list[Transaction]] = defaultdict(list)
    mark = 0
    for each in transactions:
        if (each.region, each.offset, each.write) == (0, Reg.MARK, True):
            mark = int.from_bytes(each.data, "little")
        else:
            found[mark].append(each)
    return found


def place(op: Op, number: int) -> int:
    return TRAPPED + (4096 - SLOT if op.crossing else SLOT * 2 * (number % 15))


async def test_every_operation_reaches_a_trapped_window_as_it_declares(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    await running.guest.install([Range(2, TRAPPED, 32, 5, NC), Range(0, Reg.DOORBELL, 1, 1, NGNRE)])
    experiments = [
        Experiment(n + 1, INDEX[op.name], 1, NC, 2, place(op, n), 0, 0, NGNRE, Reg.DOORBELL) for n, op in enumerate(OPS)
    ]
    results = (await running.guest.run(experiments)).results
    logs = by_mark(running.guest.last.transactions)
    for op, experiment, result in zip(OPS, experiments, results, strict=True):
        assert (result.status, result.mark, result.ran_at) == (Status.DONE, experiment.mark, 1), op.name
        log = [each for each in logs[experiment.mark] if each.region == 2]
        wanted = [(piece.offset, piece.size, piece.write) for piece in qemu_transactions(op)]
        assert [(each.offset - experiment.offset, each.size, each.write) for each in log] == wanted, op.name
        if op.kind is Kind.STORE:
            data = bytearray(op.span)
            for each in log:
                at = each.offset - experiment.offset
                data[at : at + each.size] = each.data
            assert bytes(data) == op.stored(pattern(experiment.mark), bytes(op.span)), op.name
        rung = [each.data for each in logs[experiment.mark] if each.region == 0]
        assert rung == ([op.doorbell_value(pattern(experiment.mark))] if op.doorbell else []), op.name


async def test_stage_2_decides_whether_bytes_or_a_fault_arrive(baremetal_guest: StartGuest) -> None:
    """status-quo against normal-nc-all: the same guest, Normal-NC, an unaligned 8-byte store."""
    running = await baremetal_guest()
    store = [Experiment(1, INDEX["str-x+1"], 1, NC, 2, STRICT)]
    await running.guest.install([Range(2, STRICT, 1, 1, NC)])
    (result,) = (await running.guest.run(store)).results
    assert (result.status, result.level) == (Status.FAULT, 2)
    assert by_mark(running.guest.last.transactions)[1] == []
    await running.guest.install([Range(2, STRICT, 1, 5, NC)])
    (result,) = (await running.guest.run(store)).results
    assert result.status == Status.DONE
    log = by_mark(running.guest.last.transactions)[1]
    assert [(each.offset - STRICT, each.size) for each in log] == [(1 + n, 1) for n in range(8)]
    assert b"".join(each.data for each in log) == pattern(1)[:8]


@pytest.mark.parametrize("el", [0, 1])
async def test_a_thousand_entries_arrive_whole_and_in_order(baremetal_guest: StartGuest, el: int) -> None:
    """At EL0 `guest.push_run` does the same for each type of the window."""
    running = await baremetal_guest()
    await running.guest.install([Range(2, TRAPPED, 32, 5, NC), Range(0, Reg.DOORBELL, 1, 1, NGNRE)])
    push = Workload(
        el=el,
        idiom=Idiom.ST1,
        barrier=Barrier.DMB,
        window_s1=NC,
        window_bar=2,
        window_offset=TRAPPED,
        doorbell_s1=NGNRE,
        doorbell_bar=0,
        doorbell_offset=Reg.DOORBELL,
        count=1000,
        slots=512,
    )
    pushed = await running.guest.workload(push)
    assert (pushed.pushed, pushed.status, pushed.ran_at) == (1000, Status.DONE, el)
    assert check_log(push, running.guest.last.transactions, 1000) == Delivery(1000, (8,) * 1000, ())


async def test_the_mapped_window_comes_with_the_answer(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    await running.guest.install([Range(2, 0, 32, 5, NC)])
    await running.guest.run([Experiment(7, INDEX["st1-4x16b"], 0, NC, 2, 2 * SLOT)])
    assert running.guest.last.window[2 * SLOT : 2 * SLOT + 64] == pattern(7)[:64]
    assert not any(running.guest.last.window[: 2 * SLOT])


async def _capability(guest: Guest, function: PciFunction, number: int) -> int:
    """Address in the ECAM of a capability."""
    at = await guest.read(Space.CONFIG, 1, function.address + 0x34)
    while at:
        identity, at_next = [await guest.read(Space.CONFIG, 1, function.address + at + n) for n in (0, 1)]
        if identity == number:
            return function.address + at
        at = at_next
    raise AssertionError(f"no capability {number}")


async def _enable_msix(guest: Guest, function: PciFunction, target: int) -> None:
    capability = await _capability(guest, function, 0x11)
    table = await guest.read(Space.CONFIG, 4, capability + 4)
    entry_at = function.bars[table & 7] + (table & ~7)
    await guest.write(Space.CONFIG, 2, capability + 2, 0x8000)
    for offset, value in ((0, target), (4, 0), (8, 0x5A), (12, 0)):
        await guest.write(Space.MMIO, 4, entry_at + offset, value)


async def _enable_msi(guest: Guest, function: PciFunction, target: int) -> None:
    capability = await _capability(guest, function, 0x05)
    wide = await guest.read(Space.CONFIG, 2, capability + 2) & 0x80
    await guest.write(Space.CONFIG, 4, capability + 4, target)
    await guest.write(Space.CONFIG, 2, capability + (12 if wide else 8), 0x5A)
    await guest.write(Space.CONFIG, 2, capability + 2, 1)


@pytest.mark.parametrize("interrupt", ["msix", "msi", "intx"])
async def test_the_guest_drives_the_teaching_device(
    baremetal_guest: StartGuest, serve_device: ServeDevice, interrupt: str
) -> None:
    running = await baremetal_guest(await serve_device(Upcase()))
    guest, hello = running.guest, await running.guest.hello()
    upcase = hello.find(0x1234, 0x11CA)
    text, target = hello.scratch, hello.scratch + 0x1000
    # PCI slot 2, pin A of the machine `virt`: SPI 5, which is interrupt 37; pending bits are at GICD_ISPENDR1.
    wanted = (Space.MMIO, 4, 0x0800_0204, 1 << 5) if interrupt == "intx" else (Space.RAM, 4, target, 0x5A)
    mask = 1 << 5 if interrupt == "intx" else 0xFFFF_FFFF
    if interrupt == "msix":
        await _enable_msix(guest, upcase, target)
    elif interrupt == "msi":
        await _enable_msi(guest, upcase, target)
    await guest.write(Space.RAM, 8, text, int.from_bytes(b"in lower", "little"))
    await guest.write(Space.MMIO, 8, upcase.bars[0], text)
    await guest.write(Space.MMIO, 2, upcase.bars[0] + 8, 8)
    space, size, address, value = wanted
    assert await guest.read(space, size, address) & mask == 0
    await guest.write(Space.MMIO, 4, upcase.bars[0] + 0x10, 1)
    assert await guest.wait(space, size, address, value, mask=mask) & mask == value
    assert (await guest.read(Space.RAM, 8, text)).to_bytes(8, "little") == b"IN LOWER"
    assert await guest.read(Space.MMIO, 4, upcase.bars[0] + 12) == 1


async def test_a_step_that_faults_is_an_error_and_the_guest_lives(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    message = "the guest's read of 4 bytes of MMIO at 0xffff000 must be done, not FAULT (value 0x0, ESR 0x96000010)"
    with pytest.raises(StepFailed, match=f"^{re.escape(message)}$"):
        await running.guest.read(Space.MMIO, 4, 0x0FFF_F000)
    assert (await running.guest.hello()).under_test == 1


async def test_off_turns_the_machine_off(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    await running.guest.off()
    assert await running.vm.wait() == 0
    assert running.vm.console_tail(1) == ["pyvfio-user guest: off"]


async def test_a_machine_that_is_gone_is_an_error_at_once(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    await running.guest.off()
    with pytest.raises(QemuError, match=r"(?s)^QEMU ended with exit status 0\n.*pyvfio-user guest: off"):
        await asyncio.wait_for(running.guest.hello(), 10)


async def test_after_a_reset_the_guest_starts_again(baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest()
    first = await running.guest.hello()
    await running.vm.execute("system_reset")
    assert await running.guest.hello() == first
    await running.guest.install([Range(2, STRICT, 1, 5, NC)])
    assert (await running.guest.run([Experiment(1, INDEX["str-x"], 0, NC, 2, STRICT)])).results[0].status == Status.DONE
