"""A guest that runs, its posted writes reordered by the labels of the tracer in its QEMU: the seed decides."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyvfio_user.bridge.attributes import NORMAL_NC
from pyvfio_user.bridge.explore.traced import Tally
from pyvfio_user.bridge.server import serve
from pyvfio_user.bridge.stream import read_trace
from pyvfio_user.devices import RO, Bar, Device, Doorbell, PciId, Register, Registers, WriteCombineWindow
from pyvfio_user.guest import payload
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.machines import PATIENT, load_config
from pyvfio_user.guest.provision.compiler import find_compiler
from pyvfio_user.guest.provision.kernel import provide_kernel
from pyvfio_user.guest.provision.progress import Progress
from pyvfio_user.guest.provision.qemu import QemuBinary
from pyvfio_user.guest.qemu import Qemu
from pyvfio_user.guest.reordering import reordering

from .tracer.linux import initramfs

ENTRIES = 60


class Control(Registers):
    """A doorbell, and how many entries were sent."""

    bell = Doorbell(0x00)
    sent = Register(0x08, access=RO)


class Sender(Device):
    """Takes the 32 bytes in the window when the doorbell rings: all must be of the entry with the doorbell's number."""

    identity = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)
    bar0 = Bar(Control, size=4096)
    bar2 = Bar(WriteCombineWindow(4096), prefetchable=True)

    def __init__(self) -> None:
        super().__init__()
        self.torn: list[int] = []
        self.rung = 0

    @Control.bell.rung
    def take(self, index: int, value: int) -> None:
        if bytes(self.bar2.memory[:32]) != value.to_bytes(8, "little") * 4:
            self.torn.append(value)
        self.bar0.sent += 1
        self.rung += 1


class Slow(Sender):
    """Takes longer for the first entry than QEMU waits, if not told otherwise: meanwhile all others are posted."""

    @Control.bell.rung
    def take(self, index: int, value: int) -> None:
        if value == 1:
            time.sleep(5.5)
        super().take(index, value)


@dataclass
class Run:
    """What a run came to: the entries that were torn, what the guest said, and the tally."""

    torn: list[int]
    said: str
    tally: Tally


async def drive(qemu: Path, options: Sequence[str], folder: Path, seed: int, *, machine: str = "el2") -> Run:
    """Boot a guest that drives a Sender. `wait` is long: with a pause in it, a run would not be the same again."""
    sender = Sender()
    socket = folder / "sender.sock"
    async with reordering([sender], seed, wait=30) as ways, serve(ways.fronts[0], socket):
        extra = ["-semihosting-config", "enable=on", *options, *ways.options]
        config = load_config(machine)
        command = config.command(qemu, [socket], properties=PATIENT, slots=ways.slots, extra=extra)
        async with Qemu(command) as vm:
            await vm.wait()
            said = vm.console_tail(1)[0]
    assert sender.rung == ENTRIES, said
    return Run(sender.torn, said, ways.fronts[0].tally)


def bare_metal(folder: Path, barrier: str) -> list[str]:
    """The options that boot the driver without an operating system, with this barrier around each doorbell."""
    main = (Path(__file__).parent / "driver.c").read_text()
    options = [f"-DCOUNT={ENTRIES}", f'-DBARRIER="{barrier}"']
    return ["-kernel", str(payload.compile_in(folder, find_compiler(), {**payload.sources(), "main.c": main}, options))]


SAME_TIME = ["-icount", "shift=3,sleep=off", "-machine", "dtb-randomness=off"]
"""With these Linux' interrupts come at the same instructions in each run."""
ALL = 5 * ENTRIES + 1
"""Four stores and a doorbell each; and one read, before which the last doorbell arrives."""


@pytest.mark.asyncio
@pytest.mark.parametrize("useless", ["nop", "dmb ishst"])
async def test_a_guest_without_the_barrier_breaks(useless: str, qemu_binary: QemuBinary, tmp_path: Path) -> None:
    """Every access has its label; the same seed gives the same run, another seed another one."""
    options = bare_metal(tmp_path, useless)
    first, again, other = [await drive(qemu_binary.path, options, tmp_path, seed) for seed in (1, 1, 2)]
    assert first.torn and first.said == f"sent: {ENTRIES}"
    assert (first.tally.accesses, first.tally.in_order, first.tally.pauses) == (ALL, 0, 0)
    assert first == again
    assert first.tally.arrived != other.tally.arrived


