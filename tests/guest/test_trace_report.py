"""A trace on a terminal, and the command that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC, NORMAL_WB, MemoryType
from pyvfio_user.bridge.stream import (
    BAR_CONFIG,
    BAR_ROM,
    NO_STAGE_2,
    Barrier,
    BarrierKind,
    Event,
    Flag,
    Kind,
    write_trace,
)
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.provision.qemu import QemuBinary
from pyvfio_user.guest.report.trace import peripheral, stage2_name, type_name, what, where

from .tracer.runs import compile_program

STORE = Event(
    Kind.STORE,
    offset=0x10,
    size=4,
    data=b"\x01\x02\x03\x04",
    bar=2,
    stage1=NORMAL_WB,
    stage2=1,
    type=NGNRE,
    peripheral=0x0108,
    flags=Flag.RELEASE,
    pc=0x1004,
    sequence=2,
    el=1,
)
EVENTS = [
    Event(Kind.LOAD, offset=4, size=2, data=b"\6\0", bar=BAR_CONFIG, peripheral=0x0108, sequence=1, pc=0x1000, el=1),
    STORE,
    Event(Kind.BARRIER, barrier=Barrier(BarrierKind.DMB, 2), sequence=3, pc=0x1008),
    STORE._replace(sequence=4),
    Event(Kind.ZERO, offset=0x40, size=64, data=b"\0", bar=0, flags=Flag.REPEATED, sequence=5, pc=0x2000),
    Event(Kind.LOST, size=7, sequence=6),
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    write_trace(tmp_path / "trace", EVENTS)
    (tmp_path / "map").write_text("0000000000001000 T ring_doorbell\n")
    return tmp_path / "trace"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["trace", *map(str, arguments)], prog_name="pyvfio-user")


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in result.output.splitlines() if "│" in line]


def test_a_line_an_event(trace: Path) -> None:
    result = invoke(trace, "--symbols", trace.with_name("map"))
    assert rows(result) == [
        ["2", "0", "1", "ring_doorbell+0x4", "store release", "01:01.0 BAR 2 +0x10", "4", "01 02 03 04",
         "WB", "1", "nGnRE"],
        ["3", "0", "", "ring_doorbell+0x8", "dmb oshst", "", "", "", "", "", ""],
        ["4", "0", "1", "ring_doorbell+0x4", "store release", "01:01.0 BAR 2 +0x10", "4", "01 02 03 04",
         "WB", "1", "nGnRE"],
        ["5", "0", "", "ring_doorbell+0x1000", "zero", "? BAR 0 +0x40", "64", "64 x 00", "?", "?", "?"],
        ["6", "0", "", "", "7 events lost", "", "", "", "", "", ""],
    ]  # fmt: skip
    assert result.output.splitlines()[-2:] == [
        f"{trace}: 6 events, 1 of them not shown",
        "7 more were lost: the ring was full",
    ]


def test_configuration_space_is_shown_if_asked_for(trace: Path) -> None:
    assert rows(invoke(trace, "--config"))[0][:6] == ["1", "0", "1", "0x1000", "load", "01:01.0 config +0x4"]


def test_one_bar_only(trace: Path) -> None:
    assert [row[0] for row in rows(invoke(trace, "--bar", "0"))] == ["3", "5", "6"]


def test_a_line_a_function(trace: Path) -> None:
    assert rows(invoke(trace, "--functions", "-s", trace.with_name("map"))) == [
        ["ring_doorbell", "store release", "01:01.0 BAR 2", "4", "WB", "1", "nGnRE", "2"],
        ["ring_doorbell", "zero", "? BAR 0", "64", "?", "?", "?", "1"],
    ]


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (STORE, "01:01.0 BAR 2 +0x10"),
        (STORE._replace(bar=BAR_ROM), "01:01.0 ROM +0x10"),
        (STORE._replace(bar=None, peripheral=None, offset=0x1000_0000), "0x10000000"),
    ],
)
def test_where(event: Event, text: str) -> None:
    assert where(event) == text


def test_names() -> None:
    assert peripheral(STORE._replace(peripheral=0xFF)) == "00:1f.7"
    assert [stage2_name(STORE._replace(stage2=value, fwb=True)) for value in (None, NO_STAGE_2, 6)] == ["?", "-", "6'"]
    assert [type_name(value) for value in (None, NORMAL_NC, MemoryType(0x40), MemoryType(0x4F))] == [
        "?", "NC", "NC", "4f",
    ]  # fmt: skip
    assert what(STORE._replace(kind=Kind.TAG_STORE, flags=Flag.NON_TEMPORAL)) == "tag store non-temporal"


def test_a_file_that_is_no_trace_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    result = invoke(tmp_path / "x")
    assert result.output == (
        f"Error: {tmp_path / 'x'} must be a trace of version 1, not a file that starts with b'x'\n"
    )
    assert result.exit_code == 1


def test_it_is_drawn_as_a_page_and_for_perfetto(trace: Path, tmp_path: Path) -> None:
    page, perfetto = tmp_path / "out/t.html", tmp_path / "t.pftrace"
    files: list[str | Path] = ["--html", page, "--perfetto", perfetto]
    result = invoke(trace, "--symbols", trace.with_name("map"), *files, "--profile", "wc-64x4", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert result.stderr == f"timeline: 5 events in {page} and {perfetto}\n"
    assert result.stdout.splitlines() == [
        f"{trace}: 6 events, 1 of them not shown",
        "7 more were lost: the ring was full",
    ]
    text = page.read_text()
    assert "<h1>trace trace</h1>" in text and "profile wc-64x4, seed 7" in text
    assert "ring_doorbell+0x4" in text and "7 events lost" in text
    assert b"MWr bar2+0x10 1DW f/0" in perfetto.read_bytes()


def test_what_is_not_drawn_is_counted(trace: Path, tmp_path: Path) -> None:
    result = invoke(trace, "--html", tmp_path / "t.html", "--most", "2", "--profile", "none")
    assert result.stderr == f"timeline: 2 events in {tmp_path / 't.html'}, 3 left out\n"
    assert "MWr" not in (tmp_path / "t.html").read_text()


def test_a_profile_that_is_not_there_is_one_line(trace: Path, tmp_path: Path) -> None:
    result = invoke(trace, "--html", tmp_path / "t.html", "--profile", "fast")
    assert (result.exit_code, result.output.startswith("Error: profile must be one of in-order, ")) == (1, True)
    assert result.output.endswith(", not fast\n") and not (tmp_path / "t.html").exists()


def test_a_picture_that_cannot_be_written_is_one_line(trace: Path, tmp_path: Path) -> None:
    result = invoke(trace, "--perfetto", tmp_path / "map" / "t")
    assert (result.exit_code, result.output) == (1, f"Error: cannot write {tmp_path / 'map/t'}: File exists\n")


def test_a_guest_is_recorded_and_shown(tmp_path: Path, qemu_binary: QemuBinary) -> None:
    kernel, path = compile_program(tmp_path), tmp_path / "trace"
    ivshmem = ["-object", "memory-backend-memfd,id=bar,size=1M,share=on", "-device", "ivshmem-plain,memdev=bar"]
    options = ["-semihosting-config", "enable=on", "-kernel", str(kernel), *ivshmem]
    done = CliRunner().invoke(main, ["qemu", "el2", "--trace", str(path), "--", *options], prog_name="pyvfio-user")
    assert done.exit_code == 0, done.output
    assert f" events in {path}\n" in done.output
    assert "lost" not in done.output
    shown = rows(invoke(path, "--functions", "--symbols", kernel))
    assert ["guest_main", "store non-temporal pair", "00:01.0 BAR 2", "8", "NC", "-", "NC", "2"] in [
        [row[0], " ".join(sorted(row[1].split(), key=lambda word: (word != "store", word))), *row[2:]] for row in shown
    ]


def test_a_qemu_without_the_api_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyvfio_user.guest.tracing.api_version", lambda qemu: None)
    result = CliRunner().invoke(main, ["qemu", "el2", "--trace", str(tmp_path / "t")], prog_name="pyvfio-user")
    assert result.exit_code == 1
    assert "\n" not in result.output.rstrip("\n")
    assert result.output.startswith("Error: QEMU's plugin API must be version 7 (QEMU 11) to trace, not none: /")
    assert not (tmp_path / "t").exists()


def test_a_trace_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "absent-folder-of-a-file"
    path.write_text("")
    result = CliRunner().invoke(main, ["qemu", "el2", "--trace", str(path / "t")], prog_name="pyvfio-user")
    assert result.exit_code == 1
    assert result.output == f"Error: cannot write {path / 't'}: File exists\n"
