"""The bare-metal guest: it builds, boots under the real QEMU, and does and reports what it is told."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from pyvfio_user.guest import payload
from pyvfio_user.guest.battery import BATTERY, INDEX
from pyvfio_user.guest.errors import BuildError
from pyvfio_user.guest.hello import pack_hello, pack_off, unpack_hello
from pyvfio_user.guest.operation import SLOT, Kind, pattern
from pyvfio_user.guest.plan import (
    MAIR,
    PLATFORM,
    Experiment,
    Fault,
    GuestRefused,
    Range,
    Refusal,
    Result,
    ResultFlag,
    RunFlag,
    Status,
    pack_install,
    pack_run,
    unpack_install,
    unpack_run,
)
from pyvfio_user.guest.provision.compiler import Compiler, find_compiler
from pyvfio_user.guest.provision.qemu import QemuBinary
from pyvfio_user.guest.script import Action, Outcome, Space, Step, StepStatus, pack_script, unpack_script
from pyvfio_user.guest.workload import Barrier, Idiom, Workload, entry, pack_workload, unpack_workload

from .plan_files import SELECT, run_plan

NC, NGNRE, WB = MAIR.index(0x44), MAIR.index(0x04), MAIR.index(0xFF)
BAR = 0x10100000
"""Where the guest places BAR 2 of ivshmem: after BAR 0, at a multiple of its size."""
RTC = 0x0901_0000


@pytest.fixture
def qemu(qemu_binary: QemuBinary) -> Path:
    return qemu_binary.path


def one(name: str, s1: int, offset: int = 0, *, el: int = 1, mark: int = 0, flags: int = 0) -> Experiment:
    return Experiment(mark, INDEX[name], el, s1, 2, offset, flags)


def results(
    qemu: Path, folder: Path, ranges: list[Range], experiments: list[Experiment], **options: Any
) -> list[Result]:
    """Installs, runs, and gives the results; options: cpu, fwb, faults."""
    install = pack_install(ranges, fwb=options.get("fwb", False), faults=options.get("faults", Fault.NONE))
    done = run_plan(qemu, folder, [SELECT, install, pack_run(experiments)], cpu=options.get("cpu", "max"))
    assert done.status == 0, done
    unpack_install(done.answers[1])
    return unpack_run(done.answers[2]).results


@pytest.mark.parametrize("el", [1, 2])
def test_the_sources_compile_without_a_warning(tmp_path: Path, el: int) -> None:
    elf = payload.compile_in(tmp_path, find_compiler(), payload.sources(), ["-Werror"], el=el)
    assert elf.read_bytes()[:4] == b"\x7fELF"


def test_a_build_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = payload.build()
    stamp = first.stat().st_mtime_ns
    assert payload.build() == first
    assert first.stat().st_mtime_ns == stamp
    assert list((tmp_path / "pyvfio-user").iterdir()) == [first]


def test_what_the_compiler_says_is_in_the_error(tmp_path: Path) -> None:
    broken = {**payload.sources(), "main.c": "int main(void) { return nothing; }\n"}
    with pytest.raises(BuildError, match=r"(?s)^the guest must compile; .* undeclared") as caught:
        payload.compile_in(tmp_path, find_compiler(), broken)
    assert "nothing" in str(caught.value)


def test_a_compiler_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"^the compiler of the guest must run: "):
        payload.compile_in(tmp_path, Compiler((str(tmp_path / "absent"),), "gcc", "1"), payload.sources())


@pytest.mark.parametrize(("cpu", "fwb"), [("max", True), ("neoverse-n1", False)])
def test_hello_tells_what_the_machine_is(qemu: Path, tmp_path: Path, cpu: str, fwb: bool) -> None:
    done = run_plan(qemu, tmp_path, [pack_hello(), SELECT, pack_off()], cpu=cpu)
    assert done.status == 0
    nobody, hello = (unpack_hello(answer) for answer in done.answers[:2])
    assert nobody.under_test == -1
    assert hello.physical(2, 0) == BAR
    assert hello.find(0x1AF4, 0x1110).sizes[2] == 1 << 20
    assert ("fwb" in hello.features, "mte" in hello.features) == (fwb, fwb)
    assert "lse" in hello.features
    assert hello.dczid == 4  # DC ZVA clears 2**4 words, 64 bytes, as the battery says


def test_a_low_ecam_is_found(qemu: Path, tmp_path: Path) -> None:
    done = run_plan(qemu, tmp_path, [SELECT], machine="virt,virtualization=on,gic-version=3,highmem-ecam=off")
    assert unpack_hello(done.answers[0]).physical(2, 0) == BAR


def test_qemu_combines_stages_as_it_was_seen_to(qemu: Path, tmp_path: Path) -> None:
    """All 160 cells, against the columns of the table that was measured."""
    path = Path(__file__).parents[1] / "data" / "s1_s2_combination.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 160
    messages = [SELECT]
    for fwb in (0, 1):
        stage2 = sorted({row["s2"] for row in rows if row["fwb"] == str(fwb)})
        messages.append(
            pack_install([Range(2, 4096 * int(s2, 16), 1, int(s2, 16), NC) for s2 in stage2], fwb=bool(fwb))
        )
        cells = [row for row in rows if row["fwb"] == str(fwb)]
        messages.append(
            pack_run(
                [one("at-s12e1r", MAIR.index(int(row["s1"], 16)), 4096 * int(row["s2"], 16), el=2) for row in cells]
            )
        )
    done = run_plan(qemu, tmp_path, messages)
    observed = [result.value0 >> 56 for at in (2, 4) for result in unpack_run(done.answers[at]).results]
    expected = [row for fwb in "01" for row in rows if row["fwb"] == fwb]
    assert [f"{value:02x}" for value in observed] == [row["qemu_11_1"] for row in expected]
    assert sum(f"{value:02x}" != row["arm"] for value, row in zip(observed, expected, strict=True)) == 14


def test_stage_2_decides_whether_an_unaligned_store_faults(qemu: Path, tmp_path: Path) -> None:
    ranges = [Range(2, 0, 1, 1, NC), Range(2, 4096, 1, 5, NC)]
    device, normal = results(qemu, tmp_path, ranges, [one("str-x+1", NC), one("str-x+1", NC, 4096)])
    assert (device.status, device.level, device.ran_at, device.far) == (Status.FAULT, 2, 1, 0x5_0000_0000 + BAR + 1)
    assert device.esr & ~(1 << 24 | 0x7FF << 14) == 0x92000061
    assert (normal.status, normal.level) == (Status.DONE, 0)


@pytest.mark.parametrize(
    ("name", "el", "flags", "expected"),
    [
        ("str-x+1", 1, RunFlag.NONE, (Status.FAULT, 1, 0x96000061)),
        ("ldr-x+1", 0, RunFlag.NONE, (Status.FAULT, 1, 0x92000021)),
        ("str-x+1", 2, RunFlag.NONE, (Status.FAULT, 2, 0x96000061)),
        ("str-x+1", 1, RunFlag.WARM, (Status.DONE, 0, 0)),
        ("st64b", 1, RunFlag.NONE, (Status.UNDEFINED, 1, 0x02000000)),
        ("st64b", 2, RunFlag.NONE, (Status.UNDEFINED, 2, 0x02000000)),
    ],
)
def test_faults_are_reported_with_level_and_syndrome(
    qemu: Path, tmp_path: Path, name: str, el: int, flags: RunFlag, expected: tuple[int, int, int]
) -> None:
    (result,) = results(qemu, tmp_path, [Range(2, 0, 1, 5, NGNRE)], [one(name, NGNRE, el=el, flags=flags)])
    assert (result.status, result.level, result.esr) == expected
    assert result.ran_at == el
    assert result.tlbi
    assert bool(result.flags & ResultFlag.WARM) == bool(flags)


def test_a_page_that_is_not_installed_faults_in_stage_2(qemu: Path, tmp_path: Path) -> None:
    experiments = [one("ldr-x", NC, 4096), one("ldr-x", NC, 4096, flags=RunFlag.WARM), one("ldr-x", NC, 4096, el=2)]
    cold, warm, host = results(qemu, tmp_path, [Range(2, 0, 1, 5, NC)], experiments)
    assert (cold.status, cold.level, cold.esr >> 26, cold.esr & 0x3F) == (Status.FAULT, 2, 0x24, 7)
    assert warm.status == Status.FAULT and warm.flags & ResultFlag.IN_WARM_UP
    assert (host.status, host.level, host.esr >> 26, host.esr & 0x3F) == (Status.FAULT, 2, 0x25, 7)


def test_the_instruction_that_faulted_is_named(qemu: Path, tmp_path: Path) -> None:
    (result,) = results(qemu, tmp_path, [Range(2, 0, 1, 5, NC)], [one("st64b", NC)], cpu="neoverse-n1")
    assert result.instruction == 0
    ranges = [Range(2, 0, 1, 5, NC)]
    (crossing,) = results(qemu, tmp_path, ranges, [one("ldxr-stxr-x+4", NC)], cpu="neoverse-n1")
    assert (crossing.status, crossing.instruction, crossing.esr) == (Status.FAULT, 0, 0x96000021)


def test_every_operation_does_what_it_declares(qemu: Path, tmp_path: Path) -> None:
    """On Normal-NC memory, where nothing faults: what is left there, what was loaded, and what the doorbell got."""
    ops = [op for op in BATTERY if op.kind is not Kind.TRANSLATE and op.feature != "ls64"]
    messages = [SELECT, pack_install([Range(2, 0, 256, 5, NC)])]
    before = {op.name: b"\0" * op.span if op.name == "cas-x" else bytes(range(op.span)) for op in ops}
    for page, op in enumerate(ops):
        base = 4096 * page + (4096 - SLOT if op.crossing else 0)
        fill = [
            Step(Action.WRITE, Space.MMIO, 8, BAR + base + at, int.from_bytes(before[op.name][at : at + 8], "little"))
            for at in range(0, op.span, 8)
        ]
        run = Experiment(page + 1, INDEX[op.name], 1, NC, 2, base, 0, 2, NGNRE, 4096 * page + 2048)
        read = [Step(Action.READ, Space.MMIO, 8, BAR + base + at) for at in range(0, op.span, 8)]
        read.append(Step(Action.READ, Space.MMIO, 4, BAR + 4096 * page + 2048))
        messages += [pack_script(fill), pack_run([run]), pack_script(read)]
    done = run_plan(qemu, tmp_path, messages)
    assert done.status == 0, done.console
    for page, op in enumerate(ops):
        (result,) = unpack_run(done.answers[3 * page + 3]).results
        *words, doorbell = (outcome.value for outcome in unpack_script(done.answers[3 * page + 4]))
        data = pattern(page + 1)
        assert result.status == Status.DONE, op.name
        assert b"".join(word.to_bytes(8, "little") for word in words) == op.stored(data, before[op.name]), op.name
        if op.kind is not Kind.STORE:
            assert (result.value0, result.value1) == op.value(before[op.name]), op.name
        assert doorbell.to_bytes(4, "little") == (op.doorbell_value(data) if op.doorbell else bytes(4)), op.name


def test_the_platform_range_can_be_read(qemu: Path, tmp_path: Path) -> None:
    at = RTC + 0xFE0  # the first identification register of the PL031
    experiments = [Experiment(0, INDEX["ldr-w"], el, NGNRE, PLATFORM, at) for el in (0, 1, 2)]
    done = results(qemu, tmp_path, [Range(PLATFORM, RTC, 1, 1, NGNRE)], experiments)
    assert [(result.status, result.value0) for result in done] == [(Status.DONE, 0x31)] * 3


def test_entries_that_make_no_sense_are_not_run(qemu: Path, tmp_path: Path) -> None:
    experiments = [
        Experiment(1, INDEX["ldr-x"], 1, NC, 3, 0),
        Experiment(2, INDEX["ldr-x"], 1, NC, 2, 1 << 20),
        Experiment(3, INDEX["at-s12e1r"], 1, NC, 2, 0),
        Experiment(4, INDEX["payload-dmb-doorbell"], 1, NC, 2, 0, 0, 3, 0, 0),
        Experiment(5, INDEX["ldr-x"], 1, NC, 2, 0),
    ]
    done = results(qemu, tmp_path, [Range(2, 0, 1, 5, NC)], experiments)
    assert [result.status for result in done] == [Status.BAD_ENTRY] * 4 + [Status.DONE]
    assert [result.mark for result in done] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("message", "cpu", "reason"),
    [
        (pack_install([Range(2, 0, 1, 5, 4)], fwb=True), "neoverse-n1", Refusal.NO_FWB),
        (pack_install([Range(2, 0, 257, 5, 4)]), "max", Refusal.ENTRY),
        (pack_install([Range(0xFF, 0x200000 * n, 1, 5, 4) for n in range(1, 40)]), "max", Refusal.TABLES),
        (pack_install([Range(2, 0, 1, 5, 4)])[:-1], "max", Refusal.LENGTH),
        (pack_hello(0x1234, 0x5678), "max", Refusal.NO_DEVICE),
        (b"\0" * 16, "max", Refusal.FORMAT),
        (pack_off()[:4] + b"\x07\0" + pack_off()[6:], "max", Refusal.COMMAND),
    ],
)
def test_the_guest_refuses_what_it_cannot_do(
    qemu: Path, tmp_path: Path, message: bytes, cpu: str, reason: Refusal
) -> None:
    done = run_plan(qemu, tmp_path, [SELECT, message, SELECT], cpu=cpu)
    assert done.status == 0, done.console
    with pytest.raises(GuestRefused) as caught:
        unpack_hello(done.answers[1]) if reason is Refusal.NO_DEVICE else unpack_install(done.answers[1])
    assert caught.value.reason is reason
    assert unpack_hello(done.answers[2]).under_test >= 0


def test_a_wrong_mair_shows(qemu: Path, tmp_path: Path) -> None:
    install = pack_install([Range(2, 0, 1, 5, NC)], faults=Fault.WRONG_MAIR)
    done = run_plan(qemu, tmp_path, [SELECT, install, pack_run([one("at-s1e1r", NC), one("str-x+1", NC)])])
    context = unpack_install(done.answers[1])
    assert context.mair_el1 == context.mair_el2 == 0xF0FFBB040C084400
    translated, stored = unpack_run(done.answers[2]).results
    assert translated.value0 >> 56 == 0x04
    assert stored.status == Status.FAULT


def test_a_skipped_tlbi_shows(qemu: Path, tmp_path: Path) -> None:
    """Stage 2 Normal under stage 1 Device: the alignment fault that QEMU takes cold is lost warm."""
    experiments = [one("str-x", NGNRE), one("str-x+1", NGNRE)]
    for faults, status, tlbi in ((Fault.NONE, Status.FAULT, True), (Fault.SKIP_TLBI, Status.DONE, False)):
        _, second = results(qemu, tmp_path, [Range(2, 0, 1, 5, NC)], experiments, faults=faults)
        assert (second.status, second.tlbi) == (status, tlbi)
    flagged = [experiments[0], one("str-x+1", NGNRE, flags=RunFlag.SKIP_TLBI)]
    _, second = results(qemu, tmp_path, [Range(2, 0, 1, 5, NC)], flagged)
    assert (second.status, second.tlbi) == (Status.DONE, False)


def test_warm_is_warm_on_every_page(qemu: Path, tmp_path: Path) -> None:
    """QEMU's TLB is direct-mapped: whichever page is tried, nothing may evict it between warm-up and access."""
    names = ["str-x+1", "ldr-q+4", "stp-x+4", "libc-memcpy"]
    experiments = [one(name, NC, 4096 * page, flags=RunFlag.WARM) for page in range(256) for name in names]
    found = results(qemu, tmp_path, [Range(2, 0, 256, 1, NC)], experiments)
    # Under QEMU the alignment fault of a warm page is taken to EL1 instead of EL2.
    assert {(result.status, result.level) for result in found} == {(Status.FAULT, 1)}


