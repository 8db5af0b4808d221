"""The link: what may pass what, that it adds nothing to what the core left free, and who hears of a failure."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import NGNRE, NGRE, NORMAL_NC, MemoryType
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.interconnect.behaviours import behaviours
from pyvfio_user.bridge.interconnect.link import Failure, Notice, arrivals, may_pass, who_notices
from pyvfio_user.bridge.interconnect.order import Order
from pyvfio_user.bridge.interconnect.program import Program, atomic, dmb, load, store
from pyvfio_user.bridge.interconnect.tlp import Link, Tlp, completions, tlps
from pyvfio_user.bridge.stream import BAR_CONFIG

PROGRAM = Program.of(
    store(0, type=NGRE),
    load(8, type=NGRE),
    load(16, type=NGRE),
    store(0, 4, bar=BAR_CONFIG, type=NGRE),
    atomic(24, type=NGRE),
)


def requests(link: Link) -> dict[str, Tlp]:
    order = Order(PROGRAM)
    write, read, other, config, atomic_op = tlps(order.effects, (1, 2, 4, 8, 16), link)
    return {
        "posted": write,
        "read": read,
        "config": config,
        "atomic": atomic_op,
        "completion": completions(read, link)[0],
        "other completion": completions(other, link)[0],
    }


@pytest.mark.parametrize(
    ("later", "earlier", "plain", "relaxed"),
    [
        ("posted", "posted", False, True),
        ("posted", "read", True, True),
        ("posted", "config", True, True),
        ("posted", "completion", True, True),
        ("read", "posted", False, False),
        ("config", "posted", False, False),
        ("atomic", "posted", False, True),
        ("atomic", "read", True, True),
        ("read", "read", True, True),
        ("completion", "posted", False, True),
        ("completion", "read", True, True),
        ("completion", "completion", False, False),
        ("completion", "other completion", True, True),
    ],
)
def test_what_may_pass_what(later: str, earlier: str, plain: bool, relaxed: bool) -> None:
    assert may_pass(requests(Link())[later], requests(Link())[earlier]) is plain
    assert may_pass(requests(Link(relaxed=True))[later], requests(Link(relaxed=True))[earlier]) is relaxed


def test_relaxed_ordering_is_the_requests() -> None:
    """A completion has that of its request (PCIe 2.2.9); configuration requests have none (2.2.7)."""
    made = requests(Link(relaxed=True))
    assert {name for name, tlp in made.items() if tlp.relaxed} == made.keys() - {"config"}
    assert not any(tlp.relaxed for tlp in completions(made["config"], Link(relaxed=True)))


def test_a_read_of_the_device_pushes_its_dma_and_interrupts() -> None:
    """Upstream they are posted writes, and the completion comes behind them."""
    made = requests(Link())
    dma, msi = made["posted"]._replace(bar=None, address=0x4000_0000), made["posted"]._replace(bar=None)
    assert not may_pass(msi, dma)
    assert not may_pass(made["completion"], dma)
    assert not may_pass(made["completion"], msi)


def arrived(program: Program, link: Link) -> set[tuple[int, ...]]:
    """In which orders effects arrive when each behaviour's TLPs go over the link."""
    found = behaviours(program)
    return {
        tuple(tlp.effects for tlp in order)
        for behaviour in found
        for order in arrivals(tlps(found.effects, behaviour, link), found.order)
    }


ACCESS = st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from(["04", "08", "0c", "44"]), st.booleans())


@settings(deadline=None, max_examples=50)
@given(st.lists(ACCESS, min_size=1, max_size=4))
def test_the_link_adds_nothing_to_what_the_core_left_free(
    accesses: list[tuple[bool, int, str, bool]],
) -> None:
    parts = []
    for write, slot, kind, fenced in accesses:
        parts += [dmb() if fenced else dmb("ish")]
        parts += [(store if write else load)(64 * slot, type=MemoryType.parse(kind))]
    program = Program.of(*parts)
    alone = {block for block in set(behaviours(program)) if all(b & (b - 1) == 0 for b in block)}
    assert {order for order in arrived(program, Link()) if all(e & (e - 1) == 0 for e in order)} == alone


def test_a_write_that_must_follow_a_read_waits_for_its_completion() -> None:
    program = Program.of(load(0), store(8))
    sent = behaviours(program)
    (only,) = sent
    assert [[tlp.effects for tlp in each] for each in arrivals(tlps(sent.effects, only), sent.order)] == [[1, 2]]


def test_with_relaxed_ordering_free_writes_pass() -> None:
    nc = Program.of(store(0, type=NORMAL_NC), store(64, type=NGNRE))
    sent = behaviours(nc)
    there = tlps(sent.effects, (1, 2))
    assert len(list(arrivals(there, sent.order))) == 1
    assert len(list(arrivals(tlps(sent.effects, (1, 2), Link(relaxed=True)), sent.order))) == 2


def test_who_hears_of_a_failure() -> None:
    made = requests(Link())
    told = frozenset({Notice.ALL_ONES, Notice.EXTERNAL_ABORT, Notice.AER})
    host = frozenset({Notice.AER, Notice.SERROR})
    assert who_notices(made["posted"], Failure.UNSUPPORTED_REQUEST) == host
    assert [who_notices(made["read"], failure) for failure in Failure] == [told] * 3
    with pytest.raises(
        DefinitionError, match=r"^a request must have a completion to fail by completion timeout, not MWr$"
    ):
        who_notices(made["posted"], Failure.COMPLETION_TIMEOUT)
