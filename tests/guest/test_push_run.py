"""The push as a user runs it: expected from the rules, run under the real QEMU, judged, shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from pyvfio_user.bridge.attributes import MEMORY_TYPES, Implementation, MemoryType
from pyvfio_user.devices.mailbox import Submission
from pyvfio_user.devices.probe import Probe
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.plan import Status
from pyvfio_user.guest.push_run import Push, PushReport, PushRow, judge, observed, prospect, run_push
from pyvfio_user.guest.report.push import show
from pyvfio_user.guest.results import Verdict
from pyvfio_user.guest.workload import Barrier, Idiom, Pushed

WINDOW = 0x5_1002_0000
MEMCPY = Push(idiom=Idiom.MEMCPY)
NGNRE, NC = MemoryType.parse("04"), MemoryType.parse("44")
KNOWN = "once the page is in QEMU's TLB, alignment is checked by stage 2's own type alone: Device over Normal passes"


def fault(*, esr: int = 0x92000061, level: int = 1, at: int = 13, pushed: int = 0) -> Pushed:
    return Pushed(pushed, Status.FAULT, level, 0, esr, WINDOW + at, 0)


class TestWhatMustHappen:
    @pytest.mark.parametrize("idiom", [each for each in Idiom if each is not Idiom.MEMCPY])
    @pytest.mark.parametrize("s1", MEMORY_TYPES, ids=str)
    def test_what_is_aligned_works(self, idiom: Idiom, s1: MemoryType) -> None:
        assert prospect(idiom, s1, Implementation()).text == "works"

    @pytest.mark.parametrize("s1", MEMORY_TYPES, ids=str)
    def test_an_overlapping_copy_faults_at_its_first_unaligned_store_to_device(self, s1: MemoryType) -> None:
        wanted = "EL1 fault 92000061 at store 1" if s1.is_device else "works"
        assert prospect(Idiom.MEMCPY, s1, Implementation()).text == wanted


class TestVerdicts:
    def verdict(self, push: Push, s1: MemoryType, pushed: Pushed) -> tuple[Verdict, str, int]:
        return judge(push, s1, pushed, prospect(push.idiom, s1, Implementation()), WINDOW)

    def test_the_fault_that_must_come(self) -> None:
        assert self.verdict(MEMCPY, NGNRE, fault()) == (Verdict.AGREE, "", 1)
        assert observed(MEMCPY, fault(), WINDOW) == "EL1 fault 92000061 at store 1"

    @pytest.mark.parametrize(
        ("pushed", "found"),
        [
            (fault(level=2), "EL2 fault 92000061 at store 1 of entry 0"),
            (fault(esr=0x92000021), "EL1 fault 92000021 at store 1 of entry 0"),
            (fault(at=29), "EL1 fault 92000061 at store 2 of entry 0"),
            (fault(at=14), "EL1 fault 92000061 at 0x51002000e of entry 0"),
            (fault(at=64 + 13, pushed=1), "EL1 fault 92000061 at store 1 of entry 1"),
            (Pushed(0, Status.BAD_ENTRY, 0, 0, 0, 0, 0), "bad_entry"),
        ],
    )
    def test_another_fault(self, pushed: Pushed, found: str) -> None:
        verdict, why, _ = self.verdict(MEMCPY, NGNRE, pushed)
        assert (verdict, why) == (Verdict.DISAGREE, f"expected EL1 fault 92000061 at store 1, not {found}")

    def test_a_fault_where_it_must_work(self) -> None:
        why = "expected works, not EL1 fault 92000061 at store 1 of entry 0"
        assert self.verdict(MEMCPY, NC, fault()) == (Verdict.DISAGREE, why, 1)

    def test_working(self) -> None:
        done = Pushed(1000, Status.DONE, 0, 0, 0, 0, 0)
        assert self.verdict(MEMCPY, NC, done) == (Verdict.AGREE, "", 0)
        assert self.verdict(MEMCPY, NGNRE, done) == (Verdict.KNOWN_DEVIATION, KNOWN, 0)
        unlisted = prospect(Idiom.MEMCPY, NGNRE, Implementation())
        first = msgspec.structs.replace(unlisted, store=0)
        wrong = (Verdict.DISAGREE, "expected EL1 fault 92000061 at store 0, not works", 0)
        assert judge(MEMCPY, NGNRE, done, first, WINDOW) == wrong


def shown(report: PushReport) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


class TestUnderQemu:
    @pytest.mark.asyncio
    async def test_a_thousand_entries_under_each_type(self) -> None:
        report = await run_push(Push())
        assert [row.s1 for row in report.rows] == ["00", "04", "08", "0c", "44", "bb", "ff", "f0"]
        assert [row.architecture for row in report.rows] == ["00", "04", "08", "0c", *["44"] * 4]
        for row in report.rows:
            assert (row.entries, row.whole, row.transactions, row.ordered) == (1000, 1000, (8, 8, 8), True)
            assert (row.expected, row.observed, row.verdict, row.problems) == ("works", "works", "agree", ())
        assert not report.disagrees

    @pytest.mark.asyncio
    @pytest.mark.parametrize(("window", "counts"), [("trapped", (52, 52, 52)), ("mapped", None)])
    async def test_an_unaligned_copy_must_fault_on_device_and_qemu_lets_it_pass(
        self, window: str, counts: tuple[int, float, int] | None
    ) -> None:
        report = await run_push(Push("cortex-a76", window, Idiom.MEMCPY, Barrier.NONE, 100))
        assert [(row.s1, row.verdict) for row in report.rows] == [
            *((s1, Verdict.KNOWN_DEVIATION) for s1 in ("00", "04", "08", "0c")),
            *((s1, Verdict.AGREE) for s1 in ("44", "bb", "ff")),
        ]
        assert {(row.whole, row.transactions, row.problems) for row in report.rows} == {(100, counts, ())}
        assert f"known deviation of QEMU: {KNOWN}" in shown(report)

    def test_the_command_shows_and_writes_it(self, tmp_path: Path) -> None:
        file = tmp_path / "new" / "push.json"
        arguments = ["push", "--window", "mapped", "--idiom", "stp", "--barrier", "dgh", "--count", "64"]
        ended = CliRunner().invoke(main, [*arguments, "--json", str(file)])
        assert ended.exit_code == 0, ended.output
        assert ended.output.splitlines()[0].rstrip() == (
            "lane el2, -cpu max, S2 Normal-NC: 64 entries of 64 bytes at EL0, mapped window, stp, then a doorbell"
        )
        assert "│ 44 Normal Non-cacheable     │ 44 " in ended.output
        assert "not visible" in ended.output and "nothing promises this order, TCG keeps it" in ended.output
        document = json.loads(file.read_bytes())
        assert list(document) == ["provenance", "push", "rows"]
        assert document["push"] == {"cpu": "max", "window": "mapped", "idiom": "stp", "barrier": "dgh", "count": 64}
        assert [row["verdict"] for row in document["rows"]] == ["agree"] * 8

    @pytest.mark.asyncio
    async def test_a_lost_transaction_disagrees(self) -> None:
        report = await run_push(Push(count=10), ForgetfulProbe())
        assert report.disagrees
        assert {row.s1: row.problems for row in report.rows if row.problems} == {
            "00": ("entry 0 must arrive, not be torn: 8 of 64 bytes never came",)
        }
        lines = shown(report)
        assert "disagree: 00: entry 0 must arrive, not be torn: 8 of 64 bytes never came" in lines
        cells = next([cell.strip() for cell in line.split("│")[1:8]] for line in lines if line.startswith("│ 00"))
        assert cells == ["00 Device-nGnRnE", "00", "9 of 10", "none", "8 / 8 / 8", "wrong", "disagree"]


class ForgetfulProbe(Probe):
    """Loses the first write to the trapped window from its log, once."""

    lost = False

    def _collect(self, data: bytes) -> Submission:
        whole = super()._collect(data)
        for index, each in enumerate(whole.transactions):
            if each.region == 2 and not self.lost:
                self.lost = True
                return Submission(
                    whole.data, whole.transactions[:index] + whole.transactions[index + 1 :], whole.window
                )
        return whole


def test_a_disagreement_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(f"wrong {number}" for number in range(7))
    row = PushRow("44", "44", 5, 4, "works", "works", (8, 8.5, 9), False, Verdict.DISAGREE, "", many)

    async def run(push: Push) -> PushReport:
        return PushReport({}, push, (row,))

    monkeypatch.setattr("pyvfio_user.guest.push_run.run_push", run)
    ended = CliRunner().invoke(main, ["push", "--barrier", "dsb"])
    assert ended.exit_code == 1
    assert ended.output.splitlines()[-6:] == [
        *(f"disagree: 44: wrong {number}" for number in range(5)),
        "disagree: 44: ... and 2 more (the JSON file has all)",
    ]
    assert "8 / 8.5 / 9" in ended.output
    assert PushReport({}, Push(), ()).disagrees