def test_code_at_the_wrong_level_shows(qemu: Path, tmp_path: Path) -> None:
    experiments = [one("str-x", NC), one("str-x", NC, el=0)]
    ranges = [Range(2, 0, 1, 5, NC)]
    assert [r.ran_at for r in results(qemu, tmp_path, ranges, experiments, faults=Fault.EL1_AT_EL2)] == [2, 0]


def test_script_reads_writes_waits_and_survives_faults(qemu: Path, tmp_path: Path) -> None:
    scratch, image = 0x48000000, 0x40200000
    steps = [
        Step(Action.WRITE, Space.RAM, 8, scratch, 0x1122334455667788),
        Step(Action.READ, Space.RAM, 2, scratch + 2),
        Step(Action.WRITE, Space.RAM, 4, image, 0),
        Step(Action.READ, Space.CONFIG, 4, 1 << 15),
        Step(Action.READ, Space.MMIO, 4, 0x0FFF_F000),
        Step(Action.WAIT, Space.RAM, 1, scratch, 0x08, mask=0x0F),
        Step(Action.WAIT, Space.RAM, 1, scratch, 0x00, timeout_us=1000),
    ]
    done = run_plan(qemu, tmp_path, [pack_script(steps)])
    outcomes = unpack_script(done.answers[0])
    assert outcomes == [
        Outcome(StepStatus.DONE, 0, 0),
        Outcome(StepStatus.DONE, 0, 0x5566),
        Outcome(StepStatus.BAD, 0, 0),
        Outcome(StepStatus.DONE, 0, 0x1110_1AF4),
        Outcome(StepStatus.FAULT, 0x96000010, 0),
        Outcome(StepStatus.DONE, 0, 0x88),
        Outcome(StepStatus.TIMEOUT, 0, 0x88),
    ]


