"""Random streams: the server answers what is well framed, disconnects the rest, and serves the next client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .bench import serve_bench
from .conftest import LOOPS
from .raw import (
    ERROR,
    HEADER,
    NO_REPLY,
    REPLY,
    WRITE_MULTI,
    Raw,
    access,
    message,
)


async def throw(path: Path, chunks: list[bytes], negotiate: bool) -> None:
    """Throws bytes at a server, and asserts that it serves the next client, and holds nothing of the first."""
    async with serve_bench(path) as bench:
        async with Raw.connect(path, negotiate=negotiate) as raw:
            with contextlib.suppress(ConnectionError, TimeoutError):
                for chunk in chunks:
                    await raw.send(chunk)
                    await asyncio.sleep(0)
        await bench.check_alive()
        assert bench.memory.maps == 0
        assert bench.interrupts.mode == "none"


HEADERS = st.builds(
    HEADER.pack,
    st.integers(0, 0xFFFF),
    st.integers(0, 20),
    st.one_of(st.integers(0, 100), st.integers(0, 0xFFFF_FFFF)),
    st.one_of(st.sampled_from([0, 1, NO_REPLY, REPLY | ERROR]), st.integers(0, 0xFFFF_FFFF)),
    st.integers(0, 200),
)
EDGES = st.sampled_from([0, 1, 4, 8, 32, 4096, 0x8000_0000, 0xFFFF_FFFF, (1 << 63), (1 << 64) - 1])
NUMBERS = st.one_of(EDGES, st.integers(0, 64))
BODIES = st.one_of(
    st.binary(max_size=64),
    st.builds(
        lambda numbers: b"".join(struct.pack("<I", n & 0xFFFF_FFFF) for n in numbers), st.lists(NUMBERS, max_size=16)
    ),
    st.builds(lambda numbers: b"".join(struct.pack("<Q", n) for n in numbers), st.lists(NUMBERS, max_size=8)),
    st.builds(
        lambda region, offset, data: access(region, offset, len(data), data),
        st.integers(0, 10),
        NUMBERS,
        st.binary(max_size=64),
    ),
)
MESSAGES = st.builds(
    lambda command, body, flags: message(command, body, flags=flags),
    st.sampled_from([*range(20), WRITE_MULTI]),
    BODIES,
    st.sampled_from([0, 0, 0, NO_REPLY, REPLY]),
)


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=150, deadline=None)
@given(chunks=st.lists(st.one_of(st.binary(max_size=64), HEADERS, MESSAGES), max_size=8), negotiate=st.booleans())
def test_a_stream_of_garbage(loop: str, chunks: list[bytes], negotiate: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(throw(Path(folder) / "s", chunks, negotiate))


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=150, deadline=None)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=20))
def test_well_framed_nonsense_is_answered_message_by_message(loop: str, messages: list[bytes]) -> None:
    """Each request gets one reply with its id, and a request that wants none gets none."""

    async def talk(path: Path) -> None:
        async with serve_bench(path) as bench:
            async with Raw.connect(path) as raw:
                for number, each in enumerate(messages):
                    _, command, size, flags, _ = HEADER.unpack_from(each)
                    await raw.send(HEADER.pack(number, command, size, flags, 0) + each[HEADER.size :])
                    if flags == 0:
                        reply = await raw.receive()
                        assert (reply.id, reply.command, reply.flags & REPLY) == (number, command, REPLY)
                        assert bool(reply.flags & ERROR) == (reply.errno != 0)
                        for fd in reply.fds:
                            os.close(fd)
                await raw.alive()
            await bench.check_alive()

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(talk(Path(folder) / "s"))
