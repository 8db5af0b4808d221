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
async def test_what_goes_wrong_is_told_with_the_machine_once(tmp_path: Path) -> None:
    stub = GdbStub(tmp_path / "gdb", describe=lambda: "QEMU's command:\n  and the console")
    with pytest.raises(QemuError, match=r"^QEMU's gdbstub must accept at .*\nQEMU's command:\n  and the console$"):
        async with stub:
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


@pytest.mark.parametrize(
    ("sent", "meant"), [(b"OK", b"OK"), (b"}\x03", b"#"), (b"a}]b}\x04", b"a}b$"), (b"}\n", b"*"), (b"", b"")]
)
def test_escapes(sent: bytes, meant: bytes) -> None:
    """GDB manual, appendix E.1: what has a meaning in packets comes behind `}`, with bit 5 flipped."""
    assert gdbstub._unescape(sent) == meant


class Machine:
    """A stub whose machine stands at `PC`, in code that it can be made to run: what it was told, in order."""

    PC, CODE, X0 = 0x1234_5000, "7f2003d5", 0x55

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.told = refuses, [""]

    def answer(self, packet: str) -> str:
        self.told.append(packet)
        if self.refuses and packet.startswith(self.refuses):
            return "E14"
        if packet.startswith("qXfer"):
            return "l<target/>"
        numbers = {"p0": self.X0, "p20": self.PC}
        if packet in numbers:
            return numbers[packet].to_bytes(8, "little").hex()
        return {"m": self.CODE, "s": "T05thread:01;"}.get(packet[0], "OK")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                await reader.readuntil(b"$")
                packet = (await reader.readuntil(b"#"))[:-1].decode()
            except asyncio.IncompleteReadError:
                return writer.close()
            answer = self.answer(packet).encode()
            writer.write(b"+$%b#%02x" % (answer, sum(answer) & 0xFF))


@pytest.mark.asyncio
async def test_an_instruction_is_run_where_the_machine_stands_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    machine = Machine()
    server = await asyncio.start_unix_server(machine.serve, str(tmp_path / "gdb"))
    async with server, GdbStub(tmp_path / "gdb") as stub:
        await stub.execute(0xD51C_E340, 0x0102_0304_0506_0708)
    told = machine.told[machine.told.index("Qqemu.PhyMemMode:1") + 1 :]
    assert told[told.index("Qqemu.PhyMemMode:0") :] == [
        "Qqemu.PhyMemMode:0",
        "m12345000,4",
        "M12345000,4:40e31cd5",
        "P0=0807060504030201",
        "s",
        "M12345000,4:7f2003d5",
        "P0=5500000000000000",
        "P20=0050341200000000",
        "Qqemu.PhyMemMode:1",
        "D",
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("refused", ["M12345000", "P0"])
async def test_a_stub_that_does_not_do_as_it_is_told(tmp_path: Path, refused: str) -> None:
    async with await asyncio.start_unix_server(Machine(refused).serve, str(tmp_path / "gdb")):
        with pytest.raises(QemuError, match=rf"^QEMU's gdbstub must do {refused}.*, not answer 'E14'$"):
            async with GdbStub(tmp_path / "gdb") as stub:
                await stub.execute(0xD51C_E340, 1)


@pytest.mark.asyncio
async def test_one_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdbstub, "_TIMEOUT", 0.05)
    with pytest.raises(QemuError, match=r"^QEMU's gdbstub must answer within 0\.05 s$"):
        await connect(tmp_path / "gdb", silent, GdbStub(tmp_path / "gdb"))
