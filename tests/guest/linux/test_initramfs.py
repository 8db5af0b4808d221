"""An initramfs as the kernel unpacks it."""

from __future__ import annotations

from pyvfio_user.guest.linux.initramfs import archive


def entries(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Mode, content and device number by name, by the form's definition."""
    found, at = {}, 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) & ~3
        found[name] = (fields[1], data[start : start + fields[6]], (fields[9], fields[10]))
        at = (start + fields[6] + 3) & ~3
    return found


def test_files_come_after_their_folders() -> None:
    found = entries(archive({"init": b"12345", "modules/deep/a.ko": b"module"}))
    assert list(found) == ["dev", "modules", "modules/deep", "dev/console", "init", "modules/deep/a.ko", "TRAILER!!!"]
    assert found["init"] == (0o100755, b"12345", (0, 0))
    assert found["modules/deep/a.ko"] == (0o100755, b"module", (0, 0))
    assert found["modules"][0] == 0o040755


def test_the_first_process_has_a_console() -> None:
    assert entries(archive({}))["dev/console"] == (0o020600, b"", (5, 1))
