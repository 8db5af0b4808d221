"""What this process has: file descriptors, threads, maps and memory."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import NamedTuple

_LIBC = ctypes.CDLL(None)
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Resources(NamedTuple):
    """Counts, and resident memory in KiB."""

    fds: int
    threads: int
    file_maps: int
    anonymous_maps: int
    resident: int

    @classmethod
    def now(cls) -> Resources:
        """Counts, after what is garbage was collected and freed memory given back."""
        gc.collect()
        _LIBC.malloc_trim(0)
        maps = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
        named = sum(len(fields) > 5 and not fields[5].startswith("[") for fields in maps)
        return cls(
            fds=len(os.listdir("/proc/self/fd")) - 1,  # the folder itself, which is open meanwhile
            threads=len(os.listdir("/proc/self/task")),
            file_maps=named,
            anonymous_maps=len(maps) - named,
            resident=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE // 1024,
        )

    def grown(self, before: Resources) -> dict[str, int]:
        """By how much more than `SLACK` each one is more than before; empty when none is."""
        over = {
            name: now - was - slack for name, now, was, slack in zip(self._fields, self, before, SLACK, strict=True)
        }
        return {name: excess for name, excess in over.items() if excess > 0}


SLACK = Resources(fds=0, threads=0, file_maps=0, anonymous_maps=16, resident=4096)
"""Python and malloc take memory in arenas, which are maps; nothing else may be more than before."""


def table(rows: list[tuple[str, Resources]]) -> str:
    """The resources one row below the other, and the slack."""
    titles = ("fds", "threads", "file maps", "anonymous maps", "resident KiB")
    lines = [f"{'':32}" + "".join(f"{title:>16}" for title in titles)]
    for name, resources in [*rows, ("slack", SLACK)]:
        lines.append(f"{name:32}" + "".join(f"{value:>16,}" for value in resources))
    return "\n".join(lines)
