"""The command line: what it prints, how it refuses a mistake, and that nothing is left after Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.loop import SPIN_US
from pyvfio_user.bridge.stream import file_header
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.machines import device_option, load_config
from pyvfio_user.guest.provision.qemu import find_qemu
from pyvfio_user.guest.results import Matrix

from . import cells
from .fake_debian import script

PROGRAM = [sys.executable, "-m", "pyvfio_user.guest"]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="pyvfio-user")


@asynccontextmanager
async def program(*arguments: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command line in a process group of its own, with `folder` for its temporary files; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """The next line that has the text in it."""
    assert process.stdout is not None
    while line := (await asyncio.wait_for(process.stdout.readline(), 30)).decode():
        if text in line:
            return line.rstrip("\n")
    raise AssertionError(f"{text!r} was never printed")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    with tempfile.TemporaryDirectory(prefix="pvu-") as name:
        yield Path(name)


def test_help_lists_the_commands() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    commands = [line.split()[0] for line in result.output.partition("Commands:\n")[2].splitlines()]
    assert commands == ["doctor", "kernel", "kvm", "machines", "matrix", "push", "qemu", "serve", "setup", "trace"]


@pytest.mark.parametrize(
    "command", ["doctor", "kernel", "kvm", "machines", "matrix", "push", "qemu", "serve", "setup", "trace"]
)
def test_every_command_has_help(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: pyvfio-user {command}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("serve nothing --socket s", "device must be one of probe, upcase, bench, or MODULE:CLASS, not nothing"),
        ("serve no_such_module:X --socket s",
         "device must be in a module that can be imported, not no_such_module:X: "
         "ModuleNotFoundError: No module named 'no_such_module'"),
        ("serve json:JSONDecoder --socket s", "device must be a class derived from Device, not json:JSONDecoder"),
        ("serve json:Nothing --socket s", "device must be a class derived from Device, not json:Nothing"),
        ("serve upcase --socket /no/such/folder/s", "cannot serve on /no/such/folder/s: No such file or directory"),
        (f"serve upcase --socket /{'x' * 120}",
         f"cannot serve on /{'x' * 120}: path must be at most 107 bytes, not 121"),
        ("serve upcase --socket s --html /proc/x/t.html", "cannot write /proc/x/t.html: No such file or directory"),
        ("qemu el9", "machine must be one of el2, el2-no-fwb, kvm, kvm-bypass, kvm-gicv2, kvm-noiommu, qtest, "
                     "or a readable file, not el9 (No such file or directory)"),
        ("matrix --orders --profile none",
         "profile must be one of in-order, reorder-only, wc-16x4, wc-32x4, wc-64x1, wc-64x4, wc-64x10, wc-128x4, "
         "wc-64x4-partial, wc-64x4-no-hint, wc-64x4-reorder, rc-splits-4, not none"),
        ("push --count 0", "count must be 1 to 10000, what the device's log can show, not 0"),
        ("push --window mapped --count 2049",
         "count must be 1 to 2048, what the window's final contents can show, not 2049"),
        ("qemu qtest --device nothing", "device must be one of probe, upcase, bench, or MODULE:CLASS, not nothing"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments: str, message: str) -> None:
    result = invoke(*arguments.split())
    assert result.output == f"Error: {message}\n"
    assert result.exit_code == 1


def test_serving_on_a_file_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("serve", "upcase", "--socket", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: cannot serve on {tmp_path / 'file'}: ")
    assert (tmp_path / "file").exists()


def test_the_machines_are_listed_with_their_files() -> None:
    result = invoke("machines")
    assert [line.split("\t") for line in result.output.splitlines()] == [
        [name, str(load_config(name).path)]
        for name in ("el2", "el2-no-fwb", "kvm", "kvm-bypass", "kvm-gicv2", "kvm-noiommu", "qtest")
    ]


def test_print_shows_the_command_and_starts_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "--device",
        "probe",
        "-d",
        "my.device:Mine",
        "--cpu",
        "neoverse-n2",
        "--print",
        "--",
        "-kernel",
        "an image",
    ]
    result = invoke("qemu", "el2", *options)
    assert result.exit_code == 0
    sockets = [tmp_path / "probe.sock", tmp_path / "my.device.Mine.sock"]
    expected = load_config("el2").command(
        find_qemu().require().path, sockets, cpu="neoverse-n2", extra=["-kernel", "an image"]
    )
    assert shlex.split(result.stdout) == expected
    assert result.stderr == (
        f"# first: pyvfio-user serve probe --socket {sockets[0]}\n"
        f"# first: pyvfio-user serve my.device:Mine --socket {sockets[1]}\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_a_qemu_the_remedy_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("QEMU_SYSTEM_AARCH64", raising=False)
    result = invoke("qemu", "el2")
    assert result.exit_code == 1
    first, remedy = result.output.splitlines()
    assert first == (
        f"Error: no QEMU with vfio-user-pci was found in $QEMU_SYSTEM_AARCH64, on PATH or in {tmp_path}/pyvfio-user"
    )
    assert remedy.startswith("  what to do: run `pyvfio-user setup`, or install QEMU 10.1 or newer")
    assert invoke("doctor").exit_code == 1


def test_doctor_is_content_with_this_machine() -> None:
    result = invoke("doctor")
    assert result.exit_code == 0
    assert str(find_qemu().require().path) in result.output


def test_setup_says_what_it_found_unless_quiet() -> None:
    qemu = find_qemu().require()
    assert invoke("setup").output.splitlines()[0] == f"QEMU {qemu.version}: {qemu.path}"
    assert invoke("setup", "--quiet").output == ""


@pytest.mark.asyncio
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_served_device_can_be_attached_and_goes_with_its_socket(
    number: signal.Signals, status: int, folder: Path
) -> None:
    path = folder / "device.sock"
    async with program("serve", "upcase", "--socket", str(path), folder=folder) as process:
        assert await line_with(process, "serving") == f"serving upcase on {path}; to attach it, give QEMU:"
        option = await line_with(process, "-device")
        assert shlex.split(option) == ["-device", device_option(path)]
        async with Client.connect(path) as client:
            assert await client.config.read(0, 4) == 0x11CA1234
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 10) == status
        assert process.stdout is not None and await process.stdout.read() == b""
    assert list(folder.iterdir()) == []


@pytest.mark.asyncio
async def test_a_served_run_is_drawn_when_it_ends(folder: Path, tmp_path: Path) -> None:
    path, page, perfetto = folder / "up.sock", tmp_path / "run.html", tmp_path / "run.pftrace"
    options = ["--assume", "bar0+0:16=nGRE", "--seed", "5", "--html", str(page), "--perfetto", str(perfetto)]
    async with program("serve", "upcase", "--socket", str(path), *options, folder=folder) as process:
        await line_with(process, "serving upcase")
        async with Client.connect(path) as client:
            await client.bars[0].write(0x08, 5, 2)
            assert await client.bars[0].read(0x0C, 4) == 0
        process.send_signal(signal.SIGINT)
        assert await line_with(process, "timeline: ") == f"timeline: 2 events in {page} and {perfetto}"
        assert await process.wait() == 130
    text = page.read_text()
    assert "<h1>upcase, served</h1>" in text and "seed 5, assumed: bar0+0:16=nGRE" in text
    assert "CplD bar0+0xc 1DW 4 left" in text
    assert b"MRd bar0+0xc 1DW f/0" in perfetto.read_bytes()


@pytest.mark.asyncio
@pytest.mark.parametrize(("options", "mode"), [((), 0o600), (("--any-user",), 0o666)])
async def test_only_ones_own_clients_are_served_unless_told_otherwise(
    options: tuple[str, ...], mode: int, folder: Path
) -> None:
    path = folder / "device.sock"
    async with program("serve", "upcase", "--socket", str(path), *options, folder=folder) as process:
        await line_with(process, "serving")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_spin_budget_is_a_setting_of_at_most_a_second() -> None:
    usage = CliRunner().invoke(main, ["serve", "--help"]).output
    assert f"Default: {SPIN_US}." in " ".join(usage.split())
    refused = CliRunner().invoke(main, ["serve", "upcase", "--socket", "s", "--spin-us", "1000001"])
    assert refused.exit_code == 2
    assert "1000001 is not in the range 0<=x<=1000000" in refused.output


@pytest.mark.asyncio
@pytest.mark.parametrize("spin_us", ["0", "1000"])
async def test_a_device_is_served_whatever_the_spin_budget(spin_us: str, folder: Path) -> None:
    path = folder / "device.sock"
    async with program("serve", "upcase", "--socket", str(path), "--spin-us", spin_us, folder=folder) as process:
        await line_with(process, "serving")
        async with Client.connect(path) as client:
            assert await client.config.read(0, 4) == 0x11CA1234


@pytest.mark.asyncio
async def test_a_device_of_ones_own_is_found_in_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.py").write_text("from pyvfio_user.devices.upcase import Upcase\nclass Mine(Upcase): pass\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    async with program("serve", "mine:Mine", "--socket", "s", folder=folder) as process:
        await line_with(process, "serving mine:Mine on s;")
        async with Client.connect(folder / "s") as client:
            assert await client.config.read(0, 4) == 0x11CA1234


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("1/0", r"ZeroDivisionError: division by zero \(\S+/broken.py, line 1\)"),
        ("def x(:", r"SyntaxError: invalid syntax \(broken.py, line 1\)"),
        ("raise SystemExit(3)", r"SystemExit: 3 \(\S+/broken.py, line 1\)"),
        (
            "from pyvfio_user.devices import *\nclass R(Registers):\n    a = Register(3)",
            r"DefinitionError: offset of R.a must be a multiple of its 4 bytes, not 0x3 \(\S+/broken.py, line 2\)",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_in_a_line(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = CliRunner().invoke(main, ["serve", "broken:X", "--socket", "s"])
    assert result.exit_code == 1
    wanted = rf"Error: device must be in a module that can be imported, not broken:X: {why}\n"
    assert re.fullmatch(wanted, result.output)


@pytest.mark.parametrize(
    ("init", "why"),
    [
        ("def __init__(self): 1/0", r"ZeroDivisionError: division by zero \(\S+/unmade.py, line 3\)"),
        ("def __init__(self, x): pass", r"TypeError: X.__init__\(\) missing 1 required positional argument: 'x'"),
    ],
)
def test_a_device_that_cannot_be_made_is_told_in_a_line(
    init: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unmade.py").write_text(f"from pyvfio_user.devices import Device\nclass X(Device):\n    {init}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "unmade", raising=False)
    result = invoke("serve", "unmade:X", "--socket", "s")
    assert result.exit_code == 1
    assert re.fullmatch(rf"Error: device must be made without arguments, not unmade:X: {why}\n", result.output)


def test_ctrl_c_while_the_command_is_imported_is_silent(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run([*PROGRAM, "machines"], capture_output=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_bytes(file_header())
    result = invoke("trace", str(trace), "--perfetto", "/dev/full")
    assert (result.exit_code, result.output) == (1, "Error: cannot write /dev/full: No space left on device\n")


def test_what_the_system_refuses_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    result = invoke("push", "--count", "1")
    assert result.exit_code == 1
    assert re.fullmatch(rf"Error: {tmp_path}/gone/pyvfio-user-\w+: No such file or directory\n", result.output)


@pytest.mark.asyncio
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "only the command"])
async def test_ctrl_c_ends_qemu_and_the_device(group: bool, folder: Path, tmp_path: Path) -> None:
    monitor = f"unix:{tmp_path / 'qmp'},server=on,wait=off"
    arguments = ["qemu", "el2", "--device", "upcase", "--", "-monitor", "none", "-S", "-qmp", monitor]
    async with program(*arguments, "-name", "x,process=pvu-ctrl-c", folder=folder) as process:
        command = shlex.split((await line_with(process, "$ ")).removeprefix("$ "))
        assert command[-2:] == ["-name", "x,process=pvu-ctrl-c"]
        (path,) = folder.glob("pyvfio-user-*/0.sock")
        assert command[-8] == device_option(path)
        await attached(tmp_path / "qmp")
        if group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 130
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert list(folder.iterdir()) == []


async def attached(monitor: Path) -> None:
    """Wait until QEMU has its device: its monitor greets only then. A client of ours would keep QEMU from it."""
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(monitor)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0)
            continue
        assert b"QMP" in await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        await writer.wait_closed()
        return


@pytest.mark.asyncio
async def test_the_exit_status_of_qemu_is_passed_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = (
        'case "$1" in --version) echo QEMU version 11.0;; -device) echo \'name "vfio-user-pci"\';; *) exit 0;; esac'
    )
    qemu = script(tmp_path / "qemu", f'#!/bin/sh\ncase "$1" in -readconfig) exit 7;; esac\n{answers}\n')
    monkeypatch.setenv("QEMU_SYSTEM_AARCH64", str(qemu))
    async with program("qemu", "qtest", folder=folder) as process:
        assert await asyncio.wait_for(process.wait(), 30) == 7


@pytest.mark.parametrize("problems", [(), ("something is otherwise",)])
def test_a_disagreement_in_the_matrix_is_exit_status_1(
    problems: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def view(*arguments: object, **options: object) -> Matrix:
        return cells.matrix(problems=problems)

    monkeypatch.setattr("pyvfio_user.guest.matrix_view.view_jobs", view)
    assert invoke("matrix").exit_code == len(problems)


def test_git_bisect_skips_what_could_not_be_looked_at_for_a_mistake_in_the_command() -> None:
    result = invoke("kvm", "--kernel", "6.1", "--expect", "nobody-knows")
    assert result.exit_code == 125
    assert re.match(r"Error: scheme must be one of status-quo, .*, trap, not nobody-knows\n", result.output)


@pytest.mark.parametrize("arguments", [("matrix", "--json"), ("matrix", "--html"), ("push", "--json")], ids=" ".join)
def test_a_report_that_cannot_be_written_is_one_line_before_the_run(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "folder" / "report"
    result = invoke(*arguments, str(place))
    assert (result.exit_code, result.output) == (1, f"Error: cannot write {place}: Not a directory\n")
