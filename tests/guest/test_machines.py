"""The machines: what their files say by hand is what is run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pyvfio_user.guest.machines import ConfigError, config_names, device_option, load_config, parse_config

NO_COMMAND = "x.cfg: its comments must hold a line `#$ qemu-system-aarch64 -readconfig FILE OPTION...`"
DEVICE = '{"driver": "vfio-user-pci", "socket": {"type": "unix", "path": "/run/a.sock"}}'


def test_the_machines_that_ship() -> None:
    assert config_names() == ["el2", "el2-no-fwb", "kvm", "kvm-bypass", "kvm-gicv2", "kvm-noiommu", "qtest"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("el2", "-cpu max -nodefaults -display none -serial stdio"),
        ("el2-no-fwb", "-cpu cortex-a76 -nodefaults -display none -serial stdio"),
        ("kvm", "-cpu neoverse-n1 -nodefaults -no-reboot -display none -serial stdio "
                "-global virtio-mmio.force-legacy=false -device virtio-iommu-device,primary-bus=pcie.0"),
        ("kvm-bypass", "-cpu neoverse-n1 -nodefaults -no-reboot -display none -serial stdio"),
        ("kvm-gicv2", "-cpu neoverse-n1 -nodefaults -no-reboot -display none -serial stdio"),
        ("kvm-noiommu", "-cpu neoverse-n1 -nodefaults -no-reboot -display none -serial stdio"),
        ("qtest", "-accel qtest -nodefaults -display none"),
    ],
)  # fmt: skip
def test_the_command_of_each_machine(name: str, options: str) -> None:
    config = load_config(name)
    command = config.command("/bin/qemu", ["/run/a.sock"])
    assert command == ["/bin/qemu", "-readconfig", str(config.path), *options.split(), "-device", DEVICE]
    assert config.path.name == f"{name}.cfg"


def test_several_devices_another_cpu_properties_and_more_options() -> None:
    config = load_config("el2")
    command = config.command(
        "qemu", ["a", Path("b")], cpu="neoverse-n2", properties={"x-msg-timeout": 500}, extra=["-kernel", "Image"]
    )
    device = '{"driver": "vfio-user-pci", "x-msg-timeout": 500, "socket": {"type": "unix", "path": "%s"}}'
    assert command == [
        *["qemu", "-readconfig", str(config.path)],
        *["-cpu", "neoverse-n2", "-nodefaults", "-display", "none", "-serial", "stdio"],
        *["-device", device % "a", "-device", device % "b", "-kernel", "Image"],
    ]


def test_a_cpu_for_a_machine_that_names_none() -> None:
    command = load_config("qtest").command("qemu", cpu="max")
    assert command[3:] == ["-accel", "qtest", "-nodefaults", "-display", "none", "-cpu", "max"]


def test_the_device_option_survives_a_shell() -> None:
    option = device_option("/run/it's here.sock")
    assert shlex.split(shlex.quote(option)) == [option]


def test_a_config_of_ones_own_may_have_other_devices_and_properties(tmp_path: Path) -> None:
    path = tmp_path / "mine.cfg"
    path.write_text(
        "# Mine.\n#$ qemu-system-aarch64 -readconfig mine.cfg -device pcie-root-port,id=port -device\n"
        """#$   '{"driver": "vfio-user-pci", "bus": "port", "socket": {"type": "unix", "path": "S"}}' -S\n[machine]\n"""
    )
    device = '{"driver": "vfio-user-pci", "bus": "port", "socket": {"type": "unix", "path": "a"}}'
    expected = ["qemu", "-readconfig", str(path), "-device", "pcie-root-port,id=port", "-S", "-device", device]
    assert load_config(str(path)).command("qemu", ["a"]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[machine]\n", NO_COMMAND),
        ("#$ qemu -M virt\n", NO_COMMAND),
        ("#$ qemu '\n", "x.cfg: the command in its `#$ ` comments must be well quoted: No closing quotation"),
        ("#$ qemu -readconfig x.cfg -device vfio-user-pci\n",
         "x.cfg: the argument of -device must be JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)  # fmt: skip
def test_a_config_without_a_command(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Path("x.cfg"), text)
    assert str(caught.value) == message


def test_a_config_needs_no_ending_but_a_machine_that_ships_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "el2"):
        Path(name).write_text("#$ qemu-system-aarch64 -readconfig mine -S\n")
    assert load_config("mine").options == ("-S",)
    assert load_config("el2").options != ("-S",)


def test_a_config_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.cfg").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"or a readable file, not \S+/mine\.cfg \(it is no UTF-8\)$"):
        load_config(str(tmp_path / "mine.cfg"))


def test_an_unknown_machine() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("el3")
    assert str(caught.value) == (
        "machine must be one of el2, el2-no-fwb, kvm, kvm-bypass, kvm-gicv2, kvm-noiommu, qtest, or a readable file, "
        "not el3 (No such file or directory)"
    )
