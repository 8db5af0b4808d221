"""The scorecard: every scheme's answers to all fifteen questions, and what would prove them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC, NORMAL_WB, NORMAL_WT, MemoryType, combine
from pyvfio_user.bridge.schemes import NOTHING, SCHEMES, Bar, Driver, Host, Layout, Range, Scheme, Situation, settled
from pyvfio_user.bridge.schemes.questions import QUESTIONS, Answer, Cell, Study, scorecard
from pyvfio_user.bridge.schemes.questions.host import loss

from .layouts import LAYOUT, MEMORY, situations

DRIVER = Driver.knowing(LAYOUT, cacheable_bars=MEMORY)
CARDS = {name: scorecard(Study.of(scheme, LAYOUT, driver=DRIVER)) for name, scheme in SCHEMES.items()}
BAR0 = ["control", "doorbell", "fifo", "bar0+0xc000"]
BAR2 = ["window", "half-safe", "strict", "dynamic", "msix", "bar2+0x70000"]


def answers(number: int) -> dict[str, Any]:
    """One question's values, by scheme."""
    return {name: card[number - 1].value for name, card in CARDS.items()}


def answer(name: str, number: int) -> Answer:
    return CARDS[name][number - 1]


def test_fifteen_questions_in_order() -> None:
    for card in CARDS.values():
        assert [one.question for one in card] == list(range(1, 16))
        assert all(one.how == "modelled" and one.text.endswith("?") and one.detail for one in card)
        json.dumps([one.value for one in card])
    assert [one.key for one in CARDS["status-quo"]] == [
        "guest-types",
        "asks-nothing",
        "platform",
        "host-mapping",
        "two-ranges",
        "contiguous",
        "knowledge",
        "host-process",
        "other-hosts",
        "cacheable",
        "side-effects",
        "run-time",
        "containment",
        "reset",
        "aliases",
    ]


def test_1_guest_types() -> None:
    device, guest, forced = "110000", "111110", "000001"
    got = {name: "".join(str(int(there)) for there in value.values()) for name, value in answers(1).items()}
    assert got == dict.fromkeys(SCHEMES, guest) | {"status-quo": device, "cacheable-follow": forced}
    assert list(answers(1)["trap"]) == [
        "Device-nGnRnE",
        "Device-nGnRE",
        "Device-nGRE",
        "Device-GRE",
        "Normal Non-cacheable",
        "Normal Write-Back",
    ]
    assert "Normal Non-cacheable on window" in answer("permit-wc", 1).detail
    assert "Normal Non-cacheable on window, half-safe" in answer("mmap-writecombine", 1).detail


def test_2_asks_nothing() -> None:
    neither = {"guest": False, "host": False}
    guest_only = {"guest": False, "host": True}
    both = {"guest": True, "host": True}
    assert answers(2) == dict.fromkeys(SCHEMES, both) | {
        "prefetchable-wc": neither,
        "normal-nc-all": guest_only,
        "vma-pci-io": guest_only,
        "vma-allow-any-uncached": guest_only,
        "vfio-descriptor": neither,
        "pgprot-maybe-wc": neither,
        "pgprot-device": neither,
        "cacheable-follow": neither,
        "vfio-wc-uapi": guest_only,
    }


def test_3_platform() -> None:
    assert answers(3) == {key: {"guest": True, "host": True} for key in SCHEMES} | {
        "normal-nc-all": {"guest": False, "host": True},
        "pgprot-device": {"guest": False, "host": True},
    }
    assert answer("normal-nc-all", 3).detail == (
        "the guest's bound changes on: platform, gicv; the user mapping on: none"
    )
    assert answer("pgprot-device", 3).detail == "the guest's bound changes on: platform; the user mapping on: none"


