"""Windows and memory: what may be declared. What they hold is in test_device.py."""

from __future__ import annotations

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.devices import MiB, WriteCombineWindow
from pyvfio_user.devices.piece import Area


@pytest.mark.parametrize("size", [0, -1])
def test_size(size: int) -> None:
    with pytest.raises(DefinitionError, match=f"^size must be at least 1 byte, not {size}$"):
        WriteCombineWindow(size)


def test_mapped_windows_record_nothing() -> None:
    with pytest.raises(
        DefinitionError, match=r"^a recorded window must be trapped, not mapped: its accesses are no messages$"
    ):
        WriteCombineWindow(1 * MiB, mapped=True, record=True)


def test_a_window_is_one_area() -> None:
    assert list(WriteCombineWindow(1 * MiB, mapped=True).areas()) == [Area("WriteCombineWindow", 0, 1 * MiB, True)]
