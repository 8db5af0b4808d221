"""The matrix end to end, under the real QEMU: what it finds, and that whatever is wrong is found and named."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pyvfio_user.bridge.attributes import NORMAL_NC, MemoryType, combine
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.schemes import SCHEMES, Decision, Range, Situation
from pyvfio_user.bridge.schemes.outputs import Choice
from pyvfio_user.devices.mailbox import Submission
from pyvfio_user.devices.probe import Probe
from pyvfio_user.guest import deviations, jobs, judge
from pyvfio_user.guest.jobs import ALL_PAIRS, Job, JobResult
from pyvfio_user.guest.lanes.installation import Installation, Patch
from pyvfio_user.guest.layout import installation
from pyvfio_user.guest.matrix import assemble, plan_jobs
from pyvfio_user.guest.orders.answers import QUESTIONS as ORDER_QUESTIONS
from pyvfio_user.guest.plan import Fault
from pyvfio_user.guest.plan import Range as InstalledRange
from pyvfio_user.guest.results import Battery, Cell, Matrix, Row, Verdict
from pyvfio_user.guest.worker import run_job

CSV = Path(__file__).parents[1] / "data" / "s1_s2_combination.csv"
STATUS_QUO = Job("max", 0, ("status-quo",), full=False, ranges=("wc-trapped",))


def silent(done: int, steps: int, what: str) -> None:
    """No progress."""


def columns(name: str) -> dict[tuple[int, str, str], str]:
    with CSV.open(newline="", encoding="ascii") as file:
        return {(int(row["fwb"]), row["s1"], row["s2"]): row[name] for row in csv.DictReader(file)}


def key(cell: Cell) -> tuple[int, str, str]:
    assert cell.s2 is not None
    return cell.fwb, cell.s1, cell.s2


def row(battery: Battery, name: str) -> Row:
    return next(each for each in battery.rows if each.op == name)


class TestWhatItFinds:
    @pytest.mark.asyncio
    @pytest.mark.parametrize("fwb", [0, 1])
    async def test_every_pair_of_types_is_the_published_cell(self, fwb: int) -> None:
        found = await run_job(Job("max", fwb, (ALL_PAIRS,)), silent)
        arm = {pair: byte for pair, byte in columns("arm").items() if pair[0] == fwb}
        qemu = {pair: byte for pair, byte in columns("qemu_11_1").items() if pair[0] == fwb}
        assert {key(cell): cell.architecture for cell in found.cells} == arm
        assert {key(cell): cell.observed for cell in found.cells} == qemu
        deviating = {key(cell) for cell in found.cells if cell.verdict is Verdict.KNOWN_DEVIATION}
        assert deviating == {pair for pair in arm if arm[pair] != qemu[pair]}
        assert found.problems == ()

    @pytest.mark.asyncio
    async def test_an_unaligned_store_to_nc_faults_under_status_quo_and_arrives_under_normal_nc_all(self) -> None:
        schemes = ("status-quo", "normal-nc-all")
        found = await run_job(Job("max", 0, schemes, ranges=("wc-trapped",)), silent)
        assert found.problems == ()
        cells = {cell.scheme: cell for cell in found.cells if cell.s1 == "44" and cell.case == "asking"}
        old, new = (row(found.batteries[cells[name].full or ""], "str-x+1") for name in schemes)
        assert (cells["status-quo"].observed, cells["normal-nc-all"].observed) == ("04", "44")
        assert (old.expected, old.device) == ("EL2 fault 92000061", "nothing | r8")
        # ISV=1, an 8-byte access by x3 (SAS=3, SRT=3, SF=1), WnR=1, DFSC=0x21
        assert old.observed["EL1 cold"] == "EL2 fault 93c38061"
        assert (new.expected, new.device) == ("works", "8x1 | r8 8x1")
        assert set(new.observed.values()) == {"works"}

    @pytest.mark.timeout(300)
    def test_the_whole_run_agrees_and_its_deviations_are_those_that_the_schemes_reach(self, tmp_path: Path) -> None:
        json, page = tmp_path / "matrix.json", tmp_path / "matrix.html"
        program = Path(sys.executable).with_name("pyvfio-user")
        options = ["--lane", "el2", "--lane", "kvm", "--orders", "--seeds", "5"]
        command = [str(program), "matrix", *options, "--json", str(json), "--html", str(page)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=480, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        found = msgspec.json.decode(json.read_bytes(), type=Matrix)
        assert {cell.scheme for cell in found.cells} == set(SCHEMES)
        assert {(cell.cpu, cell.fwb) for cell in found.cells} == {("max", 1), ("max", 0), ("cortex-a76", 0)}
        assert {cell.lane for cell in found.cells} == {"el2", "kvm"}
        assert [(kernel.name, kernel.scheme) for kernel in found.kernels] == [
            ("6.1", "status-quo"), ("6.12", "vma-allow-any-uncached"), ("7.3", "vma-allow-any-uncached")
        ]  # fmt: skip
        assert {(proof.way, proof.memattr) for proof in found.proofs if proof.role != "policy"} == {
            ("ram", "6"), ("sysfs", "1"), ("sysfs wc", "1"), ("gicv2", "1")
        }  # fmt: skip
        assert all(proof.agrees for proof in found.proofs)
        unseen = [(each.cpu, each.name) for each in found.findings if each.verdict is not Verdict.AGREE]
        doorbell = "upcase: ring, DMA, MSI-X by irqfd"
        assert unseen == [(f"max, Linux {found.kernels[0].release}", doorbell)]
        assert found.problems == found.vanished == ()
        assert {cell.verdict for cell in found.cells if cell.accesses is Verdict.DISAGREE} == set()

        arm, qemu = columns("arm"), columns("qemu_11_1")
        seen = [cell for cell in found.cells if cell.observed is not None]
        assert all(cell.architecture == arm[key(cell)] and cell.observed == qemu[key(cell)] for cell in seen)
        deviating = {key(cell) for cell in seen if cell.verdict is Verdict.KNOWN_DEVIATION}
        assert deviating == {key(cell) for cell in seen if arm[key(cell)] != qemu[key(cell)]}
        assert len(deviating) > 0

        refused = {(cell.scheme, cell.fwb) for cell in found.cells if cell.verdict is Verdict.REFUSED}
        assert refused == {("cacheable-follow", 0)}
        assert all(cell.experiments and cell.transactions for cell in seen if cell.lane == "el2")
        assert all(cell.experiments for cell in seen if not cell.range.startswith("bar"))
        assert found.provenance["experiments"] > 100_000
        for answers in found.scorecard.values():
            assert len(answers) == 19
            for answer in answers.values():
                assert (answer["how"] == "seen") == bool(answer["probes"])
            # What the programs find is what the questions say by rule.
            assert answers["host-reads"]["value"]["all_ranges"] == answers["host-mapping"]["value"]["no_speculation"]
            assert answers["unasked-reads"]["value"] == answers["side-effects"]["value"]
            assert {answers[key]["how"] for key in ORDER_QUESTIONS} == {"modelled"}

        assert found.orders is not None
        assert set(found.orders.pairs) == {
            "00>00", "00>04", "04>04", "08>04", "0c>00", "0c>04", "0c>0c", "44>00", "44>04",
            "f0>04", "ff'>04", "ff>00", "ff>04",
        }  # fmt: skip
        elsewhere = {cell.range for cell in seen if cell.orders is None}
        assert elsewhere >= {"platform", "vcpuif"}  # neither is behind PCIe
        assert all(name in ("platform", "vcpuif") or name.startswith("bar") for name in elsewhere)
        rows = [row for pair in found.orders.pairs.values() for row in pair.rows]
        # Each program was run, and each has a number of behaviours unless it faults.
        assert [row for row in rows if not row.seen or not (row.fault or row.legal)] == []
        for idiom, payload in (("8 x STR x", "8x8"), ("16 x STR w", "16x4"), ("ST1", "8x8"), ("DC ZVA", "64x1")):
            came = {row.seen for row in rows if row.idiom == idiom and row.barrier != "read-back" and not row.fault}
            assert came == {f"{payload}, doorbell"}
            read = {row.seen for row in rows if row.idiom == idiom and row.barrier == "read-back" and not row.fault}
            assert read == {f"{payload} r4, doorbell"}
        text = page.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert "<script src" not in text and "<link" not in text


class TestWhatIsWrongIsFound:
    """Each test breaks one thing, and expects the run to name the cell."""

    async def run(self, job: Job = STATUS_QUO, probe: Probe | None = None) -> JobResult:
        return await run_job(job, silent, probe)

    @pytest.mark.asyncio
    async def test_nothing_is_wrong_to_begin_with(self) -> None:
        assert (await self.run()).problems == ()

    @pytest.mark.asyncio
    async def test_a_wrong_entry_of_the_combination_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def flipped(s1: MemoryType, s2: int | None, fwb: bool) -> MemoryType:
            return NORMAL_NC if (str(s1), s2, fwb) == ("44", 1, False) else combine(s1, s2, fwb)

        monkeypatch.setattr(jobs, "combine", flipped)
        where = "status-quo (asking), wc-trapped, s1=44 s2=1, FWB=0, -cpu max"
        assert (await self.run()).problems == (f"{where}: the effective type must be 44, not 04",)

    @pytest.mark.asyncio
    async def test_a_scheme_that_decides_another_stage_2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scheme = SCHEMES["status-quo"]
        original = scheme.choose

        def choose(situation: Situation, where: Range, page: int) -> Choice:
            choice = original(situation, where, page)
            return Choice(choice.host, NORMAL_NC, choice.vma_flags) if where.name == "wc-trapped" else choice

        monkeypatch.setattr(scheme, "choose", choose)
        where = "status-quo (asking), wc-trapped, page 0, FWB=0, -cpu max"
        wanted = "the scheme's stage 2 must be Device-nGnRE, not Normal Non-cacheable"
        found = await self.run()
        assert f"{where}: {wanted}" in found.problems
        assert {(cell.verdict, cell.note) for cell in found.cells} == {(Verdict.DISAGREE, wanted)}

    @pytest.mark.asyncio
    async def test_a_guest_that_gets_another_stage_2_than_decided(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wrong(decision: Decision) -> Installation:
            right = installation(decision)
            return Wrong(right.patches)

        class Wrong(Installation):
            def ranges(self) -> list[InstalledRange]:
                return [each._replace(memattr=5) if each.memattr == 1 else each for each in super().ranges()]

        monkeypatch.setattr(jobs, "installation", wrong)
        where = "status-quo (asking), wc-trapped, s1=44 s2=1, FWB=0, -cpu max"
        found = await self.run()
        assert f"{where}: the effective type must be 04, not 44" in found.problems
        assert any(text.startswith(f"{where}: str-x+1, EL1 cold: expected EL2 fault") for text in found.problems)

    @pytest.mark.asyncio
    async def test_a_wrong_mair(self) -> None:
        found = await self.run(msgspec.structs.replace(STATUS_QUO, faults=int(Fault.WRONG_MAIR)))
        wanted = "status-quo (asking): MAIR_EL1 must be 0xf0ffbb440c080400, not 0xf0ffbb040c084400"
        assert wanted in found.problems
        where = "status-quo (asking), wc-trapped, s1=44 s2=1, FWB=0, -cpu max"
        assert f"{where}: AT S1E1R must give 44, not 04" in found.problems

    @pytest.mark.asyncio
    async def test_a_skipped_tlbi(self) -> None:
        found = await self.run(msgspec.structs.replace(STATUS_QUO, faults=int(Fault.SKIP_TLBI)))
        assert any("a TLBI must precede the operation" in text for text in found.problems)

    @pytest.mark.asyncio
    async def test_el1_code_run_at_el2(self) -> None:
        found = await self.run(msgspec.structs.replace(STATUS_QUO, faults=int(Fault.EL1_AT_EL2)))
        assert any("the operation must run at EL1, not EL2" in text for text in found.problems)

    @pytest.mark.asyncio
    async def test_a_device_log_with_one_transaction_dropped(self) -> None:
        probe = ForgetfulProbe()
        found = await self.run(probe=probe)
        assert len(found.problems) == 1
        (problem,) = found.problems
        assert problem.startswith("status-quo (asking), wc-trapped, ")
        assert "str-x" in problem and "the device must get" in problem

    @pytest.mark.asyncio
    async def test_a_deviation_that_does_not_show_is_told_by_instruction_and_cold_or_warm(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        *rest, warm = deviations.ACCESSES
        assert warm.name == "warm-normal-over-device"
        broadened = replace(warm, applies=lambda trial: not trial.s1_device and trial.s2_device is True)
        monkeypatch.setattr(judge, "ACCESSES", (*rest, broadened))
        found = await self.run()
        matrix = assemble([STATUS_QUO], [found], explicit=False, seconds=1.0)
        where = "status-quo (asking), wc-trapped, s1=44 s2=1, FWB=0, -cpu max: str-x+1, EL1 cold"
        assert matrix.vanished == (f"warm-normal-over-device: str-x+1, cold (first: {where})",)
        assert matrix.problems == ()


class ForgetfulProbe(Probe):
    """Loses the first write to the trapped window from its log, once."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False

    def _collect(self, data: bytes) -> Submission:
        whole = super()._collect(data)
        for index, each in enumerate(whole.transactions):
            if each.write and each.region == 2 and not self.lost:
                self.lost = True
                rest = whole.transactions[:index] + whole.transactions[index + 1 :]
                return Submission(whole.data, rest, whole.window)
        return whole