def test_4_host_mapping() -> None:
    free = {"no_speculation": True, "no_unaligned": True}
    normal = {"no_speculation": False, "no_unaligned": False}
    assert answers(4) == dict.fromkeys(SCHEMES, free) | dict.fromkeys(
        (
            "prefetchable-wc",
            "vfio-descriptor",
            "mmap-writecombine",
            "mmap-writecombine-vetted",
            "cacheable-follow",
            "vfio-wc-uapi",
        ),
        normal,
    )
    assert answer("pgprot-maybe-wc", 4).detail == "user mappings are Device-nGnRnE, Device-GRE; Normal on: none"


def test_5_two_ranges() -> None:
    assert answers(5) == {
        name: {"wc_and_device": name != "status-quo", "bound": bound}
        for name, bound in (
            dict.fromkeys(SCHEMES, "none")
            | {"prefetchable-wc": "BAR", "cacheable-follow": "BAR", "vfio-descriptor": "range", "vmm-opt-in": "memslot"}
            | dict.fromkeys(("mmap-writecombine", "mmap-writecombine-vetted", "permit-wc", "trap"), "page")
        ).items()
    }
    assert "within BAR 0;" in answer("cacheable-follow", 5).detail


def test_6_contiguous() -> None:
    whole = {"contiguous": True, "mmaps": 1, "vmas": 1, "memslots": 1}
    cut = {"contiguous": True, "mmaps": 3, "vmas": 3, "memslots": 1}
    expected = {name: {"bar0": whole, "bar2": whole} for name in SCHEMES}
    for name in ("vfio-descriptor", "mmap-writecombine", "mmap-writecombine-vetted", "vfio-wc-uapi"):
        expected[name] = {"bar0": whole, "bar2": cut}
    expected["vmm-opt-in"] = {"bar0": whole, "bar2": whole | {"memslots": 2}}
    assert answers(6) == expected
    assert all(card[5].evidence == () for card in CARDS.values())


def test_6_a_refused_bar_is_not_there() -> None:
    study = Study.of(SCHEMES["cacheable-follow"], LAYOUT, driver=DRIVER, host=Host(fwb=False))
    six = scorecard(study)[5]
    assert isinstance(six.value, dict)
    assert six.value["bar2"] == {"contiguous": False, "mmaps": 1, "vmas": 1, "memslots": 1}
    assert "BAR 2: not mapped, its memslot is refused" in six.detail


def test_7_knowledge() -> None:
    def value(must_know: bool | None, veto: bool, msix: bool) -> dict[str, bool | None]:
        return {"vmm_must_know": must_know, "vfio_can_veto": veto, "msix_wc": msix}

    assert answers(7) == dict.fromkeys(SCHEMES, value(False, False, True)) | {
        "status-quo": value(None, False, False),
        "vfio-descriptor": value(False, True, False),
        "vmm-opt-in": value(True, False, True),
        "mmap-writecombine": value(True, False, True),
        "mmap-writecombine-vetted": value(True, True, False),
        "permit-wc": value(True, False, True),
        "trap": value(True, False, True),
    }


def test_8_host_process() -> None:
    combining = ("prefetchable-wc", "vfio-descriptor", "mmap-writecombine", "mmap-writecombine-vetted", "vfio-wc-uapi")
    assert answers(8) == dict.fromkeys(SCHEMES, "no") | dict.fromkeys(combining, "write-combining") | {
        "pgprot-maybe-wc": "gathering, aligned only",
        "cacheable-follow": "cacheable",
    }


def test_9_other_hosts() -> None:
    flagged = ("vma-pci-io", "vma-allow-any-uncached", "vfio-wc-uapi")
    expected = {name: {"bits32": name not in flagged, "no_fwb": True} for name in SCHEMES}
    assert answers(9) == expected | {"cacheable-follow": {"bits32": False, "no_fwb": False}}
    assert answer("cacheable-follow", 9).detail == (
        "32-bit host: memslot refused over window, half-safe, strict, dynamic, msix, bar2+0x70000; "
        "no FWB: memslot refused over window, half-safe, strict, dynamic, msix, bar2+0x70000"
    )
    assert all(card[8].unobservable == ("bits32",) for card in CARDS.values())


