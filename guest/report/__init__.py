"""A matrix run as people look at it: tables on the terminal and one self-contained HTML file."""

from __future__ import annotations

HONESTY = (
    "Lane el2 runs under QEMU's TCG: memory types, faults and single accesses are really seen there. TCG executes "
    "accesses one by one, so it shows no reordering, no gathering and no speculation; nothing here says that it does."
)
"""What every report says of itself."""
