"""The benchmark of the tracer runs; what it measures is not tested."""

from __future__ import annotations

import pytest

from . import tracing


def test_it_measures_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert tracing.main(["--repetitions", "1", "--count", "8192"]) == 0
    said = capsys.readouterr().out
    assert all(title in said for title, _ in tracing.ROWS.values())
    assert "0 were lost" in said
