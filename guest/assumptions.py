"""What is assumed of a driver's accesses, as the command line has it: `bar2+0x0:4096=NC`, `bar0+0:16=nGnRE,barrier`."""

from __future__ import annotations

import re

from ..bridge.attributes import MEMORY_TYPES
from ..bridge.errors import DefinitionError
from ..bridge.explore.served import Assumed

TYPES = dict(zip(("nGnRnE", "nGnRE", "nGRE", "GRE", "NC", "WT", "WB"), MEMORY_TYPES, strict=False))
_FORM = re.compile(r"bar([0-5])\+(0x[0-9a-fA-F]+|\d+):(0x[0-9a-fA-F]+|\d+)=(\w+)(,barrier)?")


def parse(text: str) -> Assumed:
    """Read one. Raises DefinitionError for what is not of this form."""
    match = _FORM.fullmatch(text)
    if match is None or match[4] not in TYPES:
        raise DefinitionError(
            f"an assumption must be barN+OFFSET:SIZE=TYPE[,barrier] with a type of {', '.join(TYPES)}, not {text}"
        )
    bar, offset, size, kind, barrier = match.groups()
    return Assumed(int(bar), int(offset, 0), int(size, 0), TYPES[kind], barrier is not None)
