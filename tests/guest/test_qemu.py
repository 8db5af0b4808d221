"""Running QEMU: started, watched, bounded in time, and gone afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pyvfio_user.devices.mailbox import MailboxError
from pyvfio_user.guest import qemu
from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.machines import load_config
from pyvfio_user.guest.provision.qemu import find_qemu
from pyvfio_user.guest.qemu import Qemu, run_in_foreground

from .fake_debian import script


@pytest.fixture(scope="module")
def command() -> list[str]:
    """QEMU with nothing to execute."""
    return [*load_config("qtest").command(find_qemu().require().path), "-serial", "none"]


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short one of its own: a socket's path may not be longer than 107 bytes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.asyncio
async def test_the_monitor_answers_and_nothing_is_left(command: list[str], own_temporary_folder: Path) -> None:
    async with Qemu(command) as vm:
        assert (await vm.execute("query-status"))["status"] == "running"
        assert vm.running and alive(vm.pid)
    assert not vm.running and not alive(vm.pid)
    assert os.listdir(own_temporary_folder) == []


@pytest.mark.asyncio
async def test_what_qemu_started_ends_with_it(tmp_path: Path) -> None:
    """A helper of QEMU's, which has its standard output too."""
    number = tmp_path / "number"
    fake = script(
        tmp_path / "qemu", f"#!/bin/sh\nsleep 1000 &\necho $! > {number}.new; mv {number}.new {number}\nwait\n"
    )
    starting = asyncio.create_task(Qemu([str(fake)]).__aenter__())
    while not number.exists():
        await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(starting, 20)
    assert not alive(int(number.read_text()))


@pytest.mark.asyncio
async def test_a_refused_monitor_command_says_so(command: list[str]) -> None:
    async with Qemu(command) as vm:
        with pytest.raises(QemuError, match=r"^QMP device_del: Parameter 'id' is missing\nQEMU's command:\n  /"):
            await vm.execute("device_del")
        assert (await vm.execute("query-status"))["running"]


@pytest.mark.asyncio
async def test_events_that_nobody_takes_do_not_pile_up(command: list[str]) -> None:
    async with Qemu(command) as vm:
        for _ in range(3):
            await vm.execute("stop")
            await vm.execute("cont")
        await vm.execute("query-status")  # events come before the answers
        assert vm.qmp.events.empty()
        assert vm.qmp.events.history == ()


@pytest.mark.asyncio
async def test_qemu_that_quits(command: list[str]) -> None:
    async with Qemu(command) as vm:
        await vm.execute("quit")
        assert await vm.wait() == 0
        with pytest.raises(QemuError, match=r"^QEMU ended with exit status 0\n"):
            await vm.execute("query-status")


@pytest.mark.asyncio
async def test_a_guest_that_has_ended_before_the_monitor_was_connected(tmp_path: Path) -> None:
    """A short one, on a busy machine: that it ended well is told as at any other time."""
    async with Qemu([str(script(tmp_path / "qemu", "#!/bin/sh\necho done\n"))]) as vm:
        assert await vm.wait() == 0
        assert vm.console_tail() == ["done"]
        with pytest.raises(QemuError, match=r"^QEMU ended with exit status 0\n"):
            await vm.execute("query-status")


@pytest.mark.asyncio
async def test_a_message_that_is_left_unanswered_is_explained_by_the_end_of_qemu(command: list[str]) -> None:
    """The device notices that its client is gone before QEMU has ended."""
    async with Qemu(command) as vm:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(vm.bounded(answer))
        answer.set_exception(MailboxError("nobody answers"))
        await vm.execute("quit")
        with pytest.raises(QemuError, match=r"^QEMU ended with exit status 0\nQEMU's command:\n"):
            await waiting


@pytest.mark.asyncio
async def test_a_message_that_is_left_unanswered_while_qemu_runs(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest has reset the device, say."""
    monkeypatch.setattr(qemu, "_GRACE_SECONDS", 0.01)
    async with Qemu(command) as vm:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.set_exception(MailboxError("nobody answers"))
        with pytest.raises(QemuError, match=r"^nobody answers\nQEMU's command:\n"):
            await vm.bounded(answer)
        monkeypatch.undo()


@pytest.mark.asyncio
async def test_qemu_that_does_not_start_shows_its_command_and_its_last_lines(
    command: list[str], own_temporary_folder: Path
) -> None:
    with pytest.raises(QemuError) as caught:
        async with Qemu([*command, "-device", "no such"]):
            pytest.fail("it started")
    first, _, shown, _, *console = str(caught.value).splitlines()
    assert first == "QEMU ended with exit status 1"
    assert " -device 'no such' -qmp unix:" in shown
    assert console == ["  | qemu-system-aarch64: -device no such: 'no such' is not a valid device model name"]
    assert os.listdir(own_temporary_folder) == []


@pytest.mark.asyncio
async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(QemuError, match=r"^QEMU could not be started: .*No such file.*'/no/qemu'\nQEMU's command:"):
        async with Qemu(["/no/qemu"]):
            pytest.fail("it started")
    with pytest.raises(QemuError, match=r"^QEMU could not be started: .*No such file"):
        await run_in_foreground(["/no/qemu"])


@pytest.mark.asyncio
async def test_qemu_that_runs_too_long_is_killed(command: list[str]) -> None:
    async with Qemu(command, timeout=0.5) as vm:
        with pytest.raises(QemuError, match=r"^QEMU ran for more than 0.5 s and was killed\n"):
            await vm.wait_for("never printed")
        with pytest.raises(QemuError, match=r"^QEMU ran for more than 0.5 s and was killed\n"):
            await vm.wait()


@pytest.mark.asyncio
async def test_qemu_that_is_killed(command: list[str]) -> None:
    async with Qemu(command) as vm:
        os.kill(vm.pid, signal.SIGKILL)
        with pytest.raises(QemuError, match=r"^QEMU was ended by SIGKILL\n"):
            await vm.wait_for("never printed")


@pytest.mark.asyncio
async def test_an_error_that_passes_through_takes_the_command_along(command: list[str]) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with Qemu(command):
            raise ZeroDivisionError
    (note,) = caught.value.__notes__
    assert note.splitlines()[0] == "QEMU's command:"
    assert note.splitlines()[2:] == ["the console's last lines: (nothing)"]


def test_a_timeout_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"^timeout must be more than 0 seconds, not 0$"):
        Qemu(["qemu"], timeout=0)


@pytest.mark.asyncio
async def test_the_console_keeps_its_last_lines_and_the_unended_one(command: list[str], tmp_path: Path) -> None:
    chatty = script(tmp_path / "qemu", "#!/bin/sh\nseq -f 'line %g' 0 1999\nprintf 'prompt> '\nexec \"$@\"\n")
    async with Qemu([str(chatty), *command], keep_lines=10) as vm:
        assert await vm.wait_for("prompt") == "prompt> "
        assert vm.console_tail(2) == ["line 1999", "prompt> "]
        assert list(vm.console) == [f"line {n}" for n in range(1990, 2000)]


@pytest.mark.asyncio
async def test_qemu_goes_when_this_process_is_killed(command: list[str], tmp_path: Path) -> None:
    text = f"""
import asyncio
from pyvfio_user.guest.qemu import Qemu
async def main():
    async with Qemu({command!r}) as vm:
        print(vm.pid, flush=True)
        await vm.wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    descriptor = os.pidfd_open(pid)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, gone.set)
    parent.kill()
    await parent.wait()
    await asyncio.wait_for(gone.wait(), 10)
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)
