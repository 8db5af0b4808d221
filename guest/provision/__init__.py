"""Finding, and fetching without root, the real parts that the guests need: QEMU and a cross compiler."""

from __future__ import annotations