def test_10_cacheable() -> None:
    assert answers(10) == dict.fromkeys(SCHEMES, "no") | dict.fromkeys(
        ("mmap-writecombine", "mmap-writecombine-vetted", "cacheable-follow"), "forced"
    )
    # What the matrix does not run cannot be seen: nobody asks for cacheable pieces in the study's own request.
    assert answer("mmap-writecombine", 10).evidence == ()
    assert {cell.expected for cell in answer("cacheable-follow", 10).evidence} == {NORMAL_WB}


def test_11_side_effects() -> None:
    by_guest = (
        "normal-nc-all",
        "vma-pci-io",
        "vma-allow-any-uncached",
        "pgprot-maybe-wc",
        "pgprot-device",
        "cacheable-follow",
        "vfio-wc-uapi",
    )
    assert answers(11) == {name: {"by_host": False, "by_guest": name in by_guest} for name in SCHEMES}
    # The register's own BAR is not prefetchable here; where it is, the host's mapping is Normal.
    prefetchable = replace(LAYOUT, bars=(Bar(0, 0x10000, True), Bar(2, 0x100000, True)))
    eleven = scorecard(Study.of(SCHEMES["prefetchable-wc"], prefetchable))[10]
    assert eleven.value == {"by_host": True, "by_guest": True}
    assert eleven.detail == "the host may speculate on: fifo; a guest that maps it Normal on: fifo"


def test_12_run_time() -> None:
    def value(driver: str, mappings: bool) -> dict[str, Any]:
        possible = driver != "nobody"
        return {
            "possible": possible,
            "driver": driver,
            "mappings_change": mappings,
            "neighbours": True if possible else None,
        }

    by_vmm = ("mmap-writecombine", "mmap-writecombine-vetted", "permit-wc")
    nobody = ("status-quo", "vfio-descriptor", "vmm-opt-in", "cacheable-follow")
    assert answers(12) == dict.fromkeys(SCHEMES, value("guest", False)) | dict.fromkeys(
        by_vmm, value("vmm", True)
    ) | dict.fromkeys(nobody, value("nobody", False)) | {
        "vfio-wc-uapi": value("guest", True),
        "trap": value("guest", True),
    }
    assert answer("trap", 12).evidence == (
        Cell("dynamic", 0, NGNRE, NGNRE, "changed", True),
        Cell("dynamic", 0, NORMAL_NC, NGNRE, "changed", True),
        Cell("dynamic", 1, NGNRE, NGNRE, "changed", True),
        Cell("dynamic", 1, NORMAL_NC, NORMAL_NC, "changed", True),
        Cell("dynamic", 2, NGNRE, NGNRE, "changed", True),
        Cell("dynamic", 2, NORMAL_NC, NGNRE, "changed", True),
    )


def test_13_containment() -> None:
    def value(bursts: list[str], speculation: list[str], host: list[str]) -> dict[str, Any]:
        return {
            "bursts": bursts,
            "speculation": speculation,
            "host_speculation": host,
            "noticed_by": "the host" if bursts or speculation or host else "nobody needs to",
        }

    bursts = [*BAR0, "strict", "dynamic", "msix", "bar2+0x70000"]
    speculation = [*BAR0, "half-safe", "strict", "msix", "bar2+0x70000"]
    in_bar2 = [name for name in speculation if name in BAR2]
    everywhere = value(bursts, speculation, [])
    assert answers(13) == dict.fromkeys(SCHEMES, everywhere) | dict.fromkeys(
        ("status-quo", "vfio-descriptor", "mmap-writecombine-vetted", "permit-wc"), value([], [], [])
    ) | {
        "prefetchable-wc": value([n for n in bursts if n in BAR2], in_bar2, in_bar2),
        "vmm-opt-in": value([], ["half-safe"], []),
        "mmap-writecombine": value([], ["half-safe"], ["half-safe"]),
        "cacheable-follow": value(bursts, speculation, in_bar2),
        "vfio-wc-uapi": value(bursts, speculation, ["half-safe"]),
        "trap": value([], ["half-safe"], []),
    }