class TestJobs:
    def test_each_fwb_setting_has_one_full_battery(self) -> None:
        planned = plan_jobs(["status-quo", ALL_PAIRS], ["max", "cortex-a76"])
        assert [(job.cpu, job.fwb, job.full, job.schemes) for job in planned] == [
            ("max", 1, True, ("status-quo", ALL_PAIRS)),
            ("max", 0, True, ("status-quo", ALL_PAIRS)),
            ("cortex-a76", 0, False, ("status-quo",)),
        ]

    @pytest.mark.parametrize(
        ("plan", "message"),
        [
            (lambda: plan_jobs(["x"], ["max"]), "scheme must be one of status-quo, .*, all-pairs, not x"),
            (lambda: plan_jobs(["trap"], ["max"], ["y"]), "range must be one of control, .*, platform, not y"),
        ],
    )
    def test_unknown_names_are_refused(self, plan: Callable[[], object], message: str) -> None:
        with pytest.raises(DefinitionError, match=message):
            plan()


def test_a_patch_without_a_host_mapping_is_installed_as_device() -> None:
    from pyvfio_user.guest.lanes.places import PLACES

    (entry,) = Installation({"strict": Patch(PLACES["strict"], 5, None)}).ranges()
    assert (entry.bar, entry.offset, entry.pages, entry.memattr, entry.host) == (2, 0x40000, 16, 5, 0)
