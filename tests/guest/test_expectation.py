"""What an operation may come to, instruction by instruction, before anything has run."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC, NORMAL_WB, Effect, Implementation, Page
from pyvfio_user.guest.battery import BATTERY, INDEX
from pyvfio_user.guest.expectation import Expectation, Mapping, expect


def expected(name: str, mapping: Mapping, *, el: int = 1) -> Expectation:
    return expect(BATTERY[INDEX[name]], mapping, el, Implementation())


@pytest.mark.parametrize(
    ("beyond", "effects"),
    [
        (None, {Effect.WORKS}),
        (Page(NORMAL_NC, 5), {Effect.WORKS}),
        (Page(NGNRE, 5), {Effect.WORKS, Effect.NOP, Effect.FAULT}),
    ],
)
def test_what_crosses_into_another_type_is_constrained_unpredictable(beyond: Page | None, effects: set[Effect]) -> None:
    """DDI 0487, K1.2.13."""
    (instruction,) = expected("str-x/page", Mapping(NORMAL_NC, 5, False, beyond)).instructions
    assert {outcome.effect for outcome in instruction.permitted} == effects
    assert instruction.may_work


def test_an_unaligned_store_faults_at_the_stage_that_makes_it_device() -> None:
    assert expected("str-x+1", Mapping(NORMAL_NC, 1, False)).text == "EL2 fault 92000061"
    assert expected("str-x+1", Mapping(NGNRE, 5, False)).text == "EL1 fault 96000061"
    assert expected("str-x+1", Mapping(NORMAL_NC, 5, False)).text == "works"
    assert expected("str-x", Mapping(NORMAL_NC, 1, False)).text == "works"


@pytest.mark.parametrize("name", ["str-x", "str-x+1", "str-x/page"])
def test_a_plain_access_faults_by_its_type_alone(name: str) -> None:
    (instruction,) = expected(name, Mapping(NORMAL_WB, 15, False)).instructions
    assert (instruction.by_type, instruction.text) == (True, "works")


def test_what_comes_before_an_instruction() -> None:
    found = expected("iowrite64-copy", Mapping(NORMAL_NC, 5, False))
    assert len(found.instructions) == 8
    numbers = [each.number for each in found.instructions]
    assert [element.offset for element in found.before(numbers[3])] == [0, 8, 16]
    assert found.instruction(numbers[3]) == found.instructions[3]
    assert found.instruction(max(numbers) + 1) is None
