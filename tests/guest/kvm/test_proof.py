"""Three witnesses of a mapping: whichever of them lies alone is caught."""

from __future__ import annotations

import pytest

from pyvfio_user.guest.kvm.proof import Seen, quarrel

WORKS = Seen("EL1 cold", "works", True, "8x1", 8)
FAULTS = Seen("EL1 cold", "KVM_RUN -EFAULT", False, "nothing", 0)
SAYS_NORMAL = "the descriptor has MemAttr 5, under which an unaligned access works"
SAYS_DEVICE = "the descriptor has MemAttr 1, under which an unaligned access faults"


def test_one_story() -> None:
    assert quarrel(5, normal=True, seen=[WORKS, WORKS]) == ""
    assert quarrel(1, normal=False, seen=[FAULTS, FAULTS]) == ""


def test_where_nothing_keeps_a_record_two_are_enough() -> None:
    assert quarrel(15, normal=True, seen=[WORKS._replace(stored=None)]) == ""
    assert quarrel(1, normal=False, seen=[FAULTS._replace(stored=None)]) == ""
    assert quarrel(1, normal=False, seen=[WORKS._replace(stored=None)]) != ""


@pytest.mark.parametrize(
    ("memattr", "normal", "seen", "rest"),
    [
        (1, False, WORKS, f"{SAYS_DEVICE}; the guest saw: works; the device got: 8x1"),
        (5, True, FAULTS, f"{SAYS_NORMAL}; the guest saw: KVM_RUN -EFAULT; the device got: nothing"),
        (5, True, FAULTS._replace(device="8x1", stored=8), "the guest saw: KVM_RUN -EFAULT; the device got: 8x1"),
        (1, False, WORKS._replace(device="nothing", stored=0), "the guest saw: works; the device got: nothing"),
        (5, True, WORKS._replace(device="nothing", stored=0), "the guest saw: works; the device got: nothing"),
        (5, True, WORKS._replace(device="7x1", stored=7), "the guest saw: works; the device got: 7x1"),
        (1, False, FAULTS._replace(device="3x1", stored=3), "the device got: 3x1"),
    ],
    ids=["descriptor", "descriptor", "guest", "guest", "device", "device, in part", "device, in part"],
)
def test_one_that_lies_alone(memattr: int, normal: bool, seen: Seen, rest: str) -> None:
    other = WORKS if normal else FAULTS
    found = quarrel(memattr, normal=normal, seen=[other, seen._replace(mode="EL0 warm")])
    assert found.startswith(f"EL0 warm: {SAYS_NORMAL if normal else SAYS_DEVICE}; ")
    assert found.endswith(rest)


def test_no_store_proves_nothing() -> None:
    assert quarrel(1, normal=False, seen=[]) == f"{SAYS_DEVICE}, but no such access was made"
