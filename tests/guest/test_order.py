"""The order in which accesses must reach the device: what each type, and each barrier, promises and does not."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import Implementation, MemoryType
from pyvfio_user.devices.probe_map import Reg
from pyvfio_user.guest.battery import BATTERY, INDEX
from pyvfio_user.guest.expectation import Mapping, expect
from pyvfio_user.guest.judge import Arrival, Judge, Judgement
from pyvfio_user.guest.lanes.evidence import behind_ring
from pyvfio_user.guest.operation import SLOT, Element, pattern
from pyvfio_user.guest.order import out_of_order
from pyvfio_user.guest.plan import Experiment, Result, ResultFlag, RunFlag, Status
from pyvfio_user.guest.results import Verdict
from tests.guest.lanes.test_evidence import write

MARK = 0x77
DATA = pattern(MARK)


def stores(count: int = 8, size: int = 8) -> list[Arrival]:
    return [Arrival(True, at, size, DATA[at : at + size]) for at in range(0, count * size, size)]


def judge(name: str, s1: str, s2: str | None, arrivals: list[Arrival], *, late: int = 0, el: int = 1) -> Judgement:
    op = BATTERY[INDEX[name]]
    types = Mapping(MemoryType.parse(s1), None if s2 is None else int(s2, 16), False)
    result = Result(MARK, Status.DONE, 0, el | ResultFlag.TLBI, 0, 0, 0, 0)
    order = Experiment(MARK, INDEX[name], el, 0, 2, 0x20000, RunFlag.NONE)
    rung = [DATA[64:68]] if op.doorbell else []
    judged = Judge(expect(op, types, el, Implementation()), types)
    return judged.judge(order, result, bytes(SLOT), arrivals=arrivals, rung=rung, late=late)


@pytest.mark.parametrize(
    ("s1", "s2", "verdict"),
    [
        ("00", "5", Verdict.DISAGREE),
        ("04", "5", Verdict.DISAGREE),
        ("ff", "1", Verdict.DISAGREE),
        ("08", "3", Verdict.AGREE),
        ("0c", "3", Verdict.AGREE),
        ("44", "5", Verdict.AGREE),
    ],
)
def test_only_non_reordering_types_keep_program_order(s1: str, s2: str, verdict: Verdict) -> None:
    swapped = stores()
    swapped[3], swapped[4] = swapped[4], swapped[3]
    found = judge("iowrite64-copy", s1, s2, swapped)
    assert found.verdict is verdict
    assert found.why == (
        "accesses must arrive in program order, not with the write at +0x18 late" if verdict is Verdict.DISAGREE else ""
    )
    assert judge("iowrite64-copy", s1, s2, stores()).verdict is Verdict.AGREE


@pytest.mark.parametrize(
    ("arrivals", "late"),
    [
        ([(False, 0), (False, 8), (True, 0)], None),
        ([(False, 8), (False, 0), (True, 0)], 1),
        ([(False, 0), (True, 0), (False, 8)], 2),
        ([(False, 0), (False, 8)], None),
    ],
)
def test_reads_keep_the_order_too(arrivals: list[tuple[bool, int]], late: int | None) -> None:
    """Two loads, then a store where the first one was."""
    made = [Element(0, 8, False, 8), Element(8, 8, False, 8, instruction=1), Element(0, 8, True, 8, instruction=2)]
    assert out_of_order(made, arrivals) == late


def test_within_one_instruction_no_order_is_promised() -> None:
    one, two = stores(2)
    assert judge("stp-x", "00", "1", [one, two]).verdict is Verdict.AGREE
    assert judge("stp-x", "00", "1", [two, one]).verdict is Verdict.AGREE


@pytest.mark.parametrize(
    ("name", "s1", "s2", "el", "last"),
    [
        ("none", "44", "5", 1, False),
        ("dgh", "44", "5", 1, False),
        ("none", "08", "3", 1, False),
        ("none", "04", "5", 1, True),
        ("dgh", "04", "5", 0, True),
        ("none", "04", None, 2, False),
        ("dmb", "44", "5", 1, True),
        ("dsb", "44", "5", 1, True),
        ("stlr", "44", "5", 1, True),
        ("dmb", "44", None, 2, True),
        ("dmb", "ff", "f", 1, False),
    ],
)
def test_the_doorbell_comes_last_where_type_or_barrier_say_so(
    name: str, s1: str, s2: str | None, el: int, last: bool
) -> None:
    found = judge(f"payload-{name}-doorbell", s1, s2, stores(), late=2, el=el)
    assert found.why == ("the doorbell must arrive last, not before 2 accesses" if last else "")
    assert judge(f"payload-{name}-doorbell", s1, s2, stores(), el=el).verdict is Verdict.AGREE


def test_accesses_behind_the_first_ring_are_counted() -> None:
    ring = write(0)._replace(region=0, offset=int(Reg.DOORBELL), size=4)
    assert behind_ring([]) == behind_ring([write(1)]) == behind_ring([write(1), ring]) == 0
    assert behind_ring([write(1), ring, write(2), ring, write(3)]) == 2
