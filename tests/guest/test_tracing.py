"""Building the tracer, asking a QEMU whether it takes it, and keeping what it writes."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import pytest

from pyvfio_user.bridge.ring import Ring
from pyvfio_user.bridge.stream import EVENT, Event, Kind, file_header, lost_events, pack, read_trace
from pyvfio_user.guest import tracing
from pyvfio_user.guest.errors import BuildError, TraceError
from pyvfio_user.guest.provision.qemu import QemuBinary
from pyvfio_user.guest.tracing import VIRT_WINDOWS, Recorded, Tracer, Window, recording

from .fake_debian import script


def test_a_build_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = tracing.build()
    stamp = first.stat().st_mtime_ns
    assert first.read_bytes()[:4] == b"\x7fELF"
    assert tracing.build() == first
    assert first.stat().st_mtime_ns == stamp
    assert list((tmp_path / "pyvfio-user").iterdir()) == [first]


def test_what_the_compiler_says_is_in_the_error(tmp_path: Path) -> None:
    refuses = script(tmp_path / "cc", "#!/bin/sh\necho no such luck >&2; exit 3\n")
    with pytest.raises(BuildError, match=r"(?s)^the tracer must compile; .*/cc .* ended with 3:\nno such luck$"):
        tracing.compile_in(tmp_path, str(refuses))


def test_a_compiler_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match=r"^the compiler of the tracer must run: "):
        tracing.compile_in(tmp_path, str(tmp_path / "absent"))
    monkeypatch.setenv("CC", "no-such-cc")
    with pytest.raises(
        TraceError,
        match=r"^the tracer needs a C compiler, no-such-cc was not found: install the Debian package gcc$",
    ):
        tracing.build()


def test_windows_as_the_plugin_takes_them() -> None:
    assert [str(window) for window in VIRT_WINDOWS] == [
        "window=0x10000000+0x2eff0000",
        "config=0x3f000000+0x1000000",
        "config=0x4010000000+0x10000000",
        "window=0x8000000000+0x8000000000",
    ]


def test_the_options_are_for_one_command() -> None:
    with Tracer([Window(0x1000, 0x1000)]) as tracer:
        assert tracer.options == ["-plugin", f"{tracing.build()},ring={tracer.ring.path},window=0x1000+0x1000"]


def test_the_newest_qemu_has_the_api(qemu_binary: QemuBinary) -> None:
    assert tracing.api_version(qemu_binary.path) == tracing.API_VERSION


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("plugin requires API version 2147483647, but this QEMU supports only up to version 4", 4),
        ("qemu: -plugin: invalid option", None),
    ],
)
def test_what_another_qemu_says(says: str, version: int | None, tmp_path: Path) -> None:
    assert tracing.api_version(script(tmp_path / "qemu", f"#!/bin/sh\necho '{says}' >&2; exit 1\n")) == version


def write(ring: Ring, *events: Event, dropped: int = 0) -> None:
    """What the plugin does."""
    descriptor = os.open(ring.path, os.O_RDWR)
    with mmap.mmap(descriptor, 0) as shared:
        shared[192:200] = dropped.to_bytes(8, "little")
        for event in events:
            at = 7 * 4096 + (event.sequence - 1) * EVENT.size
            shared[at : at + EVENT.size] = pack(event)
    os.close(descriptor)


def test_a_recording_is_a_trace_file(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    events = [Event(Kind.DGH, sequence=1), Event(Kind.DGH, sequence=2)]
    with Tracer() as tracer:
        said = Recorded()
        with recording(tracer, path, said):
            write(tracer.ring, *events)
        assert said == Recorded(events=2, lost=0)
    assert list(read_trace(path)) == events


def test_a_recording_says_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with Tracer() as tracer:
        said = Recorded()
        with recording(tracer, path, said):
            write(tracer.ring, Event(Kind.DGH, sequence=1), dropped=9)
    assert said == Recorded(events=1, lost=9)
    assert lost_events(path) == 9
    assert len(list(read_trace(path))) == 1


def test_a_recording_of_nothing_is_an_empty_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with Tracer() as tracer, recording(tracer, path, Recorded()):
        assert path.exists()
    assert path.read_bytes() == file_header()


def test_a_disk_that_is_full_is_said_at_the_end() -> None:
    block = contextlib.ExitStack()
    with Tracer() as tracer, pytest.raises(OSError, match="No space left on device"), block:
        block.enter_context(recording(tracer, Path("/dev/full"), Recorded()))
        write(tracer.ring, Event(Kind.DGH, sequence=1))


def test_a_file_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with Tracer() as tracer, pytest.raises(IsADirectoryError), recording(tracer, tmp_path, Recorded()):
        raise AssertionError("the block must not run")