def test_14_reset() -> None:
    for name, value in answers(14).items():
        assert (name, value["by_type"], value["early_ack"]) == (name, False, True)
    asked = ["window", "half-safe"]
    expected = {name: BAR0 + BAR2 for name in SCHEMES} | {"status-quo": [], "prefetchable-wc": BAR2}
    for name in ("vfio-descriptor", "vmm-opt-in", "mmap-writecombine", "mmap-writecombine-vetted", "permit-wc", "trap"):
        expected[name] = asked
    assert {name: value["buffered"] for name, value in answers(14).items()} == expected


def test_15_aliases() -> None:
    assert answers(15) == {key: {"loses": "device guarantees", "avoidable": True} for key in SCHEMES}
    refused = Study.of(SCHEMES["cacheable-follow"], LAYOUT, driver=DRIVER, host=Host(fwb=False))
    assert scorecard(refused)[14].value == {"loses": "device guarantees", "avoidable": True}


@pytest.mark.parametrize(
    ("host", "guest", "lost"),
    [
        (0x00, 0x00, "nothing"),
        (0x00, 0x04, "device guarantees"),
        (0x44, 0x0C, "device guarantees"),
        (0x44, 0x00, "device guarantees"),
        (0xFF, 0xFF, "nothing"),
        (0xFF, 0xF0, "nothing"),
        (0xFF, 0x44, "coherency"),
        (0x00, 0xFF, "coherency"),
        (0xBB, 0xFF, "coherency"),
    ],
)
def test_what_mismatched_aliases_lose(host: int, guest: int, lost: str) -> None:
    assert loss(MemoryType(host), MemoryType(guest)) == lost
    assert loss(MemoryType(guest), MemoryType(host)) == lost


def test_a_device_without_the_ranges_in_question() -> None:
    plain = Layout((Bar(0, 0x1000),), (Range("all", 0, 0, 0x1000),))
    card = scorecard(Study.of(SCHEMES["mmap-writecombine"], plain))
    assert {one.question: (one.value, one.detail) for one in card if one.value is None} == {
        3: (None, "the layout has no platform range"),
        11: (None, "the layout has no range with read side effects"),
        12: (None, "the layout has no dynamic range"),
    }
    assert card[6].value == {"vmm_must_know": None, "vfio_can_veto": False, "msix_wc": None}
    assert card[9].value == "no"


def test_evidence_is_what_the_decisions_say() -> None:
    seen = 0
    for name, card in CARDS.items():
        study = Study.of(SCHEMES[name], LAYOUT, driver=DRIVER)
        assert study.changed is not None
        decisions = {
            ("asking", True): study.asking,
            ("nothing", True): study.nothing,
            ("changed", True): study.changed.decision,
            ("asking", False): study.on(Host(fwb=False)),
        }
        for one in card:
            for cell in one.evidence:
                piece = decisions[cell.request, cell.fwb].at(cell.range, cell.page)
                if cell.s1 is None:
                    assert cell.expected == piece.host
                else:
                    assert cell.expected == combine(cell.s1, piece.s2, cell.fwb)
                seen += 1
    assert seen > 1000


def test_the_defaults_are_a_vmm_and_driver_that_know_the_device() -> None:
    study = Study.of(SCHEMES["trap"], LAYOUT)
    assert study.asking == settled(SCHEMES["trap"], study.situation)
    assert study.situation.request.ask(LAYOUT.find("window")).write_combine
    assert study.host == Host(64, True, True)
    assert Study.of(SCHEMES["trap"], LAYOUT, request=NOTHING).asking.at("window").s2 == 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(SCHEMES.values())), situations())
def test_every_question_has_an_answer(scheme: Scheme, inputs: Situation) -> None:
    study = Study(scheme, inputs.layout, inputs.request, inputs.driver, inputs.host)
    for number, question in enumerate(QUESTIONS, 1):
        one = question(study)
        assert one.question == number
        json.dumps(one.value)
        for cell in one.evidence:
            assert inputs.layout.find(cell.range).pages > cell.page
            assert cell.s1 != NORMAL_WT or cell.expected != NORMAL_WT
