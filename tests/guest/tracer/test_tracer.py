"""The tracer in the real QEMU: what each class of instruction becomes, under which type, and when labels change."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyvfio_user.bridge.stream import BAR_CONFIG, Event, Kind
from pyvfio_user.guest.provision.qemu import QemuBinary
from pyvfio_user.guest.tracing import Tracer, Window

from .runs import access, by_case, compile_program, label, run_traced

INSTRUCTIONS = {
    1: ["store 2+0x0 8: 0x1234", "store 2+0x9 1: 0x34", "load 2+0x0 2: 0x1234"],
    2: [
        "store 2+0x0 8: 0x1 pair", "store 2+0x8 8: 0x2 pair #1",
        "store 2+0x10 4: 0x1 pair", "store 2+0x14 4: 0x2 pair #1",
        "load 2+0x0 4: 0x1 pair", "load 2+0x4 4: 0x0 pair #1",
        "store 2+0x20 8: 0x1 pair non_temporal", "store 2+0x28 8: 0x2 pair non_temporal #1",
    ],
    3: [
        "store 2+0x0 16: 0x1" + "01" * 15 + " simd",
        "store 2+0x10 16: 0x1" + "01" * 15 + " pair simd", "store 2+0x20 16: 0x2" + "02" * 15 + " pair simd #1",
        "store 2+0x30 8: 0x1" + "01" * 7 + " pair simd", "store 2+0x38 8: 0x2" + "02" * 7 + " pair simd #1",
    ],
    4: [
        "store 2+0x0 8: 0x1" + "01" * 7 + " simd structure", "store 2+0x8 8: 0x1" + "01" * 7 + " simd structure #1",
        "store 2+0x10 8: 0x2" + "02" * 7 + " simd structure #2",
        "store 2+0x18 8: 0x2" + "02" * 7 + " simd structure #3",
        "store 2+0x0 4: 0x2020202 simd structure",
        "load 2+0x0 4: 0x2020202 simd structure", "load 2+0x4 4: 0x1010101 simd structure #1",
        "load 2+0x8 4: 0x1010101 simd structure #2", "load 2+0xc 4: 0x1010101 simd structure #3",
        "load 2+0x0 2: 0x202 simd structure",
    ],
    5: [
        "load 2+0x40 8: 0x0 acquire exclusive", "store 2+0x40 8: 0x5 release exclusive",
        "load 2+0x40 8: 0x5 exclusive pair", "load 2+0x48 8: 0x0 exclusive pair #1",
        "store 2+0x40 8: 0x5 exclusive pair", "store 2+0x48 8: 0x5 exclusive pair #1",
    ],
    6: [
        "store 2+0x0 8: 0x3", "atomic 2+0x0 8 acquire release no_data", "atomic 2+0x0 8: 0x3 acquire",
        "atomic 2+0x0 8 release no_data", "atomic 2+0x0 16 pair no_data",
    ],
    7: [
        "store 2+0x0 8: 0x7 release", "load 2+0x0 8: 0x7 acquire", "load 2+0x0 8: 0x7 acquire_pc",
        "store 2+0x0 1: 0x7 release",
    ],
    8: ["zero 2+0xc0 64: 0x0 repeated"],
    9: [
        "dmb ish", "dmb oshst", "dgh", "store 2+0x0 8: 0x1", "dsb st", "isb", "load 2+0x0 8: 0x1", "dmb ld",
    ],
    10: [
        "store 2+0x40 8: 0x0", "tag_store 2+0x50 16 no_data", "tag_store 2+0x40 32 no_data",
        "tag_store 2+0x50 16 no_data", "tag_load 2+0x30 16 no_data",
    ],
    11: ["store 2+0x10 300: 0x5a mops repeated"],
    12: ["store 2+0xffd 3: 0x1 mops repeated", "store 2+0x1000 5: 0x1 mops repeated"],
    13: ["store 2+0x8 100 mops no_data"],
    14: ["load 2+0x8 100 mops no_data"],
    15: ["load 2+0x100 32 mops no_data", "store 2+0x108 32 mops no_data #1"],
    16: [
        "store 2+0xffc 4: 0xffffffff part", "store 2+0x1000 4: 0xffffffff part #1",
        "store 2+0xfe8 16: 0x3" + "03" * 15 + " pair simd",
        "store 2+0xff8 8: 0x3" + "03" * 7 + " pair simd part #1",
        "store 2+0x1000 8: 0x3" + "03" * 7 + " pair simd part #2",
    ],
    17: ["store 2+0x0 8: 0x1 unprivileged", "load 2+0x8 8: 0x0", "store 2+0x4 4: 0x1", "load 2+0x0 4: 0x1"],
    18: [
        "store 2+0x0 8: 0x4" + "04" * 7 + " sve", "store 2+0x8 8: 0x4" + "04" * 7 + " sve",
        "load 2+0x0 8: 0x4" + "04" * 7 + " sve", "load 2+0x8 8: 0x4" + "04" * 7 + " sve",
        "store 2+0x0 16: 0x4" + "04" * 15 + " sve",
    ],
    19: [
        f"{what} 2+{base + at:#x} 8: 0x{byte}" + f"0{byte}" * 7 + " sve non_temporal"
        for base, filled, both in ((0, "44", True), (16, "44", True), (0, "44", False), (0, "4455", True))
        for what in (("store", "load") if both else ("store",))
        for at, byte in zip(range(0, 32, 8), filled, strict=False)
    ],
    35: [
        "store 2+0x0 16: 0x6" + "06" * 15 + " simd",  # gathers and LDNF1 are not watched, and load what is there
        "store 2+0x0 4: 0x6060606",
    ],
    36: [
        "store 2+0x0 16: 0x6" + "06" * 15 + " simd",
        "load 2+0x0 8: 0x6" + "06" * 7 + " sve",  # QEMU tells of no element but the first
        "store 2+0x10 8: 0x2",  # though FFR says that two were loaded
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def events(kernel: Path, qemu_binary: QemuBinary) -> list[Event]:
    with Tracer() as tracer:
        run_traced(qemu_binary.path, kernel, tracer)
        assert tracer.ring.dropped == 0
        return tracer.events()


@pytest.fixture(scope="module")
def cases(events: list[Event]) -> dict[int, list[Event]]:
    return by_case(events)


def of_bar(events: list[Event]) -> Iterator[Event]:
    return (event for event in events if event.bar == 2)


@pytest.mark.parametrize("case", INSTRUCTIONS)
def test_what_an_instruction_becomes(case: int, cases: dict[int, list[Event]]) -> None:
    assert [access(event) for event in cases[case]] == INSTRUCTIONS[case]
    assert {label(event) for event in of_bar(cases[case])} == {"44 over none = 44 at EL2"}


def test_events_are_numbered_without_a_gap(events: list[Event]) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_events_of_one_instruction_have_its_address_and_encoding(cases: dict[int, list[Event]]) -> None:
    first, second, *_ = cases[2]
    assert (first.pc, first.instruction) == (second.pc, second.instruction)
    assert first.instruction & 0xFFC0_0000 == 0xA900_0000, "STP of two X registers, signed offset"


def test_the_function_is_known_by_its_address(cases: dict[int, list[Event]]) -> None:
    assert {event.peripheral for event in of_bar(cases[1])} == {1 << 3}


def test_labels_follow_tlbi_and_mair(cases: dict[int, list[Event]]) -> None:
    assert [(event.data[0], label(event)) for event in of_bar(cases[20])] == [
        (1, "44 over none = 44 at EL2"),
        (2, "04 over none = 04 at EL2"),
        (3, "08 over none = 08 at EL2"),
    ]


def test_labels_follow_a_descriptor_after_tlbi(cases: dict[int, list[Event]]) -> None:
    assert [(event.data[0], label(event)) for event in of_bar(cases[26])] == [
        (1, "44 over none = 44 at EL2"),
        (2, "04 over none = 04 at EL2"),
    ]


def test_labels_follow_the_exception_level(cases: dict[int, list[Event]]) -> None:
    assert [(event.data[0], label(event)) for event in of_bar(cases[27])] == [
        (3, "00 over none = 00 at EL2"),
        (4, "00 over 5 = 00 at EL1"),
        (5, "00 over none = 00 at EL2"),
    ]


def test_parts_of_an_access_have_each_the_type_of_its_page_and_what_faults_is_no_event(
    cases: dict[int, list[Event]],
) -> None:
    assert [(access(event), label(event)) for event in of_bar(cases[21])] == [
        ("store 2+0xffe 2: 0xffff part", "44 over none = 44 at EL2"),
        ("store 2+0x1000 6: 0xffffffffffff part #1", "04 over none = 04 at EL2"),
    ]


def test_what_faults_midway_is_recorded_up_to_there(cases: dict[int, list[Event]]) -> None:
    assert [access(event) for event in of_bar(cases[25])] == ["store 2+0x1ff8 8: 0x33 mops repeated"]


def test_labels_have_both_stages_and_the_exception_level(cases: dict[int, list[Event]]) -> None:
    assert [(event.data[0], label(event)) for event in of_bar(cases[22])] == [
        (5, "ff over 1 = 04 at EL1"),
        (6, "08 over 5' = 08 at EL0"),
    ]


def test_labels_follow_sctlr(cases: dict[int, list[Event]]) -> None:
    assert [(event.data[0], label(event)) for event in of_bar(cases[23])] == [
        (7, "44 over 5' = 44 at EL1"),
        (8, "00 over 5' = 00 at EL1"),
    ]


def test_labels_follow_hcr_cd(cases: dict[int, list[Event]]) -> None:
    """S2CombineS1MemAttrs: with HCR_EL2.CD Normal memory is Non-cacheable (DDI 0487, HCR_EL2)."""
    assert [(event.data[0], label(event)) for event in of_bar(cases[28])] == [
        (9, "ff over 15 = 44 at EL1"),
        (10, "ff over 15 = ff at EL1"),
    ]


def test_a_process_in_aarch32_state(cases: dict[int, list[Event]]) -> None:
    found = [event for event in cases[24] if event.bar == 2 or str(event.barrier) == "dmb oshst"]
    assert [access(event) for event in found] == ["store 2+0x8 4: 0x9", "dmb oshst", "load 2+0x8 4: 0x9"]
    assert {label(event) for event in of_bar(cases[24])} == {"00 over 5' = 00 at EL0"}


def test_a_bar_is_found_where_it_was_moved_to(cases: dict[int, list[Event]]) -> None:
    assert [access(event) for event in cases[30]] == [
        "store fe+0x18 4: 0x20000000",
        "store 2+0x10 4: 0x4",
        "store fe+0x18 4: 0x10100000",
        "store 2+0x10 4: 0x5",
    ]
    assert {event.peripheral for event in cases[30]} == {1 << 3}


def test_a_bar_is_nowhere_while_memory_space_is_disabled(cases: dict[int, list[Event]]) -> None:
    found = [access(event) for event in cases[31] if event.bar != BAR_CONFIG]
    assert found == ["store ?+0x10100010 4: 0x6", "store 2+0x10 4: 0x7"]


def test_each_vcpu_has_its_own_events_and_barriers(cases: dict[int, list[Event]]) -> None:
    assert [(event.vcpu, access(event), label(event)) for event in of_bar(cases[40])] == [
        (1, "store 2+0x20 4: 0x77", "00 over none = 00 at EL2")
    ]


def test_barriers_after_the_last_access_are_there_at_the_end(events: list[Event]) -> None:
    last = [event for event in events if event.vcpu == 1]
    assert [access(event) for event in last] == ["store 2+0x20 4: 0x77", "dmb ish"]


def test_configuration_space_is_traced_by_function(cases: dict[int, list[Event]]) -> None:
    first = next(event for event in cases[0] if event.bar == BAR_CONFIG)
    assert access(first) == "load fe+0x0 4: 0x81b36", "the vendor and device of the host bridge"
    assert first.peripheral == 0


def test_a_cpu_without_fwb_tags_or_mops_is_traced(kernel: Path, qemu_binary: QemuBinary) -> None:
    with Tracer() as tracer:
        run_traced(qemu_binary.path, kernel, tracer, cpu="cortex-a76", smp=1)
        cases = by_case(tracer.events())
    expected = {case: INSTRUCTIONS[case] for case in range(1, 10)}
    expected[6] = [  # without another vCPU QEMU tells what an atomic stored
        "store 2+0x0 8: 0x3",
        "atomic 2+0x0 8: 0x6 acquire release",
        "atomic 2+0x0 8: 0x3 acquire",
        "atomic 2+0x0 8: 0x3 release",
        "atomic 2+0x0 16: 0x1" + "01" * 7 + "00" * 7 + "03 pair",
    ]
    assert {case: [access(event) for event in cases[case]] for case in expected} == expected


def test_a_cpu_without_aarch64_is_traced_without_types(tmp_path: Path, qemu_binary: QemuBinary) -> None:
    """It stores to the real-time clock's match register, and reads it: str r1, [r0, #4]; dsb; ldr r2, [r0, #4]; b ."""
    code = [0xE3A00409, 0xE2800801, 0xE3A01009, 0xE5801004, 0xF57FF04F, 0xE5902004, 0xEAFFFFFE]
    image = tmp_path / "image"
    image.write_bytes(b"".join(word.to_bytes(4, "little") for word in code))
    command = [
        str(qemu_binary.path),
        "-M",
        "virt",
        "-cpu",
        "cortex-a15",
        "-m",
        "64M",
        "-nodefaults",
        "-display",
        "none",
    ]
    command += ["-device", f"loader,file={image},addr=0x40200000", "-device", "loader,addr=0x40200000,cpu-num=0"]
    with Tracer([Window(0x0901_0000, 0x1000)]) as tracer:
        process = subprocess.Popen([*command, *tracer.options], stdin=subprocess.DEVNULL)
        try:
            found: list[Event] = []
            deadline = time.monotonic() + 30
            while len(found) < 3 and time.monotonic() < deadline:
                found += tracer.events()
        finally:
            process.kill()
            process.wait()
    assert [access(event) for event in found] == ["store ?+0x9010004 4: 0x9", "dsb sy", "load ?+0x9010004 4: 0x9"]
    assert {label(event) for event in found if event.size} == {"? over ? = ? at ELNone"}


