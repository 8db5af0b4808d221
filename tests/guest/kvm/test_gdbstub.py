"""QEMU's gdbstub as it answers, or does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.kvm import gdbstub
from pyvfio_user.guest.kvm.gdbstub import GdbStub

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def connect(path: Path, peer: Peer, stub: GdbStub) -> None:
    done = asyncio.Event()

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer(reader, writer)
        writer.close()
        done.set()

    async with await asyncio.start_unix_server(whole, str(path)):
        try:
            async with stub:
                raise AssertionError("it must not be connected")
        finally:
            await done.wait()


async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.asyncio
async def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(QemuError, match=r"^QEMU's gdbstub must accept at .*gdb: "):
        async with GdbStub(tmp_path / "gdb"):
            pass


@pytest.mark.asyncio
async def test_a_connection_that_is_closed(tmp_path: Path) -> None:
    with pytest.raises(QemuError, match=r"^QEMU's gdbstub must answer, not close the connection$"):
        await connect(tmp_path / "gdb", gone, GdbStub(tmp_path / "gdb"))


@pytest.mark.asyncio
async def test_why_qemu_is_gone_is_asked_of_those_who_know(tmp_path: Path) -> None:
    async def lost() -> QemuError:
        return QemuError("QEMU ended with exit status 1, and this console")

    with pytest.raises(QemuError, match=r"^QEMU ended with exit status 1, and this console$"):
        await connect(tmp_path / "gdb", gone, GdbStub(tmp_path / "gdb", lost))


@pytest.mark.asyncio
async def test_one_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdbstub, "_TIMEOUT", 0.05)
    with pytest.raises(QemuError, match=r"^QEMU's gdbstub must answer within 0\.05 s$"):
        await connect(tmp_path / "gdb", silent, GdbStub(tmp_path / "gdb"))
