"""What holds for every scheme, whatever the device, the VMM, the driver and the host."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvfio_user.bridge.attributes import MEMORY_TYPES, NORMAL_NC, PAGE, encode_stage2
from pyvfio_user.bridge.schemes import NOTHING, SCHEMES, Change, Driver, Scheme, Situation, settled, surviving_vmas

from .layouts import situations

schemes = st.sampled_from(list(SCHEMES.values()))
OPT_IN = ("vmm-opt-in", "mmap-writecombine", "mmap-writecombine-vetted", "permit-wc", "trap")


@given(schemes, situations())
def test_pieces_cover_every_page_once(scheme: Scheme, inputs: Situation) -> None:
    decision = settled(scheme, inputs)
    for bar in inputs.layout.bars:
        pieces = [piece for piece in decision.pieces if piece.bar == bar.index]
        offset = 0
        for piece in pieces:
            assert piece.offset == offset
            offset += piece.size
        assert offset == bar.size
    for where in inputs.layout.covered:
        assert sum(piece.pages for piece in decision.of(where.name)) == where.pages
        for page in range(where.pages):
            assert decision.at(where.name, page).offset <= where.offset + page * PAGE


@given(schemes, situations())
def test_a_piece_is_consistent(scheme: Scheme, inputs: Situation) -> None:
    decision = settled(scheme, inputs)
    for piece in decision.pieces:
        assert (piece.s2 is None) == (piece.stage2 is None) == (piece.refusal is not None)
        if piece.stage2 is not None:
            assert piece.s2 == encode_stage2(piece.stage2, inputs.host.fwb)
        where = inputs.layout.find(piece.range)
        assert (piece.host is None) == where.kvm_internal
        assert bool(piece.vma_flags) == (piece.host is not None)
        if inputs.host.bits == 32:
            assert not {"VM_PCI_IO", "VM_ALLOW_ANY_UNCACHED"} & set(piece.vma_flags)


@given(schemes, situations())
def test_nothing_cacheable_without_fwb_and_dic(scheme: Scheme, inputs: Situation) -> None:
    decision = settled(scheme, inputs)
    if not (inputs.host.fwb and inputs.host.dic):
        for piece in decision.pieces:
            assert not any(kind.is_write_back for kind in piece.reachable(inputs.host.fwb))


@given(situations())
def test_the_status_quo_asks_nobody(inputs: Situation) -> None:
    scheme = SCHEMES["status-quo"]
    bare = dataclasses.replace(inputs, request=NOTHING, driver=Driver())
    assert settled(scheme, inputs).pieces == scheme.decide(bare).pieces


@pytest.mark.parametrize("name", OPT_IN)
@given(situations())
def test_opt_in_changes_nothing_for_who_does_not_ask(name: str, inputs: Situation) -> None:
    bare = dataclasses.replace(inputs, request=NOTHING)
    decision = settled(SCHEMES[name], bare)
    before = SCHEMES["status-quo"].decide(bare)
    assert (decision.pieces, decision.bars) == (before.pieces, before.bars)


@given(situations())
def test_the_uapi_changes_nothing_for_who_does_not_ask(inputs: Situation) -> None:
    bare = dataclasses.replace(inputs, request=NOTHING)
    decision = SCHEMES["vfio-wc-uapi"].decide(bare)
    merged = SCHEMES["vma-allow-any-uncached"].decide(bare)
    assert (decision.pieces, decision.bars) == (merged.pieces, merged.bars)


@given(situations())
def test_the_veto_never_lets_side_effects_or_msix_be_combined(inputs: Situation) -> None:
    scheme = SCHEMES["mmap-writecombine-vetted"]
    decision = scheme.decide(inputs)
    for where in inputs.layout.covered:
        decision = scheme.adapt(decision, Change(where.name)).decision
    for piece in decision.pieces:
        where = inputs.layout.find(piece.range)
        if (where.read_side_effects or where.msix_table) and piece.bar not in inputs.driver.cacheable_bars:
            assert piece.host is None or not piece.host.gathering
            assert not any(kind.gathering for kind in piece.reachable(inputs.host.fwb))
        if NORMAL_NC in (piece.host, piece.stage2):
            assert where.name in inputs.driver.safe_speculation


@given(situations())
def test_the_veto_is_never_wider_than_the_wish(inputs: Situation) -> None:
    vetted = SCHEMES["mmap-writecombine-vetted"].decide(inputs)
    free = SCHEMES["mmap-writecombine"].decide(inputs)
    for where in inputs.layout.covered:
        for page in range(where.pages):
            one, other = vetted.at(where.name, page).stage2, free.at(where.name, page).stage2
            if one is not None and other is not None:
                for freedom in ("gathering", "reordering", "early_ack", "speculation"):
                    assert getattr(one, freedom) <= getattr(other, freedom)


@given(schemes, situations())
def test_only_normal_nc_all_touches_what_kvm_maps_itself(scheme: Scheme, inputs: Situation) -> None:
    decision = settled(scheme, inputs)
    for piece in decision.pieces:
        if inputs.layout.find(piece.range).kvm_internal:
            assert piece.s2 == (5 if decision.scheme == "normal-nc-all" else 1)


@settings(max_examples=50)
@given(schemes, situations(), st.data())
def test_a_change_touches_its_page_alone(scheme: Scheme, inputs: Situation, data: st.DataObject) -> None:
    before = settled(scheme, inputs)
    where = data.draw(st.sampled_from(inputs.layout.covered))
    page = data.draw(st.integers(0, where.pages - 1))
    after = scheme.adapt(before, Change(where.name, page)).decision
    for other in inputs.layout.covered:
        for number in range(other.pages):
            if (other.name, number) != (where.name, page):
                assert after.at(other.name, number).s2 == before.at(other.name, number).s2
                assert after.at(other.name, number).host == before.at(other.name, number).host


@given(schemes, situations())
def test_what_is_reachable_is_what_combination_says(scheme: Scheme, inputs: Situation) -> None:
    decision = settled(scheme, inputs)
    for piece in decision.pieces:
        results = {piece.effective(s1, inputs.host.fwb) for s1 in MEMORY_TYPES} - {None}
        assert set(piece.reachable(inputs.host.fwb)) == results
        for result, s1 in piece.reachable(inputs.host.fwb).items():
            assert piece.effective(s1, inputs.host.fwb) == result


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=8))
def test_vmas_are_disjoint_and_never_merge(calls: list[tuple[int, int]]) -> None:
    slices = [(start, start + length) for start, length in calls]
    left = surviving_vmas(slices)
    owner = [-1] * 50
    for index, (start, end) in enumerate(slices):
        owner[start:end] = [index] * (end - start)
    runs = sum(1 for i in range(50) if owner[i] != -1 and (i == 0 or owner[i - 1] != owner[i]))
    assert len(left) == runs
    assert sum(end - start for start, end in left) == sum(one != -1 for one in owner)
