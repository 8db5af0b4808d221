"""Reads that nobody asked for: by the type of a mapping, and the same as the schemes' questions say by rule."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import MEMORY_TYPES, MemoryType
from pyvfio_user.bridge.schemes import SCHEMES, Host
from pyvfio_user.bridge.schemes.questions import Study, scorecard
from pyvfio_user.devices.probe_map import RANGES
from pyvfio_user.guest.layout import DRIVER, LAYOUT, REQUEST
from pyvfio_user.guest.orders.reads import REGISTERS, unasked


def test_each_range_with_side_effects_has_a_register() -> None:
    assert set(REGISTERS) == {name for name, where in RANGES.items() if where.read_side_effects}
    for name, offset in REGISTERS.items():
        assert RANGES[name].offset <= offset < RANGES[name].offset + RANGES[name].size


@pytest.mark.parametrize("who", ["host", "guest"])
@pytest.mark.parametrize("kind", MEMORY_TYPES, ids=str)
def test_a_register_is_read_through_normal_mappings_alone(kind: MemoryType, who: str) -> None:
    """The guest rings a doorbell: one behaviour. A read may come before it, behind it or not at all."""
    found = unasked("fifo", kind, who)
    normal = str(kind) in ("44", "bb", "ff", "f0")
    assert (found.legal, found.reading) == ((3, 2) if normal else (1, 0))
    assert found.register == "bar0+0x8000 4"
    assert found.why == (f"bar0+0x8000 4 through the {who}'s {kind.name} mapping (B2.10.1)" if normal else "")


def test_a_range_without_such_a_register_is_looked_at_where_it_begins() -> None:
    assert unasked("wc-trapped", MEMORY_TYPES[4], "host").register == "bar2+0x20000 4"
    assert unasked("bar0+0xc000", MEMORY_TYPES[4], "host").register == "bar0+0xc000 4"
    with pytest.raises(KeyError):
        unasked("nowhere", MEMORY_TYPES[4], "host")


@pytest.mark.parametrize("fwb", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_the_questions_say_by_rule(scheme: str, fwb: bool) -> None:
    """Questions 4 and 11: the programs find the reads exactly where the schemes' mappings permit them."""
    study = Study.of(SCHEMES[scheme], LAYOUT, request=REQUEST, driver=DRIVER, host=Host(fwb=fwb))
    by_rule = {answer.question: answer.value for answer in scorecard(study)}
    pieces = study.pieces(study.asking, study.pci)
    host = {p.range for p in pieces if p.host is not None and unasked(p.range, p.host, "host").reading}
    guest = {p.range for p in pieces if any(unasked(p.range, kind, "guest").reading for kind in p.reachable(fwb))}
    assert by_rule[4] == {"no_speculation": not host, "no_unaligned": not host}
    assert by_rule[11] == {"by_host": bool(host & set(REGISTERS)), "by_guest": bool(guest & set(REGISTERS))}
