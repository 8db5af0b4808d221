"""What type checkers make of the descriptors: mypy checks each `assert_type`, which does nothing when it runs."""

from __future__ import annotations

from typing import assert_type

from pyvfio_user.devices import Bar, Device, Field, Memory, PciId, Register, WriteCombineWindow
from pyvfio_user.devices.interrupts import Vector
from pyvfio_user.devices.probe import Control as ProbeControl
from pyvfio_user.devices.probe import Probe
from pyvfio_user.devices.upcase import Control, Upcase


class Bare(Device):
    """A BAR with nothing in it."""

    identity = PciId(vendor=1, device=1, class_code=0)
    bar0 = Bar(size=4096)


def test_a_register_is_itself_in_the_class_and_an_int_in_a_block() -> None:
    assert_type(Control.address, Register)
    assert_type(Upcase().bar0.address, int)
    assert_type(ProbeControl.rung, Field)
    assert_type(Probe().bar0.rung, int)
    assert isinstance(Control.address, Register) and isinstance(ProbeControl.rung, Field)


def test_a_bar_is_its_contents() -> None:
    assert_type(Upcase().bar0, Control)
    assert_type(Probe().bar2, WriteCombineWindow)
    assert_type(Probe().strict, Memory)
    assert_type(Bare().bar0, None)
    assert isinstance(Probe().strict, Memory) and isinstance(Upcase.bar0, Bar)


def test_vectors() -> None:
    assert_type(Probe().msix[0], Vector)
    assert Probe().msix[7].index == 7