def test_without_config_windows_bars_are_unknown_and_addresses_physical(kernel: Path, qemu_binary: QemuBinary) -> None:
    with Tracer([Window(0x1000_0000, 0x2EFF_0000)]) as tracer:
        run_traced(qemu_binary.path, kernel, tracer)
        stores = [event for event in tracer.events() if event.kind is Kind.STORE]
    assert access(stores[1]) == "store ?+0x10100000 8: 0x1234"
    assert {event.peripheral for event in stores} == {None}
    assert label(stores[1]) == "44 over none = 44 at EL2"


def test_what_finds_the_ring_full_is_counted(kernel: Path, qemu_binary: QemuBinary) -> None:
    with Tracer() as whole, Tracer(capacity=16) as tracer:
        run_traced(qemu_binary.path, kernel, whole, smp=1)
        run_traced(qemu_binary.path, kernel, tracer, smp=1)
        total = len(whole.events())
        assert [event.sequence for event in tracer.events()] == list(range(1, 17))
        assert tracer.ring.dropped == total - 16


def test_where_events_are_missing_the_stream_says_how_many(tmp_path: Path, qemu_binary: QemuBinary) -> None:
    """A reader that waits until the ring is full, then empties it while the guest goes on."""
    kernel = compile_program(tmp_path, stores=1_000_000)
    with Tracer() as whole, Tracer(capacity=16) as tracer:
        run_traced(qemu_binary.path, kernel, whole, smp=1)
        total = 0
        while batch := whole.ring.take():
            total += len(batch) // 64
        assert whole.ring.dropped == 0
        found: list[Event] = []
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(run_traced, qemu_binary.path, kernel, tracer, smp=1)
            while not tracer.ring.dropped and not run.done():
                pass
            while not run.done():
                found += tracer.events()
            run.result()
            found += tracer.events()
        gaps = [event for event in found if event.kind is Kind.LOST]
        assert [event.sequence for event in found] == list(range(1, len(found) + 1))
        assert len(found) - len(gaps) + tracer.ring.dropped == total > 1_000_000
        assert gaps
        assert 0 < sum(event.size for event in gaps) <= tracer.ring.dropped


def test_an_eager_tracer_tells_barriers_when_they_are_executed(qemu_binary: QemuBinary, tmp_path: Path) -> None:
    """Each kind once between two accesses, where it was seen first; behind the last access, too."""
    with Tracer(eager=True) as tracer:
        run_traced(qemu_binary.path, compile_program(tmp_path), tracer, smp=1)
        cases = by_case(tracer.events())
    assert [access(event) for event in cases[9]][:5] == ["dmb oshst", "dmb ish", "dgh", "store 2+0x0 8: 0x1", "dsb st"]
    assert [access(event) for event in cases[1]] == INSTRUCTIONS[1]
