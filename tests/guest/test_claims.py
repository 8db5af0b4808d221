"""What the schemes are said to decide agrees with what their rules decide, wherever KVM refuses nothing."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.schemes import NOTHING, SCHEMES, Change, Host, Situation, settled
from pyvfio_user.guest.claims import CLAIMS
from pyvfio_user.guest.layout import DRIVER, LAYOUT, REQUEST


def test_every_scheme_has_a_claim_and_no_other() -> None:
    assert list(CLAIMS) == list(SCHEMES)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("case", ["asking", "nothing", "changed"])
@pytest.mark.parametrize("fwb", [False, True])
def test_the_rules_decide_what_is_claimed(name: str, case: str, fwb: bool) -> None:
    scheme = SCHEMES[name]
    request = NOTHING if case == "nothing" else REQUEST
    decision = settled(scheme, Situation(LAYOUT, request, DRIVER, Host(fwb=fwb)))
    if case == "changed":
        decision = scheme.adapt(decision, Change("dynamic", 1)).decision
    for piece in decision.pieces:
        claimed = CLAIMS[name].stage2(piece.range, piece.bar, piece.first_page, case)
        if piece.refusal is None:
            assert piece.stage2 == claimed, piece.range
        else:
            assert (claimed.is_write_back, fwb) == (True, False), piece.range