@pytest.mark.parametrize("idiom", list(Idiom))
def test_the_push_loop_leaves_whole_entries(qemu: Path, tmp_path: Path, idiom: Idiom) -> None:
    push = Workload(
        el=0,
        idiom=idiom,
        barrier=Barrier.DMB,
        window_s1=NC,
        window_bar=2,
        window_offset=0,
        doorbell_s1=NGNRE,
        doorbell_bar=2,
        doorbell_offset=0x80000,
        count=1000,
        slots=128,
    )
    read = [Step(Action.READ, Space.MMIO, 8, BAR + at) for at in range(0, 128 * 64, 8)]
    read.append(Step(Action.READ, Space.MMIO, 4, BAR + 0x80000))
    ranges = [Range(2, 0, 128, 5, NC), Range(2, 0x80000, 1, 1, NGNRE)]
    done = run_plan(qemu, tmp_path, [SELECT, pack_install(ranges), pack_workload(push), pack_script(read)])
    pushed = unpack_workload(done.answers[2])
    assert (pushed.pushed, pushed.status, pushed.ran_at) == (1000, Status.DONE, 0)
    *words, doorbell = (outcome.value for outcome in unpack_script(done.answers[3]))
    assert doorbell == 1000
    window = b"".join(word.to_bytes(8, "little") for word in words)
    newest = [max(range(slot, 1000, 128)) for slot in range(128)]
    assert window == b"".join(entry(number) for number in newest)


