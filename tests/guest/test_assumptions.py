"""What is assumed of a driver, in words of the command line."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.attributes import NGNRE, NORMAL_NC
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.bridge.explore.served import Assumed
from pyvfio_user.guest.assumptions import parse


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("bar2+0x0:4096=NC", Assumed(2, 0, 4096, NORMAL_NC)),
        ("bar0+16:0x10=nGnRE,barrier", Assumed(0, 16, 16, NGNRE, barrier=True)),
    ],
)
def test_an_assumption(text: str, meant: Assumed) -> None:
    assert parse(text) == meant


@pytest.mark.parametrize("text", ["", "bar6+0:8=NC", "bar0:8=NC", "bar0+0:8=nc", "bar0+0:8=NC,dmb", "bar0+-1:8=NC"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    assert str(caught.value) == (
        "an assumption must be barN+OFFSET:SIZE=TYPE[,barrier] with a type of nGnRnE, nGnRE, nGRE, GRE, NC, WT, WB, "
        f"not {text}"
    )
