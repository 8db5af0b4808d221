"""An unmodified Linux, traced: its PCI core and its NVMe driver by function name, and a process that maps a BAR."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pyvfio_user.bridge.attributes import NGNRE, NGNRNE
from pyvfio_user.bridge.stream import BAR_CONFIG, NO_STAGE_2, Event, lost_events, read_trace
from pyvfio_user.guest.cli import main
from pyvfio_user.guest.provision.kernel import Kernel, provide_kernel
from pyvfio_user.guest.provision.progress import Progress
from pyvfio_user.guest.symbols import Symbols, load_symbols

from . import ena
from .linux import initramfs
from .runs import access, label

HERE = Path(__file__).parent
NVME, DEVICE = 1 << 3, 2 << 3
"""The functions' addresses: QEMU gives its own devices' before those of JSON options."""
SUBMISSION_DOORBELL = 0x1000


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return provide_kernel(Progress())


def by(events: list[Event], symbols: Symbols, name: str) -> list[Event]:
    return [event for event in events if symbols.function(event.pc) == name]


def traced(kernel: Kernel, image: Path, *options: str, device: str = "upcase") -> list[Event]:
    """What a boot of this initramfs does, with NVMe in slot 1 and the device in slot 2."""
    boot = ["-kernel", str(kernel.image), "-initrd", str(image), "-append", "quiet console=ttyAMA0"]
    boot += ["-semihosting-config", "enable=on,userspace=on,target=native"]
    boot += ["-blockdev", "driver=null-co,size=1048576,node-name=nothing", "-device", "nvme,drive=nothing,serial=1"]
    machine = ["qemu", "el2-no-fwb", "--cpu", "neoverse-n1", "--device", device, "--trace", "trace"]
    run = [*machine, "--", *boot, *options]
    done = CliRunner().invoke(main, run, prog_name="pyvfio-user")
    assert done.exit_code == 0, done.output
    assert lost_events(Path("trace")) == 0
    return list(read_trace(Path("trace")))


@pytest.mark.parametrize(
    ("machine", "el"), [((), 2), (("-machine", "virtualization=off"), 1)], ids=["at EL2", "at EL1"]
)
def test_linux_is_traced(
    machine: tuple[str, ...], el: int, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's kernel: BARs are Device-nGnRE (ioremap; pgprot_device for sysfs), configuration space nGnRnE."""
    monkeypatch.chdir(tmp_path)  # where the guest leaves its symbols
    image, init = initramfs(tmp_path, HERE / "init.c")
    events = traced(kernel, image, *machine)
    symbols = load_symbols([Path("kallsyms"), init])
    accesses = [event for event in events if event.bar is not None]
    kernels, users = ([event for event in accesses if (event.el == 0) == user] for user in (False, True))
    assert {(event.el, event.stage2) for event in kernels} == {(el, NO_STAGE_2)}
    assert {(event.bar == BAR_CONFIG, event.type) for event in accesses} == {(True, NGNRNE), (False, NGNRE)}
    assert {event.type for event in accesses} == {event.type for event in accesses if event.type == event.stage1}

    sizing = [event for event in by(kernels, symbols, "pci_generic_config_write") if event.peripheral == DEVICE]
    assert "store fe+0x10 4: 0xffffffff" in [access(event) for event in sizing]
    assert by(kernels, symbols, "__pci_write_msi_msg")[0].peripheral == NVME

    doorbells = [
        at for at, event in enumerate(events) if event.peripheral == NVME and event.offset == SUBMISSION_DOORBELL
    ]
    assert len(doorbells) > 5
    assert {symbols.function(events[at].pc) for at in doorbells} == {"nvme_queue_rq", "nvme_pci_submit_async_event"}
    assert {(access(events[at - 1]), symbols.function(events[at - 1].pc)) for at in doorbells} == {
        ("dmb oshst", "nvme_queue_rq"),
        ("dmb oshst", "nvme_pci_submit_async_event"),
    }, "writel: the entry in memory is before the doorbell"

    first = events.index(users[0])
    assert [(access(event), symbols.function(event.pc)) for event in events[first : first + 3]] == [
        ("store 0+0xc 4: 0x11", "ring_register"),
        ("dmb oshst", "ring_register"),
        ("load 0+0xc 4: 0x0", "ring_register"),
    ]
    assert {event.peripheral for event in users} == {DEVICE}


def test_a_guest_of_its_kvm_is_traced(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM 6.1 maps a BAR that is no vfio-pci's with stage 2 Device-nGnRE, whatever the nested guest's stage 1 says."""
    monkeypatch.chdir(tmp_path)
    image, _ = initramfs(tmp_path, HERE / "kvm.c")
    stores = [event for event in traced(kernel, image) if event.peripheral == DEVICE and event.bar == 0]
    assert [(access(event), label(event)) for event in stores] == [
        ("store 0+0xc 4: 0x1", "00 over 1 = 00 at EL1"),
        ("store 0+0xc 4: 0x2", "04 over 1 = 04 at EL1"),
        ("store 0+0xc 4: 0x3", "44 over 1 = 04 at EL1"),
    ]


def test_a_driver_of_linux_s_and_a_device_of_ours(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's `ena` module, unmodified, by its own functions' names: all of its registers are Device-nGnRE."""
    monkeypatch.chdir(tmp_path)
    driver = kernel.modules / "kernel/drivers/net/ethernet/amazon/ena/ena.ko"
    image, _ = initramfs(tmp_path, HERE / "module.c", files={"driver.ko": driver.read_bytes()})
    events = traced(kernel, image, device=f"{ena.__name__}:Ena")
    symbols = load_symbols([Path("kallsyms")])
    at = [at for at, event in enumerate(events) if event.peripheral == DEVICE and event.bar == 0]
    assert {events[each].type for each in at} == {NGNRE}
    address = f"0x{int.from_bytes(events[at[0]].data, 'little'):x}"  # of memory that the driver has for answers
    assert [(symbols.function(events[each].pc).removesuffix(" [ena]"), access(events[each])) for each in at] == [
        ("ena_com_mmio_reg_read_request_init", f"store 0+0x60 4: {address}"),
        ("ena_com_mmio_reg_read_request_init", "store 0+0x64 4: 0x0"),
        ("ena_com_reg_bar_read32", "load 0+0x58 4: 0x1"),
        ("ena_com_reg_bar_read32", "load 0+0x8 4: 0x3014"),
        ("ena_com_dev_reset", "store 0+0x54 4: 0x1"),
        ("ena_com_dev_reset", f"store 0+0x60 4: {address}"),
        ("ena_com_dev_reset", "store 0+0x64 4: 0x0"),
        ("ena_com_reg_bar_read32", "load 0+0x58 4: 0x9"),
        ("ena_com_dev_reset", "store 0+0x54 4: 0x0"),
        ("ena_com_reg_bar_read32", "load 0+0x58 4: 0x1"),
        ("ena_com_reg_bar_read32", "load 0+0x0 4: 0x10000"),
        ("ena_com_reg_bar_read32", "load 0+0x4 4: 0x0"),
        ("ena_com_mmio_reg_read_request_destroy", "store 0+0x60 4: 0x0"),
        ("ena_com_mmio_reg_read_request_destroy", "store 0+0x64 4: 0x0"),
    ]
    reset = next(each for each in at if access(events[each]) == "store 0+0x54 4: 0x1")
    before = events[reset - 1]
    assert (access(before), symbols.function(before.pc)) == ("dmb oshst", "ena_com_dev_reset [ena]"), "writel"
