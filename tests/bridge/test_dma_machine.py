"""DMA maps, over files that shrink and without files, against a page table."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from pyvfio_user.bridge.dma import DmaError

from .machine import LENGTH, ServedMachine
from .raw import DMA_MAP, DMA_READ, DMA_UNMAP, DMA_WRITE, ERROR, REPLY, dma_map, dma_unmap, message

T = TypeVar("T")

PAGE, FILE_PAGES, FILES = 4096, 6, 2
BASES = (0, 0x1_0000_0000, (1 << 64) - 16 * PAGE)
PLACES = st.builds(lambda base, page: base + page * PAGE, st.sampled_from(BASES), st.integers(0, 15))
BYTES = st.sampled_from([0, 1, 8, 4095, 4096, 4097, 9000, 3 * 4096]) | st.integers(0, 70_000)
READ, WRITE = 1, 2


class Page(NamedTuple):
    """A page of guest memory: of a file, or of the client's own."""

    flags: int
    file: int | None
    offset: int
    own: bytearray


class DmaMachine(ServedMachine):
    """The client maps and unmaps, and answers DMA messages; the device reads and writes."""

    def __init__(self) -> None:
        self.files = [os.memfd_create(f"machine-{n}") for n in range(FILES)]
        super().__init__()
        for number, fd in enumerate(self.files):
            os.pwrite(fd, bytes(n * 7 + number & 0xFF for n in range(FILE_PAGES * PAGE)), 0)

    def connect(self) -> None:
        """With bus mastering, and no map."""
        super().connect()
        self.run(self.raw.write(7, 4, b"\x06\0"))
        self.maps: list[tuple[int, int]] = []
        self.pages: dict[int, Page] = {}

    def release(self) -> None:
        """The machine's own files."""
        for fd in self.files:
            os.close(fd)
            self._before[f"/memfd:machine-{self.files.index(fd)} (deleted)"] -= 1

    @rule(
        at=PLACES,
        pages=st.integers(0, 20),
        flags=st.sampled_from([3, 3, 1, 2, 0, 4]),
        file=st.none() | st.integers(0, FILES - 1),
        offset=st.integers(0, FILE_PAGES + 1),
    )
    def map(self, at: int, pages: int, flags: int, file: int | None, offset: int) -> None:
        """DMA_MAP."""
        size, offset = pages * PAGE, offset * PAGE
        fds = [] if file is None else [self.files[file]]
        reply = self.run(self.raw.request(DMA_MAP, dma_map(at, size, flags=flags, offset=offset), fds))
        if not size or at + size > 1 << 64 or flags > 3:
            expected = errno.EINVAL
        elif any(at < start + length and start < at + size for start, length in self.maps):
            expected = errno.EEXIST
        elif file is not None and offset + size > os.fstat(self.files[file]).st_size:
            expected = errno.EINVAL
        else:
            expected = 0
            self.maps.append((at, size))
            for n in range(0, size, PAGE):
                self.pages[at + n] = Page(flags, file, offset + n, bytearray(PAGE))
        assert (reply.flags & ERROR != 0, reply.errno) == (expected != 0, expected)

    @rule(at=PLACES, pages=st.integers(0, 20))
    def unmap(self, at: int, pages: int) -> None:
        """DMA_UNMAP of any range."""
        self.do_unmap(at, pages * PAGE)

    @rule(data=st.data())
    def unmap_one(self, data: st.DataObject) -> None:
        """DMA_UNMAP of what is mapped."""
        if self.maps:
            self.do_unmap(*data.draw(st.sampled_from(self.maps)))

    def do_unmap(self, at: int, size: int) -> None:
        """All maps in the range go, or none."""
        reply = self.run(self.raw.request(DMA_UNMAP, dma_unmap(at, size)))
        touched = [(start, length) for start, length in self.maps if at < start + length and start < at + size]
        cut = any(start < at or start + length > at + size for start, length in touched)
        expected = errno.EINVAL if not size or at + size > 1 << 64 or cut else 0 if touched else errno.ENOENT
        if not expected:
            self.maps = [each for each in self.maps if each not in touched]
            self.pages = {page: what for page, what in self.pages.items() if not at <= page < at + size}
        assert reply.errno == expected

    @rule(file=st.integers(0, FILES - 1), size=st.integers(0, FILE_PAGES * PAGE))
    def truncate(self, file: int, size: int) -> None:
        """The client takes memory away from under its maps, or gives it back."""
        os.truncate(self.files[file], size)

    @rule(at=PLACES, into=st.integers(0, PAGE - 1), length=BYTES)
    def read(self, at: int, into: int, length: int) -> None:
        """By the device, at once."""
        self.expect(at + into, length, READ, lambda: self.bench.memory.read_mapped(at + into, length))

    @rule(at=PLACES, into=st.integers(0, PAGE - 1), length=BYTES, byte=st.integers(1, 255))
    def write(self, at: int, into: int, length: int, byte: int) -> None:
        """By the device, at once."""
        data = bytes([byte]) * length

        def write() -> bytes:
            self.bench.memory.write_mapped(at + into, data)
            return self.content(at + into, length)

        found = self.expect(at + into, length, WRITE, write)
        assert found is None or self.alias(at + into, length) or found == data

    @rule(at=PLACES, into=st.integers(0, PAGE - 1), length=BYTES)
    def read_any(self, at: int, into: int, length: int) -> None:
        """By messages, where it must be."""
        read = self.bench.memory.read
        self.expect(at + into, length, READ, lambda: self.run(self.answered(read(at + into, length))), messages=True)

    @rule(at=PLACES, into=st.integers(0, PAGE - 1), length=BYTES, byte=st.integers(1, 255))
    def write_any(self, at: int, into: int, length: int, byte: int) -> None:
        """By messages, where it must be."""
        data = bytes([byte]) * length

        def write() -> bytes:
            self.run(self.answered(self.bench.memory.write(at + into, data)))
            return self.content(at + into, length)

        self.expect(at + into, length, WRITE, write, messages=True)

    @rule()
    def come_again(self) -> None:
        """The maps go with the client."""
        self.disconnect()
        self.connect()

    @invariant()
    def as_many_maps(self) -> None:
        """As the client made."""
        assert self.bench.memory.maps == len(self.maps)

    # The model

    def touched(self, at: int, length: int) -> list[int]:
        """The pages of a range."""
        return list(range(at - at % PAGE, at + length, PAGE)) if length else []

    def status(self, at: int, length: int, access: int, messages: bool) -> int:
        """The errno of an access, 0 for none."""
        pages = [self.pages.get(page) for page in self.touched(at, length)]
        for page in pages:
            if page is None:
                return errno.EFAULT
            if not page.flags & access:
                return errno.EACCES
        there = [page for page in pages if page is not None]
        if any(page.file is None for page in there):
            return 0 if messages else errno.ENXIO
        gone = any(page.offset >= os.fstat(self.files[page.file]).st_size for page in there if page.file is not None)
        return errno.EFAULT if gone else 0

    def alias(self, at: int, length: int) -> bool:
        """Is a page of a file twice in a range, or partly beyond its end?"""
        pages = [self.pages[page] for page in self.touched(at, length)]
        backing = [(page.file, page.offset) for page in pages]
        sizes = [0 if page.file is None else os.fstat(self.files[page.file]).st_size - page.offset for page in pages]
        return len(set(backing)) < len(backing) or min(sizes, default=PAGE) < PAGE

    def content(self, at: int, length: int) -> bytes:
        """What the client has there; beyond a file's end nothing stays."""
        found = b""
        for start in self.touched(at, length):
            page = self.pages[start]
            data = bytes(page.own) if page.file is None else os.pread(self.files[page.file], PAGE, page.offset)
            found += data.ljust(PAGE, b"\0")
        return found[at % PAGE :][:length]

    def store(self, at: int, data: bytes) -> None:
        """As the client stores what a DMA_WRITE brings."""
        for n, byte in enumerate(data, at):
            page = self.pages[n - n % PAGE]
            if page.file is None:
                page.own[n % PAGE] = byte
            elif page.offset + n % PAGE < os.fstat(self.files[page.file]).st_size:
                os.pwrite(self.files[page.file], bytes([byte]), page.offset + n % PAGE)

    def expect(self, at: int, length: int, access: int, do: Any, *, messages: bool = False) -> bytes | None:
        """Does an access, which must end as the model says; None when it fails, as it must."""
        expected = self.status(at, length, access, messages)
        if expected:
            with pytest.raises(DmaError) as raised:
                do()
            assert raised.value.errno == expected
            return None
        tail_lives = any(
            page.file is not None and page.offset + PAGE > os.fstat(self.files[page.file]).st_size
            for page in (self.pages[start] for start in self.touched(at, length))
        )
        found: bytes = do()
        # Bytes behind a file's end, in its last page, are memory as well, but no file has them.
        assert len(found) == length and (tail_lives or found == self.content(at, length))
        return found

    async def answered(self, access: Coroutine[Any, Any, T]) -> T:
        """Lets the device access guest memory, and answers its messages meanwhile."""
        task = asyncio.ensure_future(access)
        while True:
            receiving = asyncio.ensure_future(self.raw.receive())
            await asyncio.wait({task, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                receiving.cancel()
                await asyncio.wait({receiving})
                return await task
            request = receiving.result()
            at, length = struct.unpack("<QQ", request.body[:16])
            assert request.flags == 0
            assert length <= {DMA_READ: 32768, DMA_WRITE: 65536}[request.command]
            answer = request.body[:16]
            if request.command == DMA_READ:
                answer += self.content(at, length)
            else:
                self.store(at, request.body[16:])
            await self.raw.send(message(request.command, answer, id=request.id, flags=REPLY))


TestDma = DmaMachine.TestCase
TestDma.settings = LENGTH
