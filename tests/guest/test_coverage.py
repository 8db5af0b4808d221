"""Every operation runs once for each range and pair of types; what is new beyond a range is run again, and no more."""

from __future__ import annotations

from pyvfio_user.guest.battery import FULL, PLATFORM, SHORT
from pyvfio_user.guest.coverage import CROSSING, PLATFORM_SHORT, Coverage
from pyvfio_user.guest.doorbells import PROGRAMS


def test_the_first_battery_is_full_and_the_next_short() -> None:
    coverage = Coverage(full=True)
    assert coverage.choose("strict", ("44", 1), None) == (FULL + PROGRAMS, "full")
    coverage.ran("strict", ("44", 1), None, "full", "key")
    assert coverage.choose("strict", ("44", 1), None) == (SHORT, "short")
    assert coverage.full("strict", ("44", 1)) == "key"
    assert coverage.choose("strict", ("44", 5), None) == (FULL + PROGRAMS, "full")
    assert coverage.choose("fifo", ("44", 1), None) == (FULL, "full")
    assert coverage.full("fifo", ("44", 1)) is None


def test_programs_are_run_once_under_a_pair_of_types_and_where_the_device_sees_them() -> None:
    coverage = Coverage(full=True)
    assert coverage.choose("wc-mapped", ("44", 5), None) == (FULL, "full")
    for other in ("wc-mapped", "platform"):
        coverage.ran(other, ("44", 5), None, "full", "key")
    assert coverage.choose("wc-trapped", ("44", 5), None) == (FULL + PROGRAMS, "full")
    assert coverage.choose("strict", ("44", 5), None) == (FULL + PROGRAMS, "full")
    coverage.ran("wc-trapped", ("44", 5), None, "full", "other")
    assert coverage.choose("strict", ("44", 5), None) == (FULL, "full")


def test_another_type_beyond_the_range_repeats_what_crosses() -> None:
    coverage = Coverage(full=True)
    coverage.ran("strict", ("44", 1), ("dynamic", 1), "full", "key")
    assert coverage.choose("strict", ("44", 1), ("dynamic", 1)) == (SHORT, "short")
    assert coverage.choose("strict", ("44", 1), ("dynamic", 5)) == (SHORT + CROSSING, "crossing")
    coverage.ran("strict", ("44", 1), ("dynamic", 5), "crossing", "other")
    assert coverage.choose("strict", ("44", 1), ("dynamic", 5)) == (SHORT, "short")
    assert coverage.full("strict", ("44", 1)) == "key"


def test_a_platform_device_is_only_read() -> None:
    coverage = Coverage(full=True)
    assert coverage.choose("platform", ("44", 1), None) == (PLATFORM, "full")
    coverage.ran("platform", ("44", 1), None, "full", "key")
    assert coverage.choose("platform", ("44", 1), None) == (PLATFORM_SHORT, "short")
    assert not any(op.stores for op in (*PLATFORM, *PLATFORM_SHORT))


def test_without_full_all_are_short() -> None:
    coverage = Coverage(full=False)
    assert coverage.choose("strict", ("44", 1), None) == (SHORT, "short")
    assert coverage.choose("platform", ("44", 1), None) == (PLATFORM_SHORT, "short")


def test_crossing_operations_are_those_of_the_battery() -> None:
    assert {op.name for op in CROSSING} == {op.name for op in FULL if op.name.endswith("/page")}
