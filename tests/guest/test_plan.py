"""The messages between host and guest: layout, round trips and refusals."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from enum import IntEnum, IntFlag
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.guest import hello, plan, script, workload
from pyvfio_user.guest.battery import BATTERY
from pyvfio_user.guest.plan import Command, Experiment, Fault, GuestRefused, Range, Refusal, Result
from pyvfio_user.guest.script import Action, Outcome, Space, Step, StepStatus
from pyvfio_user.guest.workload import Barrier, Idiom, Wish, Workload

EXPERIMENTS = st.builds(
    Experiment,
    mark=st.integers(0, 2**32 - 1),
    op=st.integers(0, len(BATTERY) - 1),
    el=st.integers(0, 2),
    s1=st.integers(0, 7),
    bar=st.sampled_from((0, 2, plan.PLATFORM)),
    offset=st.integers(0, 2**64 - 1),
    flags=st.integers(0, 3),
    bar2=st.integers(0, 255),
    s1_2=st.integers(0, 7),
    offset2=st.integers(0, 2**32 - 1),
)
RESULTS = st.builds(
    Result,
    mark=st.integers(0, 2**32 - 1),
    status=st.integers(0, 3),
    level=st.integers(0, 2),
    flags=st.integers(0, 2**16 - 1),
    esr=st.integers(0, 2**64 - 1),
    far=st.integers(0, 2**64 - 1),
    value0=st.integers(0, 2**64 - 1),
    value1=st.integers(0, 2**64 - 1),
)
PUSH = Workload(
    el=0,
    idiom=Idiom.ST1,
    barrier=Barrier.DSB,
    window_s1=4,
    window_bar=2,
    window_offset=0x20000,
    doorbell_s1=1,
    doorbell_bar=0,
    doorbell_offset=0x4000,
    count=1000,
    slots=64,
)


def answer(command: Command, count: int = 0, argument: int = 0, body: bytes = b"") -> bytes:
    return plan.HEADER.pack(plan.MAGIC, command, plan.VERSION, count, argument) + body


@given(st.lists(EXPERIMENTS, min_size=1, max_size=20))
def test_a_run_has_one_entry_an_experiment(experiments: list[Experiment]) -> None:
    message = plan.pack_run(experiments)
    assert plan.HEADER.unpack_from(message) == (plan.MAGIC, Command.RUN, 1, len(experiments), 0)
    entries = [
        Experiment(mark, op, el, s1, bar, offset, flags, bar2, s1_2, offset2)
        for mark, op, el, s1, flags, bar, bar2, s1_2, offset2, offset in plan.RUN_ENTRY.iter_unpack(message[16:])
    ]
    assert entries == experiments


@given(st.lists(RESULTS, max_size=20))
def test_results_come_back_in_order(results: list[Result]) -> None:
    body = plan.CONTEXT.pack(*range(8)) + b"".join(plan.RESULT.pack(*result) for result in results)
    runs = plan.unpack_run(answer(Command.RUN, len(results), 0, body))
    assert runs.results == results
    assert runs.context == tuple(range(8))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    for unpack in (
        plan.unpack_run,
        plan.unpack_install,
        hello.unpack_hello,
        script.unpack_script,
        workload.unpack_workload,
    ):
        with pytest.raises(DefinitionError):
            unpack(data)


def test_result_flags() -> None:
    result = Result(1, 1, 1, 0x0300 | plan.ResultFlag.TLBI | 1, 0, 0, 0, 0)
    assert (result.ran_at, result.instruction, result.tlbi) == (1, 3, True)


def test_an_install_is_packed_as_the_guest_reads_it() -> None:
    message = plan.pack_install([Range(2, 0x20000, 32, 5, 4)], fwb=True, faults=Fault.SKIP_TLBI)
    assert message[:16] == struct.pack("<IHHII", 0x4E414C50, 1, 1, 1, 0x201)
    assert message[16:] == struct.pack("<BBBBIQQ", 2, 5, 4, 1, 32, 0x20000, 0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Range(6, 0, 1, 0, 0), "bar must be between 0 and 5, or 255 for a platform range, not 6"),
        (Range(2, 0x800, 1, 0, 0), "offset must be a multiple of 4096, not 2048"),
        (Range(2, 0, 0, 0, 0), "pages must be between 1 and 262144, not 0"),
        (Range(2, 0, 1, 16, 0), "memattr must be between 0 and 15, not 16"),
        (Range(2, 0, 1, 0, 8), "host must be between 0 and 7, not 8"),
    ],
)
def test_an_impossible_range_is_refused(entry: Range, message: str) -> None:
    with pytest.raises(DefinitionError, match=f"^{re.escape(message)}$"):
        plan.pack_install([entry])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": len(BATTERY)}, f"op must be between 0 and {len(BATTERY) - 1}, not {len(BATTERY)}"),
        ({"el": 3}, "el must be between 0 and 2, not 3"),
        ({"s1": 8}, "s1 must be between 0 and 7, not 8"),
        ({"s1_2": -1}, "s1_2 must be between 0 and 7, not -1"),
        ({"flags": 8}, "flags must be between 0 and 7, not 8"),
    ],
)
def test_an_impossible_experiment_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(DefinitionError, match=f"^{re.escape(message)}$"):
        plan.pack_run([Experiment(1, 0, 1, 0, 2, 0)._replace(**change)])


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^mark, bar, offset and bar2 must be unsigned and fit their fields: "):
        plan.pack_run([Experiment(2**32, 0, 1, 0, 2, 0)])
    with pytest.raises(DefinitionError, match=r"^number of experiments must be between 1 and 24576, not 0$"):
        plan.pack_run([])


@pytest.mark.parametrize("reason", [each for each in Refusal if each])
def test_a_refusal_names_its_reason(reason: Refusal) -> None:
    with pytest.raises(GuestRefused, match=r"^the guest refused a message: ") as caught:
        plan.unpack_install(answer(Command.INSTALL, 3, reason))
    assert caught.value.reason is reason


def test_a_refused_entry_is_named() -> None:
    with pytest.raises(GuestRefused, match=r"entry 3 names a BAR, page or type that the guest does not have$"):
        plan.unpack_install(answer(Command.INSTALL, 3, Refusal.ENTRY))


def test_an_answer_to_something_else_is_an_error() -> None:
    with pytest.raises(DefinitionError, match=r"^an answer must be to command RUN, not 1$"):
        plan.unpack_run(answer(Command.INSTALL))
    with pytest.raises(DefinitionError, match=r"^the answer's body must have 64 bytes, not 0$"):
        plan.unpack_install(answer(Command.INSTALL))


def test_script_round_trip_and_errors() -> None:
    message = script.pack_script([Step(Action.WRITE, Space.RAM, 4, 0x48000000, 7)])
    assert message[16:] == struct.pack("<BBBBIQQQ", 1, 4, 2, 0, 1_000_000, 0x48000000, 7, 2**64 - 1)
    body = script.RESULT.pack(1, 0x96000010, 0) + script.RESULT.pack(0, 0, 5)
    assert script.unpack_script(answer(Command.SCRIPT, 2, 0, body)) == [
        Outcome(StepStatus.FAULT, 0x96000010, 0),
        Outcome(StepStatus.DONE, 0, 5),
    ]
    with pytest.raises(DefinitionError, match=r"^size must be 1, 2, 4 or 8, not 3$"):
        script.pack_script([Step(Action.READ, Space.MMIO, 3, 0)])
    with pytest.raises(DefinitionError, match=r"^address must be a multiple of size 4, not 0x2$"):
        script.pack_script([Step(Action.READ, Space.MMIO, 4, 2)])
    with pytest.raises(DefinitionError, match=r"^value must be between 0 and 255, not 256$"):
        script.pack_script([Step(Action.WRITE, Space.MMIO, 1, 0, 256)])


def test_workload_round_trip_and_errors() -> None:
    message = workload.pack_workload(PUSH)
    assert message[16:] == struct.pack(
        "<8B2Q6I", 0, Idiom.ST1, Barrier.DSB, 4, 2, 1, 0, 0, 0x20000, 0x4000, 1000, 64, 64, 0, 0, 0
    )
    asking = workload.REQUEST.unpack(workload.pack_workload(replace(PUSH, el=1, wish=Wish.NORMAL, wish_at=7))[16:])
    assert (asking[7], asking[-1]) == (2, 7)
    with pytest.raises(DefinitionError, match=r"^el must be 1 for a loop that makes a hypercall, not 0$"):
        workload.pack_workload(replace(PUSH, wish=Wish.DEVICE))
    pushed = workload.unpack_workload(answer(Command.WORKLOAD, 1, 0, workload.RESULT.pack(9, 1, 2, 0, 3, 4, 5)))
    assert pushed == workload.Pushed(9, plan.Status.FAULT, 2, 0, 3, 4, 5)
    with pytest.raises(DefinitionError, match=r"^stride must be a multiple of 64, not 32$"):
        workload.pack_workload(replace(PUSH, stride=32))
    with pytest.raises(DefinitionError, match=r"^doorbell_offset must be a multiple of 4, not 2$"):
        workload.pack_workload(replace(PUSH, doorbell_offset=2))


@given(st.integers(0, 2**32 - 1))
def test_an_entry_carries_its_number_and_its_checksum(sequence: int) -> None:
    words = struct.unpack("<8Q", workload.entry(sequence))
    assert words[0] & 0xFFFFFFFF == sequence == ~words[0] >> 32 & 0xFFFFFFFF
    total = 0
    for word in words:
        total ^= word
    assert total == 0


def test_hello_tells_features_and_addresses() -> None:
    fields = [0] * 14
    fields[3], fields[6] = 1 << 40, 2 << 20
    function = hello.PCI_DEVICE.pack(0x1234, 0xBE50, 0x058000, 1 << 15, 0x10000000, 0, 0x10100000, 0, 0, 0, *([0] * 6))
    body = hello.FIXED.pack(*fields, 0, 1, 0xFFFF_8000_8109_0000) + function
    found = hello.unpack_hello(answer(Command.HELLO, 1, 0, body))
    assert found.features == {"fwb", "lse"}
    assert (found.under_test, found.mapping) == (0, 0xFFFF_8000_8109_0000)
    assert found.address(el=1, s1=4, bar=2, offset=0x40) == 0x5_1010_0040
    assert found.address(el=2, s1=4, bar=plan.PLATFORM, offset=0x0901_0000) == 0x9_0901_0000
    assert found.find(0x1234, 0xBE50).class_code == 0x058000
    with pytest.raises(LookupError, match=r"^the guest must have a PCI function 1af4:1110, not 1234:be50$"):
        found.find(0x1AF4, 0x1110)


def _c_enum(text: str, name: str) -> dict[str, int]:
    found = re.search(rf"enum {name} \{{([^}}]*)\}}", text)
    assert found is not None, name
    values, following = {}, 0
    for item in filter(None, (part.strip() for part in found[1].split(","))):
        key, _, value = item.partition("=")
        following = int(value) if value else following
        values[key.strip()] = following
        following += 1
    return values


@pytest.mark.parametrize(
    ("name", "prefix", "members"),
    [
        ("command", "COMMAND_", Command),
        ("refusal", "REFUSAL_", Refusal),
        ("status", "STATUS_", plan.Status),
        ("action", "ACTION_", Action),
        ("space", "SPACE_", Space),
        ("step_status", "STEP_", StepStatus),
        ("idiom", "IDIOM_", Idiom),
        ("barrier", "BARRIER_", Barrier),
    ],
)
def test_the_guests_numbers_are_the_hosts(name: str, prefix: str, members: type[IntEnum]) -> None:
    text = (resources.files("pyvfio_user.guest") / "baremetal" / "plan.h").read_text()
    assert _c_enum(text, name) == {prefix + each.name: each.value for each in members}


@pytest.mark.parametrize(
    ("prefix", "members"), [("INSTALL_", Fault), ("RUN_", plan.RunFlag), ("RESULT_", plan.ResultFlag)]
)
def test_the_guests_flags_are_the_hosts(prefix: str, members: type[IntFlag]) -> None:
    text = (resources.files("pyvfio_user.guest") / "baremetal" / "plan.h").read_text()
    for each in members:
        if each.value:
            found = re.search(rf"#define {prefix}{each.name} (.*)", text)
            assert found is not None, each
            shift = re.fullmatch(r"\(1u << (\d+)\)", found[1])
            assert (1 << int(shift[1]) if shift else int(found[1])) == each.value


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("header", plan.HEADER.size),
        ("install_entry", plan.INSTALL_ENTRY.size),
        ("context", plan.CONTEXT.size),
        ("run_entry", plan.RUN_ENTRY.size),
        ("result", plan.RESULT.size),
        ("step", script.ENTRY.size),
        ("outcome", script.RESULT.size),
        ("workload", workload.REQUEST.size),
        ("pushed", workload.RESULT.size),
        ("hello", hello.FIXED.size),
        ("function", hello.PCI_DEVICE.size),
    ],
)
def test_the_guests_structures_are_as_long(name: str, size: int) -> None:
    text = (resources.files("pyvfio_user.guest") / "baremetal" / "plan.h").read_text()
    assert f'_Static_assert(sizeof(struct {name}) == {size}, "{name}");' in text