def test_a_push_that_faults_ends_the_loop(qemu: Path, tmp_path: Path) -> None:
    push = Workload(
        el=1,
        idiom=Idiom.MEMCPY,
        barrier=Barrier.NONE,
        window_s1=NC,
        window_bar=2,
        window_offset=0,
        doorbell_s1=NGNRE,
        doorbell_bar=2,
        doorbell_offset=0x80000,
        count=10,
        slots=10,
    )
    ranges = [Range(2, 0, 1, 1, NC), Range(2, 0x80000, 1, 1, NGNRE)]
    done = run_plan(qemu, tmp_path, [SELECT, pack_install(ranges), pack_workload(push)])
    pushed = unpack_workload(done.answers[2])
    assert (pushed.pushed, pushed.status, pushed.ran_at) == (0, Status.FAULT, 1)
    assert pushed.far == 0x5_0000_0000 + BAR + 13


def test_without_a_transport_the_guest_says_so_and_ends(qemu: Path, tmp_path: Path) -> None:
    done = run_plan(qemu, tmp_path, [], semihosting=False)
    assert "FAILED: no probe (1234:be50) on PCI bus 0, and no plan file given by semihosting\n" in done.console
    assert done.status == 0


def test_started_at_el1_the_guest_says_so_and_ends(qemu: Path, tmp_path: Path) -> None:
    done = run_plan(qemu, tmp_path, [], machine="virt,gic-version=3", semihosting=False)
    assert "FAILED: must be started at EL2: use -M virt,virtualization=on\n" in done.console


