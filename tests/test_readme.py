"""What README.md shows is what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks() -> list[str]:
    """The Python code blocks, in order."""
    return re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_teaching_device_is_shown_whole() -> None:
    text = (ROOT / "devices/upcase.py").read_text()
    assert blocks()[0] == text
    assert len(text.splitlines()) <= 40


def test_the_test_that_is_shown_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(blocks()[1])
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_driver_that_is_shown_fails_with_the_card_that_is_shown(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(blocks()[2])
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    card = re.findall(r"^    litmus card: .*\n(?:    .*\n)+", README, flags=re.MULTILINE)[0]
    for line in card.splitlines():
        assert line.strip() in result.stdout.str()
