"""Running QEMU from asyncio: its console kept, QMP at hand, always bounded in time, and gone at the end.

    async with Qemu(load_config("el2").command(qemu, [socket], extra=["-kernel", image])) as vm:
        await vm.wait_for("ready")
        await vm.execute("system_reset")

Whatever goes wrong is a `QemuError` that holds the exact command, quoted for a shell, and the console's last lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Awaitable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from qemu.qmp import QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from ..devices.mailbox import MailboxError
from .errors import QemuError

__all__ = ["Qemu", "QemuError", "run_in_foreground"]

_T = TypeVar("_T")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 2.0
_TAIL = 30


def _hung_up(error: BaseException | None) -> bool:
    return isinstance(error, EOFError | OSError | QMPError) and not isinstance(error, ExecuteError)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Qemu:
    """One QEMU process: an async context manager that starts it, and at the end kills it with its process group."""

    def __init__(self, command: Sequence[str], *, timeout: float = 60.0, keep_lines: int = 1000) -> None:
        """Prepare to run `command` for at most `timeout` seconds, keeping the console's last `keep_lines` lines."""
        if timeout <= 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        self.command = list(command)
        self.timeout = timeout
        self.qmp = QMPClient("pyvfio-user")
        self.qmp.events.event_filter = lambda event: False  # nobody takes them: they would pile up
        self.console: deque[str] = deque(maxlen=keep_lines)
        self._partial = ""
        self._changed = asyncio.Condition()
        self._timed_out = False

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether QEMU has not ended yet."""
        return self._process.returncode is None

    def console_tail(self, count: int = _TAIL) -> list[str]:
        """Return the last `count` lines of the console (QEMU's standard output and error), an unended one included."""
        lines = [*self.console, self._partial] if self._partial else [*self.console]
        return lines[-count:]

    def describe(self) -> str:
        """Return the exact command, quoted for a shell, and the console's last lines."""
        console = "".join(f"\n  | {line}" for line in self.console_tail()) or " (nothing)"
        return f"QEMU's command:\n  {shlex.join(self.command)}\nthe console's last lines:{console}"

    async def __aenter__(self) -> Self:
        """Start QEMU and connect to its monitor. Raises `QemuError` when it fails before; it may have ended well."""
        self._directory = Path(tempfile.mkdtemp(prefix="pyvfio-user-qemu-"))
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def _start(self) -> None:
        monitor = self._directory / "qmp"
        await self.qmp.start_server(str(monitor))
        self.command += ["-qmp", f"unix:{monitor}"]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise QemuError(f"QEMU could not be started: {error}\n{self.describe()}") from error
        self._watchdog = asyncio.get_running_loop().call_later(self.timeout, self._expire)
        self._reader = asyncio.create_task(self._read_console())
        self._ending = asyncio.create_task(self._process.wait())
        try:
            await self.bounded(self.qmp.accept())
        except QemuError:
            if self._timed_out or not self._ending.done() or self._ending.result():
                raise
            # A short guest: it has done its work, and QEMU ended, before the monitor was connected.

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill QEMU; to an error that is passing through, add the command and the console's last lines as a note."""
        if isinstance(error, Exception) and not isinstance(error, QemuError):
            error.add_note(self.describe())
        await self._end()

    async def _end(self) -> None:
        if hasattr(self, "_watchdog"):
            self._watchdog.cancel()
            if self.running:
                self._signal(signal.SIGTERM)
                await asyncio.wait((self._ending,), timeout=_GRACE_SECONDS)
            self._signal(signal.SIGKILL)
            await self._ending
            await self._reader
        with contextlib.suppress(EOFError, OSError, QMPError):  # the monitor's stream ended with QEMU
            await self.qmp.disconnect()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended already
            os.killpg(self._process.pid, number)

    def _expire(self) -> None:
        self._timed_out = True
        self._signal(signal.SIGKILL)

    async def _read_console(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while chunk := await stream.read(65536):
            *lines, self._partial = (self._partial + chunk.decode(errors="replace")).replace("\r", "").split("\n")
            self.console.extend(lines)
            async with self._changed:
                self._changed.notify_all()

    def _ended(self, code: int) -> QemuError:
        if self._timed_out:
            what = f"QEMU ran for more than {self.timeout:g} s and was killed"
        elif code < 0:
            what = f"QEMU was ended by {signal.Signals(-code).name}"
        else:
            what = f"QEMU ended with exit status {code}"
        return QemuError(f"{what}\n{self.describe()}")

    async def bounded(self, awaitable: Awaitable[_T]) -> _T:
        """Await something that only a running QEMU can bring about. Raises `QemuError` when QEMU ends before it."""
        work = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait((work, self._ending), return_when=asyncio.FIRST_COMPLETED)
            error = work.exception() if work.done() else None
            if isinstance(error, MailboxError):
                raise await self._unanswered(error) from error
            if work.done() and not _hung_up(error):
                return work.result()
            raise await self.lost() from error
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _unanswered(self, error: MailboxError) -> QemuError:
        """A guest that ends leaves its message unanswered: the device may notice first, but QEMU's end explains it."""
        await asyncio.wait((self._ending,), timeout=_GRACE_SECONDS)
        return await self.lost() if self._ending.done() else QemuError(f"{error}\n{self.describe()}")

    async def lost(self) -> QemuError:
        """Return the error that explains why a connection to QEMU was lost: its end, which is about to be seen."""
        await asyncio.wait((self._ending,), timeout=_GRACE_SECONDS)
        if not self._ending.done():
            return QemuError(f"QEMU closed a connection and runs on\n{self.describe()}")
        await self._reader
        return self._ended(self._ending.result())

    async def wait(self) -> int:
        """Wait until QEMU ends by itself; return its exit status. Raises `QemuError` when the timeout ended it."""
        code = await asyncio.shield(self._ending)
        await self._reader
        if self._timed_out:
            raise self._ended(code)
        return code

    def type(self, text: str) -> None:
        """Give `text` to QEMU's standard input, which is the guest's console where that is `-serial stdio`."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def wait_for(self, text: str) -> str:
        """Wait until a line of the console contains `text`, from its first line on; return the line."""
        return await self.bounded(self._line_with(text))

    async def _line_with(self, text: str) -> str:
        async with self._changed:
            while True:
                for line in (*self.console, self._partial):
                    if text in line:
                        return line
                await self._changed.wait()

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command and return its result. Raises `QemuError` when QEMU refuses it or ends."""
        try:
            return await self.bounded(self.qmp.execute(command, arguments or None))
        except ExecuteError as error:
            raise QemuError(f"QMP {command}: {error}\n{self.describe()}") from error
        except QMPError as error:  # the connection is gone since an earlier command
            raise await self.lost() from error


async def run_in_foreground(command: Sequence[str]) -> int:
    """Run QEMU on this process's own terminal until it ends; return its exit status. When cancelled, end QEMU."""
    try:
        process = await asyncio.create_subprocess_exec(*command, preexec_fn=_die_with_parent)
    except OSError as error:
        raise QemuError(f"QEMU could not be started: {error}\nQEMU's command:\n  {shlex.join(command)}") from error
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
