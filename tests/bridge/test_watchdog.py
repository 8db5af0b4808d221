"""When a call is named: by a clock of the test's own. What is named, `test_server_watchdog` says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pyvfio_user.bridge import watchdog as module
from pyvfio_user.bridge.watchdog import Watchdog


class Clock:
    """Goes on when it is told."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "named"), [(0.2, None), (0.6, None), (1.2, None), (1.3, "BAR 0"), (60, "BAR 0")])
def test_a_call_is_named_once_when_it_was_seen_for_as_long_as_its_budget(
    seconds: float, named: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread looks every quarter of a second, for a budget of one: at first after 0.25 s."""
    clock = Clock()
    watchdog = Watchdog()
    looked: list[float] = []

    def wait(pause: float) -> bool:
        looked.append(pause)
        clock.now += pause
        if clock.now > seconds:
            watchdog.call = None
        return False

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(watchdog, "_over", SimpleNamespace(wait=wait))
    monkeypatch.setattr(watchdog, "_budgets", [1.0, 5.0])
    watchdog.call = (3, 4)
    watchdog._look_on(lambda kind, event: "BAR 0")
    assert watchdog.named == named
    assert len(caplog.messages) == (named is not None)
    assert set(looked) == {0.25}


def test_each_call_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    watchdog = Watchdog()
    calls = [(number, 0) for number in range(11)]  # another one every second

    def wait(pause: float) -> bool:
        clock.now += pause
        watchdog.call = None if clock.now > 10 else calls[int(clock.now)]
        return False

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(watchdog, "_over", SimpleNamespace(wait=wait))
    monkeypatch.setattr(watchdog, "_budgets", [1.0])
    watchdog.call = calls[0]
    watchdog._look_on(lambda kind, event: "BAR 0")
    assert watchdog.named is None
