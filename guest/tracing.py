"""Tracing a guest: builds the plugin that QEMU loads (`guest/tracer`), and keeps the events that it writes.

A `Tracer` has the options for a QEMU's command; its events are read as they come, or `recording` writes them to a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..bridge.ring import Ring
from ..bridge.stream import EVENT, Event, file_header, unpack_all
from .compiling import kept, run_compiler
from .errors import TraceError

API_VERSION = 7
"""The version of QEMU's plugin interface that the tracer is written for. It changed incompatibly before."""

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")
_PROBE_SECONDS = 20
_POLL_SECONDS = 0.01


class Window(NamedTuple):
    """Physical addresses, in whole pages; `config`: an ECAM, else memory that BARs are in."""

    base: int
    size: int
    config: bool = False

    def __str__(self) -> str:
        """As the plugin takes it."""
        return f"{'config' if self.config else 'window'}={self.base:#x}+{self.size:#x}"


VIRT_WINDOWS = (
    Window(0x1000_0000, 0x2EFF_0000),
    Window(0x3F00_0000, 0x0100_0000, config=True),
    Window(0x40_1000_0000, 0x1000_0000, config=True),
    Window(0x80_0000_0000, 0x80_0000_0000),
)
"""Where the `virt` machine has PCIe, whatever `highmem-ecam` says: nothing else is there with up to 255 GiB of RAM."""


def sources() -> dict[str, str]:
    """The plugin's sources by file name, the layout of events among them."""
    folder = resources.files(__package__) / "tracer"
    texts = {
        each.name: each.read_text(encoding="utf-8") for each in folder.iterdir() if each.name.endswith((".c", ".h"))
    }
    layout = resources.files(__package__.rpartition(".")[0] + ".bridge.hotpath") / "event.h"
    return {**texts, layout.name: layout.read_text(encoding="utf-8")}


def find_host_compiler() -> str:
    """The C compiler of this machine: $CC, or cc. Raises `TraceError`."""
    named = os.environ.get("CC", "cc")
    found = shutil.which(named)
    if found is None:
        raise TraceError(f"the tracer needs a C compiler, {named} was not found: install the Debian package gcc")
    return found


def compile_in(folder: Path, compiler: str, extra: Sequence[str] = ()) -> Path:
    """The plugin, compiled in this folder. Raises `BuildError` with what the compiler said."""
    texts = sources()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    units = sorted(name for name in texts if name.endswith(".c"))
    run_compiler("the tracer", [compiler, *FLAGS, *extra, *units, "-o", "tracer.so"], folder)
    return folder / "tracer.so"


def build() -> Path:
    """The plugin, built now or earlier from the same sources by the same compiler.

    Raises `TraceError` where there is no compiler, and `BuildError`.
    """
    compiler = find_host_compiler()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = (compiler, version, FLAGS, sorted(sources().items()))
    return kept("tracer", parts, lambda folder: compile_in(folder, compiler), ".so")


def api_version(qemu: Path) -> int | None:
    """The newest version of the plugin interface that a QEMU has; None: it takes no plugins.

    QEMU says it only when it refuses a plugin: so it is shown one that asks for version 2**31 - 1.
    Raises `TraceError` or `BuildError`.
    """
    with tempfile.TemporaryDirectory(prefix="pyvfio-user-") as folder:
        probe = Path(folder) / "probe.so"
        source = '__attribute__((visibility("default"))) int qemu_plugin_version = 0x7fffffff;\n'
        source += "int qemu_plugin_install(void);\nint qemu_plugin_install(void) { return 1; }\n"
        command = [find_host_compiler(), "-shared", "-fPIC", "-x", "c", "-", "-o", str(probe)]
        run_compiler("a plugin", command, Path(folder), source)
        command = [str(qemu), "-machine", "none", "-nodefaults", "-display", "none", "-plugin", str(probe)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PROBE_SECONDS, start_new_session=True
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TraceError(f"{qemu} must say whether it takes a plugin, not fail with: {error}") from error
    found = re.search(r"supports only up to version (\d+)", done.stderr)
    return int(found[1]) if found else None


def require_api(qemu: Path) -> None:
    """Raise `TraceError` unless a QEMU takes the tracer."""
    found = api_version(qemu)
    if found != API_VERSION:
        which = "none" if found is None else str(found)
        raise TraceError(f"QEMU's plugin API must be version {API_VERSION} (QEMU 11) to trace, not {which}: {qemu}")


class Tracer:
    """A ring and the plugin that writes it: a context manager. `options` are for the command of one QEMU."""

    def __init__(
        self, windows: Sequence[Window] = VIRT_WINDOWS, *, capacity: int = 1 << 20, eager: bool = False
    ) -> None:
        """Build the plugin if need be; `capacity` is of the ring, in events. Raises `TraceError`, `BuildError`.

        `eager`: barriers are there before the access behind them is done, and some that no access follows, too.
        """
        plugin = build()
        self.ring = Ring(capacity)
        self.options = [
            "-plugin",
            ",".join(
                [
                    str(plugin).replace(",", ",,"),
                    f"ring={self.ring.path}",
                    *map(str, windows),
                    *(["eager=on"] if eager else []),
                ]
            ),
        ]

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        self.ring.close()

    def events(self) -> list[Event]:
        """What was written since the last call, the oldest first."""
        found: list[Event] = []
        while batch := self.ring.take():
            found += unpack_all(batch)
        return found


@dataclass
class Recorded:
    """How many events `recording` wrote, and how many found the ring full: known when it has ended."""

    events: int = 0
    lost: int = 0


@contextlib.contextmanager
def recording(tracer: Tracer, path: Path, said: Recorded) -> Iterator[None]:
    """Write what is traced to a file while the block runs, in a thread of its own; count it in `said`.

    Raises OSError when the file cannot be written, at the start or at the end.
    """
    done = threading.Event()
    failure: list[OSError] = []

    def drain(write: Callable[[memoryview], object]) -> None:
        ending = False
        while not ending:
            ending = done.wait(_POLL_SECONDS)
            while batch := tracer.ring.take():
                write(batch)
                said.events += len(batch) // EVENT.size

    def run() -> None:
        try:
            drain(file.write)
        except OSError as error:
            failure.append(error)

    with open(path, "wb") as file:
        file.write(file_header())
        thread = threading.Thread(target=run, name="trace")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            said.lost = tracer.ring.dropped
            if not failure:
                file.seek(0)
                file.write(file_header(said.lost))
    if failure:
        raise failure[0]


@contextlib.contextmanager
def written(path: Path, lost: Callable[[], int]) -> Iterator[BinaryIO]:
    """A trace file to write packed events to while the block runs; its header then says how many were lost."""
    with open(path, "wb") as file:
        file.write(file_header())
        try:
            yield file
        finally:
            file.seek(0)
            file.write(file_header(lost()))
