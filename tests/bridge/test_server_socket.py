"""The socket: who may connect, what may be in its place before, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pyvfio_user.bridge import server as server_module
from pyvfio_user.bridge.server import Server, accept, serve

from .bench import SCRATCH, Bench, BenchDevice
from .raw import ERROR, HEADER, REPLY, VERSION, Raw, message, version

STRANGER = 65533
OURS = os.geteuid()


@contextlib.asynccontextmanager
async def strangers_answer(server: Server) -> AsyncIterator[tuple[int, int]]:
    """What a client of another user is answered: flags and errno of the reply to its VERSION.

    As root it is a child that becomes another user. Without that right it is a client of ours, and the server is told
    that it is another's.
    """
    reading, writing = os.pipe()
    child = 0
    with pytest.MonkeyPatch.context() as patch:
        if OURS != 0:
            patch.setattr(server_module, "accept", lambda listener: (accept(listener)[0], STRANGER))
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                signal.alarm(5)
                os.chdir(server.path.parent)  # whose own parents let nobody else pass
                if OURS == 0:
                    os.setgroups([])
                    os.setuid(STRANGER)
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(server.path.name)
                    client.sendall(message(VERSION, version(), id=7))
                    os.write(writing, client.recv(HEADER.size))
                    client.recv(4096)  # until the server has had enough
            os._exit(0)
        os.close(writing)
        try:
            with open(reading, "rb", 0) as pipe:
                answer = await asyncio.wait_for(asyncio.to_thread(pipe.read, HEADER.size), 5)
            id, command, _, flags, error = HEADER.unpack(answer)
            assert (id, command) == (7, VERSION)
            yield flags, error
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@pytest.mark.asyncio
async def test_another_user_is_refused_whatever_the_sockets_mode(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.path.parent.chmod(0o711)
    bench.path.chmod(0o666)
    async with strangers_answer(bench.server) as answer:
        assert answer == (REPLY | ERROR, errno.EACCES)
        assert bench.server.session is None
    assert [record.getMessage() for record in caplog.records] == [
        f"refusing a client on {bench.path}: its user must be {OURS}, not {STRANGER}"
    ]
    await bench.check_alive()


@pytest.mark.asyncio
async def test_another_user_is_refused_while_a_client_is_served(bench: Bench) -> None:
    bench.path.parent.chmod(0o711)
    bench.path.chmod(0o666)
    async with Raw.connect(bench.path) as raw:
        async with strangers_answer(bench.server) as answer:
            assert answer == (REPLY | ERROR, errno.EACCES)
        await raw.alive()


@pytest.mark.asyncio
async def test_any_user_is_served_when_the_server_is_told_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    async with serve(BenchDevice(), tmp_path / "s", any_user=True) as server:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o666
        async with strangers_answer(server) as answer:
            assert answer == (REPLY, 0)
        await asyncio.wait_for(server.wait_disconnected(), 5)


@pytest.mark.asyncio
async def test_the_kernel_tells_who_a_client_is(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(os.fspath(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError, match="Resource temporarily unavailable"):
            accept(listener)
        client.connect(os.fspath(tmp_path / "s"))
        fd, uid = accept(listener)
        with socket.socket(fileno=fd) as connection:
            assert (uid, os.get_inheritable(fd)) == (OURS, False)
            client.send(b"hello")
            assert connection.recv(16) == b"hello"


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.asyncio
async def test_a_server_without_descriptors_waits_for_one(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PAUSE", 0.05)
    said = f"accepting a client on {bench.path}: Too many open files; trying again in 0.05 s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        with no_descriptors():
            client.connect(os.fspath(bench.path))
            await bench.until(lambda: len(caplog.records) == 2)
            for _ in range(100):
                await asyncio.sleep(0)
        assert [record.getMessage() for record in caplog.records[:2]] == [said, said], "not one for each turn"
        await asyncio.wait_for(bench.server.wait_connected(), 5)
        await Raw(client).request(VERSION, version())
    await asyncio.wait_for(bench.server.wait_disconnected(), 5)


@pytest.mark.asyncio
async def test_a_server_without_descriptors_can_be_closed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        with no_descriptors():
            client.connect(os.fspath(bench.path))
            await bench.until(lambda: len(caplog.records) == 1)
        bench.server.close()
        with pytest.raises((EOFError, ConnectionResetError)):
            await Raw(client).receive()


@pytest.mark.asyncio
async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    async with serve(BenchDevice(), path), Raw.connect(path) as raw:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await raw.write(0, SCRATCH, b"live")
    assert not path.exists()


@pytest.mark.parametrize("target", ["missing", "file", "stale"])
@pytest.mark.asyncio
async def test_a_symbolic_link_is_refused_and_left_alone(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("precious")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(tmp_path / "stale"))
    link = tmp_path / "s"
    link.symlink_to(target)
    with pytest.raises(FileExistsError, match=r"path must be free or a socket, not another file") as caught:
        async with serve(BenchDevice(), link):
            pass
    assert caught.value.filename == os.fspath(link)
    assert os.readlink(link) == target
    assert sorted(os.listdir(tmp_path)) == ["file", "s", "stale"]
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.asyncio
async def test_no_umask_opens_the_socket_to_others_or_closes_one_meant_for_them(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with serve(BenchDevice(), tmp_path / "s"):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600 & ~umask
        async with serve(BenchDevice(), tmp_path / "s", any_user=True):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o666
    finally:
        os.umask(before)


@pytest.mark.asyncio
async def test_what_took_the_sockets_place_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serve(BenchDevice(), path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"
