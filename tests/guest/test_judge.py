"""Verdicts on single experiments: every way in which an observation can be wrong is noticed and named."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import Implementation, MemoryType
from pyvfio_user.guest.battery import BATTERY, INDEX
from pyvfio_user.guest.expectation import Mapping, expect
from pyvfio_user.guest.judge import Arrival, Judge, Judgement, sizes
from pyvfio_user.guest.operation import SLOT, pattern
from pyvfio_user.guest.plan import Experiment, Result, ResultFlag, RunFlag, Status
from pyvfio_user.guest.results import Verdict

MARK = 0x1234
BEFORE = bytes((7 * i + 1) % 255 + 1 for i in range(SLOT))
FAR = 0x5_1000_0000


def mapping(s1: str, s2: str | None, *, fwb: bool = False) -> Mapping:
    return Mapping(MemoryType.parse(s1), None if s2 is None else int(s2, 16), fwb)


def result(*, el: int = 1, fault: tuple[int, int] | None = None, value: int = 0, instruction: int = 0) -> Result:
    """What a sound guest reports: done, or a fault as (level, ESR)."""
    level, esr = fault or (0, 0)
    flags = el | ResultFlag.TLBI | instruction << 8
    return Result(MARK, Status.FAULT if fault else Status.DONE, level, flags, esr, FAR + 1 if fault else 0, value, 0)


def judge(
    name: str, types: Mapping, outcome: Result, arrivals: list[Arrival] | None, *, el: int = 1, warm: bool = False
) -> Judgement:
    op = BATTERY[INDEX[name]]
    judged = Judge(expect(op, types, el, Implementation()), types)
    flags = RunFlag.WARM if warm else RunFlag.NONE
    order = Experiment(MARK, INDEX[name], el, 0, 2, 0x20000, flags)
    return judged.judge(order, outcome, BEFORE, arrivals=arrivals, far=FAR)


def bytewise(offset: int, size: int) -> list[Arrival]:
    data = pattern(MARK)
    return [Arrival(True, offset + i, 1, data[i : i + 1]) for i in range(size)]


WARM_UP = Arrival(False, 0, 8, BEFORE[:8])


class TestTheThreadsExample:
    """The same guest, Normal-NC, an unaligned 8-byte store: a fault in `status-quo`, eight bytes in `normal-nc-all`."""

    def test_over_device_it_faults_to_el2_and_nothing_arrives(self) -> None:
        found = judge("str-x+1", mapping("44", "1"), result(fault=(2, 0x93C18061)), [])
        assert (found.verdict, found.observed) == (Verdict.AGREE, "EL2 fault 93c18061")

    def test_over_normal_nc_it_works_byte_by_byte(self) -> None:
        found = judge("str-x+1", mapping("44", "5"), result(), bytewise(1, 8))
        assert (found.verdict, found.observed) == (Verdict.AGREE, "works")

    def test_a_fault_where_it_must_work_disagrees(self) -> None:
        found = judge("str-x+1", mapping("44", "5"), result(fault=(2, 0x93C18061)), [])
        assert (found.verdict, found.why) == (Verdict.DISAGREE, "expected works, not EL2 fault 93c18061")

    def test_working_where_it_must_fault_disagrees(self) -> None:
        found = judge("str-x+1", mapping("44", "1"), result(), bytewise(1, 8))
        assert (found.verdict, found.why) == (Verdict.DISAGREE, "expected EL2 fault 92000061, not works")

    def test_the_wrong_level_disagrees(self) -> None:
        found = judge("str-x+1", mapping("44", "1"), result(fault=(1, 0x96000061)), [])
        assert found.verdict is Verdict.DISAGREE

    def test_a_read_syndrome_for_a_store_disagrees(self) -> None:
        found = judge("str-x+1", mapping("04", "5"), result(fault=(1, 0x96000021)), [])
        assert (found.verdict, found.why) == (Verdict.DISAGREE, "expected EL1 fault 96000061, not EL1 fault 96000021")


class TestDeviations:
    def test_warm_normal_over_device_to_el1_is_known(self) -> None:
        found = judge("str-x+1", mapping("44", "1"), result(fault=(1, 0x96000061)), [WARM_UP], warm=True)
        assert found.verdict is Verdict.KNOWN_DEVIATION
        assert found.deviation is not None and found.deviation.name == "warm-normal-over-device"

    def test_warm_normal_over_device_to_el2_is_right_and_the_deviation_vanished(self) -> None:
        found = judge("str-x+1", mapping("44", "1"), result(fault=(2, 0x92000061)), [WARM_UP], warm=True)
        assert found.verdict is Verdict.AGREE
        assert found.missed is not None and found.missed.name == "warm-normal-over-device"

    def test_dc_zva_on_device_is_known_and_its_bytes_are_still_checked(self) -> None:
        zeros = [Arrival(True, i, 1, b"\0") for i in range(64)]
        assert judge("dc-zva", mapping("04", "1"), result(), zeros).verdict is Verdict.KNOWN_DEVIATION
        assert judge("dc-zva", mapping("04", "1"), result(), zeros[1:]).verdict is Verdict.DISAGREE


class TestWhatTheDeviceGot:
    def test_a_dropped_transaction_disagrees(self) -> None:
        found = judge("str-x+1", mapping("44", "5"), result(), bytewise(1, 8)[:-1])
        assert (found.verdict, found.why) == (Verdict.DISAGREE, "the device must get 8, not 7x1")

    def test_a_transaction_too_many_disagrees(self) -> None:
        again = bytewise(1, 8)
        assert judge("str-x+1", mapping("44", "5"), result(), [*again, again[-1]]).verdict is Verdict.DISAGREE

    def test_a_transaction_outside_the_slot_disagrees(self) -> None:
        stray = Arrival(True, SLOT, 1, b"\0")
        found = judge("str-x+1", mapping("44", "5"), result(), [*bytewise(1, 8), stray])
        assert (found.verdict, found.why) == (Verdict.DISAGREE, "a transaction must lie in the slot, not at +0x80")

    def test_wrong_bytes_disagree(self) -> None:
        found = judge("str-x", mapping("44", "5"), result(), [Arrival(True, 0, 8, bytes(8))])
        assert found.verdict is Verdict.DISAGREE
        assert found.why.startswith("the device must hold 35")

    def test_a_non_gathering_access_is_one_transaction(self) -> None:
        data = pattern(MARK)
        halves = [Arrival(True, 0, 4, data[:4]), Arrival(True, 4, 4, data[4:8])]
        found = judge("str-x", mapping("04", "1"), result(), halves)
        assert (found.verdict, found.why) == (
            Verdict.DISAGREE,
            "one access to non-Gathering memory must be one transaction, not 2x4",
        )
        assert judge("str-x", mapping("44", "5"), result(), halves).verdict is Verdict.AGREE

    def test_a_warm_trial_begins_with_its_aligned_read(self) -> None:
        assert judge("str-x+1", mapping("44", "5"), result(), bytewise(1, 8), warm=True).why == (
            "an 8-byte read must come first, not 1"
        )

    def test_a_loaded_value_must_be_what_was_there(self) -> None:
        read = Arrival(False, 0, 4, BEFORE[:4])
        right = int.from_bytes(BEFORE[:4], "little")
        assert judge("ldr-w", mapping("44", "5"), result(value=right), [read]).verdict is Verdict.AGREE
        found = judge("ldr-w", mapping("44", "5"), result(value=0), [read])
        assert found.why == f"loaded value must be {right:#x} 0x0, not 0x0 0x0"

    def test_the_doorbell_must_ring_with_its_value(self) -> None:
        op = "payload-dsb-doorbell"
        data = pattern(MARK)
        arrivals = [Arrival(True, 8 * i, 8, data[8 * i : 8 * i + 8]) for i in range(8)]
        found = judge(op, mapping("44", "5"), result(), arrivals)
        assert found.why == f"the doorbell must get ['{data[64:68].hex()}'], not []"


class TestTheGuestItself:
    @pytest.mark.parametrize(
        ("outcome", "why"),
        [
            (result(el=2), "the operation must run at EL1, not EL2"),
            (result()._replace(flags=1), "a TLBI must precede the operation"),
            (result()._replace(mark=7), "the result must be of experiment 4660, not 7"),
            (result()._replace(status=Status.UNDEFINED), "the operation must be run, not end as undefined"),
            (
                result(fault=(1, 0x96000061))._replace(flags=1 | ResultFlag.TLBI | ResultFlag.IN_WARM_UP),
                "the aligned load that warms the TLB must work, not fault",
            ),
        ],
    )
    def test_a_guest_that_did_something_else_disagrees(self, outcome: Result, why: str) -> None:
        found = judge("str-x", mapping("44", "5"), outcome, [])
        assert (found.verdict, found.why) == (Verdict.DISAGREE, why)

    def test_far_must_lie_in_the_access(self) -> None:
        outcome = result(fault=(1, 0x96000061))._replace(far=FAR + 64)
        found = judge("str-x+1", mapping("04", "1"), outcome, [])
        assert (found.verdict, found.why) == (
            Verdict.DISAGREE,
            f"FAR must lie in the access at {FAR:#x}, not {FAR + 64:#x}",
        )


def test_sizes_are_counted_as_people_read_them() -> None:
    assert sizes([]) == "nothing"
    assert sizes(bytewise(0, 8)) == "8x1"
    assert sizes([WARM_UP, *bytewise(0, 2), Arrival(True, 8, 8, bytes(8))]) == "r8 2x1 8"
