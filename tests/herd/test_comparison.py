"""The outcomes of every program are herd7's, or differ for a reason that is named and checked."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pyvfio_user.guest.provision.herd import Herd

from .conftest import ARRIVAL
from .differences import EXPECTED, REASONS, reasons
from .litmus import RAM, Access, Litmus, Outcome, run
from .outcomes import outcomes
from .programs import programs, typed_programs

MP = Litmus("MP", ((Access(True, "x"), Access(True, "y")),), (Access(False, "y"), Access(False, "x")))


def test_there_are_many_programs_and_no_two_have_one_name() -> None:
    every = [*programs(), *typed_programs()]
    assert len(programs()) >= 500
    assert len(typed_programs()) >= 500
    assert len({program.name for program in every}) == len(every)
    assert len({(program.threads, program.observer, program.types) for program in every}) == len(every)


@pytest.mark.parametrize("kind", [RAM, "nGRE", "NC"])
def test_the_stock_model(kind: str, stock: Mapping[str, frozenset[Outcome]]) -> None:
    """As memory, as a device of a type that only Ordered-before orders, and of one that only barriers do."""
    assert reasons(programs(), stock, kind) == (EXPECTED[kind], [])


def test_peripheral_arrival_order(arrival: Mapping[str, frozenset[Outcome]]) -> None:
    assert reasons(typed_programs(), arrival, RAM) == (EXPECTED["typed"], [])


def test_no_reason_is_without_a_difference() -> None:
    assert {reason.name for reason in REASONS} == {name for found in EXPECTED.values() for name in found}


@pytest.mark.parametrize(("kind", "observation"), [("nGnRE", "Never"), ("nGnRnE", "Never"), ("nGRE", "Sometimes"),
                                                   ("GRE", "Sometimes"), ("NC", "Sometimes")])  # fmt: skip
def test_message_passing_without_a_barrier(kind: str, observation: str, herd: Herd, tmp_path: Path) -> None:
    """Read by hand, so that our reading of herd7's answers is not the only one."""
    program = Litmus(f"MP-{kind}", MP.threads, MP.observer, (("x", kind), ("y", kind)))
    path = tmp_path / "mp.litmus"
    path.write_text(program.text().replace("forall (true)", "exists (1:X10=2 /\\ 1:X11=0)"))
    done = subprocess.run([herd.path, *ARRIVAL, path], capture_output=True, text=True, check=True)
    assert f"Observation MP-{kind} {observation}" in done.stdout


def test_outcomes_of_message_passing() -> None:
    seen = {(dict(outcome)["1:0"], dict(outcome)["1:1"]) for outcome in outcomes(MP, "NC")}
    assert seen == {(0, 0), (0, 1), (2, 0), (2, 1)}
    assert outcomes(MP, "NC") - outcomes(MP, "nGnRE") == {(("1:0", 2), ("1:1", 0), ("x", 1), ("y", 2))}


def test_what_herd7_cannot_read_is_an_error(herd: Herd, tmp_path: Path) -> None:
    class Unreadable(Litmus):
        def text(self) -> str:
            return super().text().replace("STR", "STORE")

    with pytest.raises(RuntimeError, match="herd7 must run all programs, not say"):
        run(herd, [Unreadable("wrong", MP.threads, MP.observer)], tmp_path)