@pytest.mark.asyncio
@pytest.mark.parametrize("barrier", ["dmb oshst", "dsb st"])
async def test_a_guest_with_the_barrier_works(barrier: str, qemu_binary: QemuBinary, tmp_path: Path) -> None:
    options = bare_metal(tmp_path, barrier)
    runs = [await drive(qemu_binary.path, options, tmp_path, seed) for seed in (1, 2)]
    assert [(run.torn, run.said) for run in runs] == [([], f"sent: {ENTRIES}")] * 2
    assert runs[0].tally.arrived != runs[1].tally.arrived  # the window's stores were still gathered, or changed places


@pytest.mark.asyncio
@pytest.mark.parametrize(("barrier", "works"), [("nop", False), ("dmb oshst", True)])
async def test_a_driver_on_linux(barrier: str, works: bool, qemu_binary: QemuBinary, tmp_path: Path) -> None:
    """Its window is Normal-NC, by sysfs' resource2_wc, its doorbell Device-nGnRE; nobody says so but the tracer."""
    kernel = provide_kernel(Progress())
    defines = [f"-DCOUNT={ENTRIES}", f'-DBARRIER="{barrier}"']
    image, _ = initramfs(tmp_path, Path(__file__).parent / "linux_driver.c", defines)
    boot = ["-kernel", str(kernel.image), "-initrd", str(image), "-append", "quiet console=ttyAMA0"]
    options = ["-cpu", "neoverse-n1", *SAME_TIME, *boot]
    runs = [await drive(qemu_binary.path, options, tmp_path, 1, machine="el2-no-fwb") for _ in range(1 if works else 2)]
    assert (runs[0].torn == []) is works
    assert (runs[0].tally.accesses, runs[0].tally.in_order, runs[0].tally.mistaken) == (ALL, 0, 0)
    assert runs[0].tally == runs[-1].tally


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    boot = [*bare_metal(tmp_path, "dmb oshst"), "-semihosting-config", "enable=on"]
    options = ["--device", f"{__name__}:Sender", "--reorder", "7", "--speculate", "0.5", "--trace", "trace"]
    options += ["--html", "run.html", "--most", "200"]
    done = CliRunner().invoke(main, ["qemu", "el2", *options, "--", *boot], prog_name="pyvfio-user")
    assert done.exit_code == 0, done.output
    said = re.search(
        r"^reorder: .*:Sender, seed 7: 301 accesses by their labels, 0 in order .*; (\d+) speculative reads",
        done.output,
        re.M,
    )
    assert said and int(said[1]) > 50
    drawn = re.search(r"^timeline: 200 events in run\.html, (\d+) left out$", done.output, re.M)
    assert drawn and int(drawn[1]) == 301 + 2 * ENTRIES + int(said[1]) - 200  # a barrier before and after each doorbell
    page = Path("run.html").read_text()
    assert "Memory types and barriers are the tracer&#39;s;" in page
    assert all(text in page for text in ("dmb oshst", "Control.bell 0x", '"speculative"', "MWr bar2+0x"))
    stores = [event for event in read_trace(Path("trace")) if event.bar == 2]
    assert len(stores) == 4 * ENTRIES
    assert {(event.peripheral, event.type) for event in stores} == {(16 << 3, NORMAL_NC)}


def test_a_guest_far_ahead_of_its_device_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The answer to its read is behind all that it posted: with a slow device, or on a busy machine, after seconds."""
    boot = [*bare_metal(tmp_path, "dmb oshst"), "-semihosting-config", "enable=on"]
    options = ["--device", f"{__name__}:Slow", "--reorder", "1", "--", *boot]
    done = CliRunner().invoke(main, ["qemu", "el2", *options], prog_name="pyvfio-user")
    assert (done.exit_code, capfd.readouterr().out.splitlines()[-1]) == (0, f"sent: {ENTRIES}")
    assert f"Slow, seed 1: {ALL} accesses by their labels, 0 in order" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "upcase", "--speculate", "0.5"], "--speculate must come with --reorder SEED, not alone"),
        (["--reorder", "1"], "--reorder must have 1 to 16 devices, not 0"),
        (["--html", "x", "--device", "upcase"], "--html and --perfetto must come with --reorder SEED and one --device"),
    ],
)
def test_what_cannot_be(options: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["qemu", "el2", *options], prog_name="pyvfio-user")
    assert done.exit_code == 2
    assert message in done.output
