"""QEMU machines: `-readconfig` files, and the exact command that starts one with devices attached.

A config file holds what `-readconfig` can; the options it cannot hold stand in its comments, as the command to type by
hand, in lines that start with `#$ `. That command is read back here, so that what is run and what is written agree.
"""

from __future__ import annotations

import importlib.resources
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMAND_LINE = "#$ "
_DRIVER = "vfio-user-pci"

PATIENT: Mapping[str, Any] = {"x-msg-timeout": 600_000}
"""The property of devices that QEMU does not give up on when an answer takes more than 5 s, but after ten minutes.

For runs that are bounded otherwise, with devices that are known to answer: on a busy machine, or behind a great many
posted writes, the answer to a read may take that long.
"""


class ConfigError(ValueError):
    """A machine's config file is absent, or its comments do not hold its command."""


@dataclass(frozen=True)
class MachineConfig:
    """A config file, the options that go with it, and the properties of the device option that attaches a device."""

    path: Path
    options: tuple[str, ...]
    device: Mapping[str, Any]

    def command(
        self,
        qemu: Path | str,
        devices: Sequence[Path | str] = (),
        *,
        cpu: str | None = None,
        properties: Mapping[str, Any] | None = None,
        slots: Sequence[int] = (),
        extra: Sequence[str] = (),
    ) -> list[str]:
        """Return the command that starts `qemu` with a device attached for each socket path in `devices`.

        `cpu` replaces the config's own; `properties` are added to each device (`{"x-msg-timeout": 500}`); `slots` are
        their places on the root bus, 1 to 31, where QEMU is not to choose; `extra` is put at the end.
        """
        options = list(self.options)
        if cpu is not None:
            if "-cpu" in options:
                options[options.index("-cpu") + 1] = cpu
            else:
                options += ["-cpu", cpu]
        command = [str(qemu), "-readconfig", str(self.path), *options]
        for number, socket in enumerate(devices):
            place = {"bus": "pcie.0", "addr": f"{slots[number]:#x}"} if slots else {}
            command += ["-device", device_option(socket, {**self.device, **(properties or {}), **place})]
        return [*command, *extra]


def device_option(socket: Path | str, properties: Mapping[str, Any] | None = None) -> str:
    """Return the argument of QEMU's `-device` that attaches the device served at `socket`.

    It is JSON, because the `socket` property is an object, which the older `key=value` form cannot hold.
    """
    address = {"type": "unix", "path": str(socket)}
    return json.dumps({"driver": _DRIVER, **(properties or {}), "socket": address})


def config_directory() -> Path:
    """Return the folder of the config files that ship with this package."""
    with importlib.resources.as_file(importlib.resources.files("pyvfio_user.qemu_configs") / "el2.cfg") as path:
        return path.parent


def config_names() -> list[str]:
    """Return the names of the machines that ship, in alphabetical order."""
    return sorted(path.stem for path in config_directory().glob("*.cfg"))


def load_config(name: str) -> MachineConfig:
    """Return the machine of that name, or the one in the config file at that path. Raises `ConfigError`."""
    path = config_directory() / f"{name}.cfg" if name in config_names() else Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(config_names())
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise ConfigError(f"machine must be one of {names}, or a readable file, not {name} ({reason})") from error
    return parse_config(path, text)


def parse_config(path: Path, text: str) -> MachineConfig:
    """Return the machine described by the comments in `text`, the contents of the file at `path`. Raises `ConfigError`.

    The command is `PROGRAM -readconfig FILE OPTION... [-device JSON]`; there is at most one vfio-user-pci device, whose
    properties, the socket's path excepted, are given to every device attached.
    """
    lines = [line.removeprefix(_COMMAND_LINE) for line in text.splitlines() if line.startswith(_COMMAND_LINE)]
    try:
        words = shlex.split(" ".join(lines))
    except ValueError as error:
        raise ConfigError(f"{path}: the command in its `#$ ` comments must be well quoted: {error}") from error
    if len(words) < 3 or words[1] != "-readconfig":
        raise ConfigError(f"{path}: its comments must hold a line `#$ qemu-system-aarch64 -readconfig FILE OPTION...`")
    options: list[str] = []
    device: dict[str, Any] = {}
    rest = iter(words[3:])
    for word in rest:
        value = next(rest, "") if word == "-device" else ""
        if word == "-device" and _DRIVER in value:
            device = _device_properties(path, value)
        else:
            options += [word, value] if word == "-device" else [word]
    return MachineConfig(path, tuple(options), device)


def _device_properties(path: Path, argument: str) -> dict[str, Any]:
    try:
        properties = json.loads(argument)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: the argument of -device must be JSON: {error}") from error
    return {key: value for key, value in properties.items() if key not in ("driver", "socket")}
