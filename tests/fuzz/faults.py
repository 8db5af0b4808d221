"""Seeds faults into the hot path, one at a time, and sees whether the fuzzers' kept corpus finds each.

usage: python -m tests.fuzz.faults [fault ...]

A fault is a text that is put in the place of another, in a copy of one source: the sources have nothing of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pyvfio_user.bridge.loop import Poller

from .build import FUZZERS, HERE, HOT_PATH, SANITIZE, compile_each, link, sources_of

SEED = "1"


@dataclass(frozen=True)
class Fault:
    """What is wrong, the fuzzer that must find it, and the text of a source with what takes its place."""

    name: str
    fuzzer: str
    source: str
    text: str
    wrong: str


# fmt: off
FAULTS = (
    # What comes in.
    Fault("a message may be longer than the largest", "receive", "session.c",
          "header.size > PVU_MAX_MESSAGE", "header.size > 2u * PVU_MAX_MESSAGE"),
    Fault("a message may be shorter than its header", "receive", "session.c",
          "header.size < sizeof(header)", "header.size < sizeof(header) / 2"),
    Fault("a message is served a byte too early", "receive", "session.c",
          "if (unread < header.size)", "if (unread + 1 < header.size)"),
    Fault("descriptors stay behind when bytes move", "session", "session.c",
          "rx_fds[i].end -= session->rx_head", "rx_fds[i].end -= 0"),
    Fault("descriptors are the next message's", "session", "session.c",
          "rx_fds[n].end <= last", "rx_fds[n].end < last"),
    Fault("descriptors of an access leak", "session", "session.c",
          "        pvu_drop(session->rx_fds[n].fd);\n", ""),
    Fault("of too many descriptors some are merely missing", "session", "session.c",
          "kept < count || ", ""),
    Fault("descriptors of an unfinished message leak", "receive", "session.c",
          "claim_fds(session, RX_SIZE, NULL, 0)", "(void)0"),
    Fault("descriptors of a message that Python never heard of leak", "session", "session.c",
          "session->deferred == PVU_MESSAGE && ", "false && "),
    # Accesses.
    Fault("an offset may be behind its region", "session", "access.c",
          "access->offset < region->size && ", ""),
    Fault("an access may end behind its region", "session", "access.c",
          "access->count <= region->size - access->offset", "access->count <= region->size"),
    Fault("an access may be larger than the largest", "session", "access.c",
          "access->count > limit", "false"),
    Fault("a read of nothing has what was sent before", "session", "access.c",
          "memset(piece, 0, size)", "(void)piece"),
    Fault("a write may have less data than its count", "session", "access.c",
          "length - sizeof(access) != (write ? access.count : 0)", "length - sizeof(access) > access.count"),
    Fault("a list of writes may be shorter than its count", "session", "access.c",
          "/ sizeof(item) != count", "/ sizeof(item) > count"),
    Fault("a write of a list begins where the one before failed", "session", "access.c",
          "        state->done = 0;\n", ""),
    Fault("doorbells are not bounded", "session", "access.c",
          "ring_count == PVU_MAX_RINGS", "ring_count > PVU_MAX_RINGS"),
    Fault("a write overtakes the doorbells before it", "session", "access.c",
          "device->ring_count && (hooked ||", "device->ring_count && ("),
    # Regions.
    Fault("ones that are written clear too much", "session", "region.c",
          "& ~(new & clear)", "& ~clear"),
    Fault("write-once bits can be written twice", "session", "region.c",
          "locked[i] |= once[i]", "(void)locked"),
    Fault("a read clears all but what it should", "session", "region.c",
          "(uint8_t)~rc[i]", "rc[i]"),
    Fault("a span has the byte behind it", "session", "region.c",
          "span->offset + span->length <= offset", "span->offset + span->length < offset"),
    Fault("the vector behind the last is signalled", "session", "region.c",
          "vector >= span->vector_count", "vector > span->vector_count"),
    Fault("a full recorder loses count of the oldest", "session", "record.c",
          "            recorder->oldest++;\n", ""),
    # Descriptions.
    Fault("a description needs a byte less room than it has", "session", "describe.c",
          "request.argsz >= answer->size", "request.argsz + 1 >= answer->size"),
    Fault("a descriptor is kept for a reply that nobody wants", "session", "describe.c",
          " && !(header->flags & F_NO_REPLY)", ""),
    # What goes out.
    Fault("a reply that nobody wants is sent", "session", "send.c",
          "    if (request->flags & F_NO_REPLY)\n        return;\n", ""),
    Fault("an error's reply has data", "session", "send.c",
          "        reply.size = sizeof(reply);\n", ""),
    Fault("a descriptor stays behind when bytes move", "session", "send.c",
          "session->tx_fd_at -= session->tx_head", "(void)0"),
    Fault("the rest of a message is taken for the next", "session", "send.c",
          "session->tx_rest = size - (size_t)sent", "session->tx_rest = 0"),
    Fault("replies are not bounded", "session", "send.c",
          "limit = TX_SIZE - TX_FOR_PYTHON", "limit = 2 * TX_SIZE"),
    Fault("a reply under way is lost when Python asks", "session", "send.c",
          "memmove(room + size, room, session->tx_reserved)", "(void)0"),
    # Transfers.
    Fault("a reply may be about other memory", "session", "transfer.c",
          "memcmp(body, &request->body, sizeof(request->body)) != 0", "false"),
    Fault("a reply may have less data than was asked for", "session", "transfer.c",
          "reply->size != size + request->body.count", "reply->size > size + request->body.count"),
    Fault("a reply may be to another command", "session", "transfer.c",
          "reply->command != request->header.command", "false"),
    Fault("any number is an errno", "session", "transfer.c",
          "reply->error && reply->error <= MAX_ERRNO", "true"),
    Fault("requests outlive their transfer", "session", "transfer.c",
          "            session->asked[i].transfer = NULL;\n", "            continue;\n"),
    Fault("transfers outlive their session", "session", "transfer.c",
          "session->transfers->session = NULL", "(void)0"),
    Fault("a transfer that ended still waits for its turn", "session", "transfer.c",
          "            *link = transfer->next_waiting;\n", ""),
    # The poller and its ring.
    Fault("who waits for room is not told that Python made some", "session", "poller.c",
          "send = session->blocked || ", "send = "),
    Fault("a ring's send that did not fit is taken for done", "session", "uring.c",
          "session->tx_result = cqe->res", "(void)session"),
    Fault("a receive is not cancelled when its session ends", "session", "uring.c",
          "session->receiving && status == 0 && i < CANCELS", "session->receiving && status == 0 && i < 0"),
    Fault("what a ring received is not served", "session", "uring.c",
          "    poller_enqueue(session->poller, session);\n}\n\n/* Completions", "}\n\n/* Completions"),
    Fault("a ring's pieces are not given back", "session", "uring.c",
          "        offer(ring, number);\n    } else {", "    } else {"),
    Fault("a session that is over is found ready", "session", "poller.c",
          "    epoll_forget(poller, (uintptr_t)session);\n", ""),
    Fault("a session that is over keeps its turn", "session", "poller.c",
          "        *link = session->next;\n", ""),
    Fault("a session that is over is still spun for", "session", "poller.c",
          "        poller->hot = NULL;\n", ""),
    Fault("the end is not told", "session", "poller.c",
          "return PVU_CLOSED;", "return PVU_NONE;"),
    # DMA.
    Fault("a map may reach behind its file", "dma", "dma.c",
          "size > file.stx_size - offset", "size > file.stx_size"),
    Fault("the last byte of a map is not its own", "dma", "dma.c",
          "dma->maps[middle].last < address", "dma->maps[middle].last <= address"),
    Fault("a range may reach a byte behind its map", "dma", "dma.c",
          "length - 1 > behind ?", "length - 2 > behind ?"),
    Fault("an unmap may cut a map in two at its first byte", "dma", "dma.c",
          "dma->maps[end].address <= last", "dma->maps[end].address < last"),
    Fault("segments may be less than the buffer", "dma", "dma.c",
          "    if (left)\n        return -EINVAL;\n", ""),
    Fault("memory that is only read can be written", "dma", "dma.c",
          "flags & (uint32_t)access", "flags"),
    Fault("what is unmapped stays mapped", "dma", "dma.c",
          "    for (size_t i = first; i < end; i++)\n        drop(&dma->maps[i]);\n", ""),
    Fault("nothing guards a copy", "dma", "dma.c",
          "int status = guard_install();", "int status = 0;"),
    Fault("a second fault in a copy is fatal", "dma", "guard.c",
          "SA_SIGINFO | SA_NODEFER", "SA_SIGINFO"),
    # The poller of shared memory.
    Fault("a word may be behind its region", "echo", "echo.c",
          "to > region->size - 4", "to > region->size"),
    Fault("a word may be anywhere", "echo", "echo.c",
          "(from | to) % 4", "(from & to) % 4"),
    # Doorbells in shared memory.
    Fault("a bell may be behind its region", "bells", "bells.c",
          "offsets[i] > region->size - width", "offsets[i] > region->size"),
    Fault("a bell may lie anywhere", "bells", "bells.c",
          "offsets[i] % width || ", ""),
    Fault("rings of one look are not bounded", "bells", "bells.c",
          "looked < bells->count && count < PVU_MAX_RINGS", "looked < bells->count"),
    Fault("what a look told is told again", "bells", "bells.c",
          "            bells->bells[i].seen = value;\n", ""),
    Fault("a reset rings", "bells", "bells.c",
          "        bells->bells[i].seen = 0;\n", ""),
    Fault("a poller looks at bells that are gone", "bells", "bells.c",
          "    pvu_bells_unwatch(bells);\n    free(bells);\n", "    free(bells);\n"),
    Fault("bells outlive their poller", "bells", "poller.c",
          "    bells_leave(poller);\n", ""),
    # The ring of events.
    Fault("an event may be behind the ring", "ring", "ring.c",
          "*taken & (capacity - 1)", "*taken & capacity"),
    Fault("an event more is taken than there is room for", "ring", "ring.c",
          "count < most", "count <= most"),
    Fault("an event may have another number", "ring", "ring.c",
          "__ATOMIC_ACQUIRE) != number", "__ATOMIC_ACQUIRE) < number"),
    Fault("a writer is not told what was taken", "ring", "ring.c",
          "    __atomic_store_n(&ring->tail, *taken, __ATOMIC_RELEASE);\n", ""),
    Fault("what was taken is taken again", "ring", "ring.c",
          "        *taken = number;\n", ""),
)
# fmt: on


def applicable() -> list[Fault]:
    """The faults that can show on this machine: those of the ring only where io_uring may be used."""
    ring = Poller().engine == "io_uring"
    return [fault for fault in FAULTS if ring or fault.source != "uring.c"]


class Bench:
    """The fuzzers' objects, compiled once, and programs of them with one fault each."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self._folder = folder
        self._compiler = compiler
        sources = {source for fuzzer in FUZZERS for source in sources_of(fuzzer)}
        self._objects = compile_each([*sorted(sources), HERE / "driver.c"], compiler, folder / "objects")

    def finds(self, fault: Fault) -> bool:
        """Does the kept corpus find a fault?

        Raises:
            ValueError: the source has not the text, or not once.
            subprocess.CalledProcessError: the compiler does not take what comes of it.
        """
        original = HOT_PATH / fault.source
        code = original.read_text()
        if code.count(fault.text) != 1:
            raise ValueError(f"{fault.source} must have {fault.text!r} once, not {code.count(fault.text)} times")
        wrong = self._folder / "wrong" / fault.source
        wrong.parent.mkdir(exist_ok=True)
        wrong.write_text(code.replace(fault.text, fault.wrong))
        objects = {source: self._objects[source] for source in (*sources_of(fault.fuzzer), HERE / "driver.c")}
        objects[original] = compile_each([wrong], self._compiler, self._folder / "wrong", (*SANITIZE, "-w"))[wrong]
        program = link(objects.values(), self._compiler, self._folder / "wrong" / "program")
        return run(program, fault.fuzzer, self._folder / "current") != 0


def run(program: Path, fuzzer: str, current: Path) -> int:
    """Replays the kept corpus; the exit status, or a negative signal: that of the driver's timer for a hang."""
    command: list[str | Path] = [program, SEED, "0", HERE / "corpus" / fuzzer, current]
    return subprocess.run(command, capture_output=True).returncode


def main() -> int:
    """The exit status: 0 when all faults were found."""
    chosen = [fault for fault in applicable() if not sys.argv[1:] or fault.name in sys.argv[1:]]
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), os.environ.get("CC", "cc"))
        for fault in chosen:
            finds = bench.finds(fault)
            found += finds
            print(f"{'found' if finds else 'NOT FOUND'}: {fault.source}: {fault.name}", flush=True)
    print(f"{found} of {len(chosen)} faults found")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
