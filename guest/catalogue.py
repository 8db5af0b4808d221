"""Devices by name: the ones that ship, and any class of a user's own as `MODULE:CLASS`."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..devices import Device

SHIPPED = {
    "probe": "pyvfio_user.devices.probe:Probe",
    "upcase": "pyvfio_user.devices.upcase:Upcase",
    "bench": "pyvfio_user.devices.bench:Bench",
}


_NOBODYS = (__file__, "<frozen abc>", "<frozen importlib._bootstrap>")
_KIT = tuple(f"{Path(__file__).parents[1] / part}/" for part in ("bridge", "devices", "guest"))
"""Where a mistake of the user's is found, but was not made."""


class UnknownDevice(ValueError):
    """No device has that name; the message says what names there are, or why one cannot be had."""


def create_device(name: str) -> Device:
    """Return a new device by its name in `SHIPPED`, or by `MODULE:CLASS` (the current folder is searched as well).

    Raises `UnknownDevice`, also with whatever the module or the class itself raises.
    """
    place = SHIPPED.get(name, name)
    module_name, colon, class_name = place.partition(":")
    if not (module_name and colon and class_name):
        raise UnknownDevice(f"device must be one of {', '.join(SHIPPED)}, or MODULE:CLASS, not {name}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a user's module raises is told in a line
        raise UnknownDevice(f"device must be in a module that can be imported, not {name}: {_why(error)}") from error
    from ..devices import Device

    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Device)):
        raise UnknownDevice(f"device must be a class derived from Device, not {name}")
    try:
        return kind()
    except (Exception, SystemExit) as error:
        raise UnknownDevice(f"device must be made without arguments, not {name}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """What was raised, and in which line of the user's, unless the error says so by itself."""
    said = f"{type(error).__name__}: {error}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in _NOBODYS]
    own = [frame for frame in frames if not frame.filename.startswith(_KIT)] or frames
    if not own or isinstance(error, SyntaxError | ModuleNotFoundError):
        return said
    return f"{said} ({own[-1].filename}, line {own[-1].lineno})"
