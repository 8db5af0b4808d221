"""Devices by name: the ones that ship, and any class of a user's own as `MODULE:CLASS`."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..devices import Device

SHIPPED = {
    "probe": "pyvfio_user.devices.probe:Probe",
    "upcase": "pyvfio_user.devices.upcase:Upcase",
    "bench": "pyvfio_user.devices.bench:Bench",
}


class UnknownDevice(ValueError):
    """No device has that name; the message says what names there are, or why the class cannot be had."""


def create_device(name: str) -> Device:
    """Return a new device by its name in `SHIPPED`, or by `MODULE:CLASS` (the current folder is searched as well).

    Raises `UnknownDevice`; whatever the class itself raises when it is built passes through.
    """
    place = SHIPPED.get(name, name)
    module_name, colon, class_name = place.partition(":")
    if not (module_name and colon and class_name):
        raise UnknownDevice(f"device must be one of {', '.join(SHIPPED)}, or MODULE:CLASS, not {name}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises is told in a line
        where = traceback.extract_tb(error.__traceback__)[-1]
        named = isinstance(error, SyntaxError | ModuleNotFoundError)  # these say by themselves where or what
        why = f"{type(error).__name__}: {error}" + ("" if named else f" ({where.filename}, line {where.lineno})")
        raise UnknownDevice(f"device must be in a module that can be imported, not {name}: {why}") from error
    from ..devices import Device

    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Device)):
        raise UnknownDevice(f"device must be a class derived from Device, not {name}")
    return kind()
