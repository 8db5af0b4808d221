"""A matrix run as people look at it: tables on the terminal and one self-contained HTML file."""

from __future__ import annotations

HONESTY = (
    "All runs under QEMU's TCG, where memory types, faults and single accesses are really seen. In lane el2 our own "
    "code plays the hypervisor. In lane kvm Linux does: a type there follows from stage 1 and from the descriptor that "
    "KVM wrote, read out of memory. TCG executes accesses one by one, so it shows no reordering, no gathering and no "
    "speculation; nothing here says that it does."
)
"""What every report says of itself."""
