"""The soak in short: some hundred connects, and what its table says."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvfio_user.bridge.loop import Poller, run
from pyvfio_user.bridge.server import serve
from pyvfio_user.guest.fixtures import ServeDevice, StartQtest

from ..bridge.bench import BenchDevice
from ..qemu.hotplug import ROOT_PORT, MsiOnly
from .bursts import bursts
from .connects import session
from .machine import Soak
from .resources import SLACK, Resources, table
from .turns import turns


def test_four_hundred_connects_leave_nothing(tmp_path: Path) -> None:
    async def connects() -> tuple[Resources, Resources]:
        device = BenchDevice()
        async with serve(device, tmp_path / "s") as server:
            for number in range(100):
                await session(device, server, number)
            before = Resources.now()
            for number in range(400):
                await session(device, server, number)
            return before, Resources.now()

    before, after = run(connects())
    assert after.grown(before) == {}


def test_reads_behind_bursts_are_answered(tmp_path: Path) -> None:
    assert bursts(tmp_path, 1) > 10


@pytest.mark.parametrize("engine", ["epoll", "io_uring"])
def test_what_is_answered_before_it_is_taken_is_done_once(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Poller().engine == "io_uring":  # else it is forbidden here, and epoll stands in for it
        monkeypatch.setenv("PYVFIO_USER_ENGINE", engine)
    count, kept = turns(tmp_path, 1)
    assert count > 100
    assert kept == 0


@pytest.mark.asyncio
async def test_resets_and_plugs_leave_nothing(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    fixed, plugged = BenchDevice(), MsiOnly()
    one, other = await serve_device(fixed), await serve_device(plugged)
    soak = Soak(await qemu_qtest(one, extra=ROOT_PORT), fixed, plugged, other.server)
    for number in range(2):
        await soak.turn(number)
    before = Resources.now()
    for number in range(5):
        await soak.turn(number)
    assert Resources.now().grown(before) == {}


@pytest.mark.parametrize(("more", "grown"), [
    (SLACK, {}),
    (Resources(1, 0, 0, 0, 0), {"fds": 1}),
    (Resources(0, 2, 1, 17, 4097), {"threads": 2, "file_maps": 1, "anonymous_maps": 1, "resident": 1}),
    (Resources(-1, -1, -1, -1, -1), {}),
])  # fmt: skip
def test_what_counts_as_growth(more: Resources, grown: dict[str, int]) -> None:
    before = Resources(10, 10, 10, 10, 10)
    after = Resources(*(was + by for was, by in zip(before, more, strict=True)))
    assert after.grown(before) == grown


def test_each_resource_is_seen(tmp_path: Path) -> None:
    def changed(use: Callable[[], object]) -> list[str]:
        before = Resources.now()
        kept = use()
        names = [*Resources.now().grown(before)]
        del kept
        return names

    assert changed(lambda: None) == []
    (tmp_path / "file").write_bytes(bytes(4096))
    with (tmp_path / "file").open("r+b") as file:
        assert changed(lambda: mmap.mmap(file.fileno(), 4096)) == ["fds", "file_maps"]
    assert changed(lambda: bytes(b"x" * (16 << 20))) == ["resident"]


def test_the_table() -> None:
    assert table([("warm", Resources(7, 2, 100, 50, 30_000))]).splitlines() == [
        " " * 32 + "             fds         threads       file maps  anonymous maps    resident KiB",
        "warm                            "
        + "               7               2             100              50          30,000",
        "slack                           "
        + "               0               0               0              16           4,096",
    ]
