"""A client of QEMU's gdbstub, as far as needed to look at a stopped machine, and to have it run an instruction.

GDB's remote serial protocol (GDB manual, appendix E), with QEMU's extension for physical addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import QemuError

_CHUNK = 0x800
_REGISTER = re.compile(r'<reg name="(\w+)" bitsize="64"[^>]*regnum="(\d+)"')
_CORE = {"X0": 0, "PC": 32, "CPSR": 33}
"""Numbers in the feature org.gnu.gdb.aarch64.core: x0 to x30, sp, and these."""
_TIMEOUT = 10.0


class GdbStub:
    """A connection: the machine stands still while it is open, but for `run_on`, and goes on when it is closed."""

    def __init__(
        self,
        path: Path,
        lost: Callable[[], Awaitable[QemuError]] | None = None,
        describe: Callable[[], str] | None = None,
    ) -> None:
        """`path` is the socket of `-gdb unix:PATH,server=on,wait=off`.

        `lost` says why QEMU is gone (`Qemu.lost`), `describe` is put to what went wrong while it ran (`Qemu.describe`).
        """
        self._path, self._lost, self._describe = path, lost, describe
        self._numbers: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Connect, which stops the machine. Raises `QemuError`."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(str(self._path))
        except OSError as error:
            raise self._described(QemuError(f"QEMU's gdbstub must accept at {self._path}: {error}")) from error
        try:
            await self._exchange("qSupported:xmlRegisters=aarch64")
            if not self._numbers:
                text = await self._document("target.xml")
                for included in re.findall(r'href="([^"]+)"', text):
                    text += await self._document(included)
                self._numbers = {name: int(number) for name, number in _REGISTER.findall(text)}
            if await self._exchange("Qqemu.PhyMemMode:1") != "OK":
                raise QemuError("QEMU's gdbstub must read physical memory (QEMU 4.1 or newer)")
        except BaseException:
            self._writer.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the machine go on, and disconnect."""
        if error is None:
            await self._exchange("D")
        self._writer.close()
        with contextlib.suppress(OSError):  # QEMU was first
            await self._writer.wait_closed()
        if isinstance(error, QemuError) and (described := self._described(error)) is not error:
            raise described from error

    def _described(self, error: QemuError) -> QemuError:
        """The error with QEMU's command and console, once."""
        described = self._describe and self._describe()
        return QemuError(f"{error}\n{described}") if described and "\n" not in str(error) else error

    async def run_on(self, seconds: float) -> None:
        """Let the machine run for about that long."""
        await self._send("c")
        await asyncio.sleep(seconds)
        self._writer.write(b"\x03")
        await self._receive()  # why it stopped

    async def register(self, name: str) -> int:
        """A system register by its name in the Arm ARM (`VTTBR_EL2`), or `X0`, `PC`, `CPSR`. Raises `QemuError`."""
        number = _CORE.get(name, self._numbers.get(name))
        if number is None:
            raise QemuError(f"QEMU's gdbstub must know register {name}")
        return int.from_bytes(bytes.fromhex(await self._exchange(f"p{number:x}")), "little")

    async def execute(self, instruction: int, x0: int) -> None:
        """Have the machine run one A64 instruction where it stands, with this in X0, and stand there as before.

        No interrupt is taken meanwhile.

        Raises:
            QemuError: The stub does not do as it is told.
        """
        before = {name: await self.register(name) for name in ("X0", "PC")}
        at = before["PC"]
        await self._done("Qqemu.PhyMemMode:0")
        there = await self._exchange(f"m{at:x},4")
        await self._done(f"M{at:x},4:{instruction.to_bytes(4, 'little').hex()}")
        await self._set("X0", x0)
        await self._exchange("s")
        await self._done(f"M{at:x},4:{there}")
        for name, value in before.items():
            await self._set(name, value)
        await self._done("Qqemu.PhyMemMode:1")

    async def _set(self, name: str, value: int) -> None:
        await self._done(f"P{_CORE[name]:x}={value.to_bytes(8, 'little').hex()}")

    async def _done(self, packet: str) -> None:
        answer = await self._exchange(packet)
        if answer != "OK":
            raise QemuError(f"QEMU's gdbstub must do {packet}, not answer {answer[:20]!r}")

    async def memory(self, address: int, size: int) -> bytes:
        """Physical memory. Raises `QemuError` where there is none."""
        data = b""
        while len(data) < size:
            count = min(_CHUNK, size - len(data))
            answer = await self._exchange(f"m{address + len(data):x},{count:x}")
            if answer.startswith("E") or len(answer) != 2 * count:
                raise QemuError(f"physical address {address:#x} must be memory, not {answer[:20]!r}")
            data += bytes.fromhex(answer)
        return data

    async def _document(self, name: str) -> str:
        text = ""
        while True:
            answer = await self._exchange(f"qXfer:features:read:{name}:{len(text):x},{_CHUNK:x}")
            text += answer[1:]
            if not answer.startswith("m"):
                return text

    async def _exchange(self, packet: str) -> str:
        await self._send(packet)
        return await self._receive()

    async def _send(self, packet: str) -> None:
        data = packet.encode()
        self._writer.write(b"$%b#%02x" % (data, sum(data) & 0xFF))
        await self._writer.drain()

    async def _receive(self) -> str:
        """The next packet, acknowledged; "" for a command that the stub does not know."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._reader.readuntil(b"$")
                data = (await self._reader.readuntil(b"#"))[:-1]
                await self._reader.readexactly(2)
        except TimeoutError as error:
            raise QemuError(f"QEMU's gdbstub must answer within {_TIMEOUT:g} s") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            gone = QemuError("QEMU's gdbstub must answer, not close the connection")
            raise (await self._lost() if self._lost else gone) from error
        self._writer.write(b"+")
        return _unescape(data).decode(errors="replace")


def _unescape(data: bytes) -> bytes:
    """Undo the escapes of binary data, `}` and the byte with bit 5 flipped."""
    return re.sub(rb"\}(.)", lambda match: bytes([match[1][0] ^ 0x20]), data, flags=re.DOTALL)