@pytest.mark.parametrize(
    ("file", "code", "broken", "message"),
    [
        ("main.c", 'print("pyvfio-user guest: hello\\n");', "read32(0x600000000000);", "FAR_EL2 600000000000"),
        ("ops.S", "    str x3, [x0]\n", "    br x0\n", "PANIC: exception outside of the access: exception from EL1"),
        ("ops.S", "    str x3, [x0]\n", "    svc #0\n", "PANIC: SVC that is not the operation's own"),
    ],
)
def test_an_unexpected_exception_is_printed_and_ends_the_machine(
    qemu: Path, tmp_path: Path, file: str, code: str, broken: str, message: str
) -> None:
    texts = payload.sources()
    assert code in texts[file]
    kernel = payload.compile_in(tmp_path, find_compiler(), {**texts, file: texts[file].replace(code, broken)})
    messages = [SELECT, pack_install([Range(2, 0, 1, 5, NC)]), pack_run([one("str-x", NC)])]
    done = run_plan(qemu, tmp_path, messages, kernel=kernel)
    assert message in done.console
    assert done.status == 3


def test_code_that_does_not_end_is_ended_by_the_watchdog(qemu: Path, tmp_path: Path) -> None:
    texts = payload.sources()
    assert "#define WATCH_MS 30000" in texts["run.c"] and "    hvc #\\number\n" in texts["start.S"]
    texts["run.c"] = texts["run.c"].replace("WATCH_MS 30000", "WATCH_MS 100")
    texts["start.S"] = texts["start.S"].replace("    hvc #\\number\n", "    udf #0\n")  # EL1's vectors, again and again
    kernel = payload.compile_in(tmp_path, find_compiler(), texts)
    messages = [SELECT, pack_install([Range(2, 0, 1, 5, NC)]), pack_run([one("str-x", NC)])]
    done = run_plan(qemu, tmp_path, messages, kernel=kernel)
    assert "PANIC: the access does not end: exception from EL1 taken to EL2, vector 9\n" in done.console
    assert done.status == 3
