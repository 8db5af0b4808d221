"""The benchmark works; what it measures is asserted nowhere."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from .__main__ import main
from .measure import LIMIT, OURS, Figures, lost, repeat
from .programs import BenchError, Sample, server_of
from .rows import ROWS, Placement, Row, Unit


def sample(seconds: float, *, client: float = 0.5, peer: float = 0.5, count: int = 1000) -> Sample:
    return Sample(count, seconds, client * seconds, peer * seconds)


def test_every_row_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--no-qemu", "--json", str(tmp_path / "bench.json")]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [row["failures"] for row in found["rows"]] == [{}] * len(found["rows"])
    operations = {row.operation for row in ROWS if row.placement is Placement.SAME}
    assert operations <= {row["operation"] for row in found["rows"]}
    assert all(row["values"][OURS] > 0 for row in found["rows"])
    assert {one["name"] for one in found["whole"]} >= {
        "idle server, a client attached",
        "memory of an idle device",
        "behaviours of 8 stores, device check in C",
        "behaviours of 8 stores, device in Python",
        "behaviours of 8 stores, device of the kit",
    }
    assert "register read" in capsys.readouterr().out


def test_disturbed_repetitions_are_done_again() -> None:
    takes = iter([sample(1), sample(2), sample(1, client=0.3), sample(2), sample(1), sample(1)])
    found = repeat(Row("read", "read", ratio=0.5), dict.fromkeys((LIMIT, OURS), lambda name: next(takes)), 2, 6)
    assert (found.redone, found.disturbed) == (1, False)
    assert found.ratios(OURS) == [0.5, 1.0]
    assert found.met is True


def test_what_is_never_quiet_is_told_by_cpu_time() -> None:
    quarter = sample(1, client=0.125, peer=0.125)
    found = repeat(Row("read", "read", ratio=0.9), {LIMIT: lambda name: quarter, OURS: lambda name: quarter}, 2, 3)
    assert (found.redone, found.disturbed, found.by_cpu) == (1, True, True)
    assert found.value(OURS) == 4000
    row = Row("read", "read", Placement.POLLING, ratio=0.9)
    across = repeat(row, {LIMIT: lambda name: quarter, OURS: lambda name: quarter}, 2, 3)
    assert (across.disturbed, across.by_cpu, across.met) == (True, False, None)


def test_a_server_that_fails_does_not_end_the_run() -> None:
    def fail(name: str) -> Sample:
        raise BenchError("it left")

    found = repeat(Row("read", "read"), {LIMIT: lambda name: sample(1), OURS: fail}, 2, 4)
    assert found.failures == {OURS: "it left"}
    assert (found.value(OURS), found.met, len(found.samples[LIMIT])) == (None, False, 2)


@pytest.mark.parametrize(
    ("placement", "name", "expected"),
    [
        (Placement.SAME, OURS, 0.5),
        (Placement.POLLING, LIMIT, 0.8),
        (Placement.POLLING, OURS, 0.7),
        (Placement.BLOCKING, OURS, 0.0),
        (Placement.BLOCKING, LIMIT, 0.8),
    ],
)
def test_who_must_run_all_the_time(placement: Placement, name: str, expected: float) -> None:
    assert lost(Row("read", "read", placement), name, sample(2, client=0.3, peer=0.2)) == pytest.approx(expected)


def test_the_server_of_a_socket_is_who_listens_on_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert server_of(path) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert server_of(path) is None
        listener.listen()
        assert server_of(path) == os.getpid()


def test_units() -> None:
    one = {OURS: [sample(1)]}
    assert Figures(Row("read", "read"), one).value(OURS) == 1000
    assert Figures(Row("dma", "dma", length=65536, unit=Unit.BYTES), one).value(OURS) == pytest.approx(0.065536)


@pytest.mark.parametrize(
    ("ours", "peer", "met"), [(10, None, True), (10.1, None, False), (10, 9.9, True), (10, 9.7, False)]
)
def test_a_time_is_held_against_the_limit_and_peers(ours: float, peer: float | None, met: bool) -> None:
    row = Row("connect", "connect", most=10, peers=True, unit=Unit.TIME)
    taken = {LIMIT: [sample(1)], OURS: [sample(ours)]} | ({"peer": [sample(peer)]} if peer else {})
    connect = Figures(row, taken)
    assert connect.value(OURS) == pytest.approx(1000 * ours)
    assert connect.met is met
