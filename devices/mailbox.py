"""The probe's mailbox: messages to a guest, its results, and what it did to the device meanwhile."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..bridge.dma import DmaError, GuestMemory
from ..bridge.recorder import Transaction
from .probe_map import MailboxStatus


class MailboxError(Exception):
    """A message that no guest will answer; says why."""


@dataclass(frozen=True)
class Submission:
    """What a guest handed back for one message.

    `transactions` are those recorded since the submission before, and `window` what the mapped write-combine window
    held; it is zero again after that.
    """

    data: bytes
    transactions: list[Transaction]
    window: bytes


class Mailbox:
    """Messages wait here until a guest fetches them; its submissions answer them in the order in which it did."""

    def __init__(self, memory: GuestMemory, collect: Callable[[bytes], Submission]) -> None:
        self._memory = memory
        self._collect = collect
        self._waiting: deque[tuple[bytes, asyncio.Future[Submission]]] = deque()
        self._fetched: deque[asyncio.Future[Submission]] = deque()

    def post(self, message: bytes) -> asyncio.Future[Submission]:
        """Queue a message; the future is the guest's answer.

        It fails with `MailboxError` when the message does not fit into the guest's buffer, or when the device is reset
        between fetch and answer.
        """
        answer: asyncio.Future[Submission] = asyncio.get_running_loop().create_future()
        self._waiting.append((bytes(message), answer))
        return answer

    def fetch(self, address: int, capacity: int) -> tuple[MailboxStatus, int, int]:
        """Write the next message to the guest's buffer: (status, message length, errno)."""
        while self._waiting and self._waiting[0][1].cancelled():
            self._waiting.popleft()
        if not self._waiting:
            return MailboxStatus.EMPTY, 0, 0
        message, answer = self._waiting[0]
        if len(message) > capacity:
            self._waiting.popleft()
            answer.set_exception(
                MailboxError(f"message must fit into the guest's {capacity} bytes, not {len(message)}")
            )
            return MailboxStatus.REFUSED, 0, errno.EMSGSIZE
        try:
            self._memory.write_mapped(address, message)
        except DmaError:
            return MailboxStatus.REFUSED, 0, errno.EFAULT
        self._waiting.popleft()
        self._fetched.append(answer)
        return MailboxStatus.DONE, len(message), 0

    def submit(self, address: int, length: int, capacity: int) -> tuple[MailboxStatus, int]:
        """Answer the oldest fetched message with `length` bytes of the guest's buffer: (status, errno)."""
        if not self._fetched:
            return MailboxStatus.REFUSED, errno.ENOMSG
        if length > capacity:
            return MailboxStatus.REFUSED, errno.EMSGSIZE
        try:
            data = self._memory.read_mapped(address, length)
        except DmaError:
            return MailboxStatus.REFUSED, errno.EFAULT
        answer = self._fetched.popleft()
        submission = self._collect(data)
        if not answer.done():
            answer.set_result(submission)
        return MailboxStatus.DONE, 0

    def reset(self) -> None:
        """Fail the messages that were fetched and not answered; those that wait go on waiting."""
        while self._fetched:
            answer = self._fetched.popleft()
            if not answer.done():
                answer.set_exception(
                    MailboxError("the guest must answer what it fetched, not reset or lose the device")
                )
