"""The order of TLPs on the link, and who notices when one fails (PCI Express Base Specification 2.4.1 and 2.8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from ..errors import DefinitionError
from .order import Order, bits
from .tlp import Tlp, TlpKind


def may_pass(later: Tlp, earlier: Tlp) -> bool:
    """Whether a TLP may overtake one that was sent before it: table 2-40, one traffic class, one requester, no IDO.

    A posted write must be able to pass a read, or there is deadlock; it passes another write only with RO. Nothing that
    is not posted passes a write, but with RO a completion, or a request with data. Completions of one request stay in
    order.
    """
    if earlier.kind.posted:
        return later.relaxed and later.kind not in (TlpKind.MEMORY_READ, TlpKind.CONFIG_READ)
    if later.kind.completion and earlier.kind.completion:
        return later.effects != earlier.effects or later.bar != earlier.bar
    return True


def arrivals(sent: Sequence[Tlp], order: Order) -> Iterator[tuple[Tlp, ...]]:
    """In which orders TLPs that were sent in this one may arrive.

    The core applies its promises before the link does: a write that must come after a read is held until the read's
    completion, so TLPs whose effects are ordered are never on the link together.
    """
    yield from _arrivals(list(sent), order)


def _arrivals(left: list[Tlp], order: Order) -> Iterator[tuple[Tlp, ...]]:
    if not left:
        yield ()
    for at, tlp in enumerate(left):
        if all(may_pass(tlp, earlier) and not held(earlier, tlp, order) for earlier in left[:at]):
            for others in _arrivals(left[:at] + left[at + 1 :], order):
                yield (tlp, *others)


def held(first: Tlp, second: Tlp, order: Order) -> bool:
    """Whether the core sends the second only when the first has arrived."""
    return any(order.rows.not_after[index] & first.effects for index in bits(second.effects))


class Failure(Enum):
    """How a request fails."""

    UNSUPPORTED_REQUEST = "UR"
    COMPLETER_ABORT = "CA"
    COMPLETION_TIMEOUT = "completion timeout"
    """The device does not answer (2.8)."""


class Notice(Enum):
    """What comes of it, and where. Which one it is, is the host's choice."""

    ALL_ONES = "the load gets all ones"
    EXTERNAL_ABORT = "an external abort at the load, in the guest that made it"
    AER = "an AER message: the host's root port"
    SERROR = "an SError at the host, at some later time"


def who_notices(request: Tlp, failure: Failure) -> frozenset[Notice]:
    """What may come of a failed request. The writer of a posted write is never told: the host is, or nobody.

    Raises DefinitionError for a timeout of a request that has no completion.
    """
    if request.kind.completion or (request.kind.posted and failure is Failure.COMPLETION_TIMEOUT):
        raise DefinitionError(f"a request must have a completion to fail by {failure.value}, not {request.kind.value}")
    if request.kind.posted:
        return frozenset({Notice.AER, Notice.SERROR})
    return frozenset({Notice.ALL_ONES, Notice.EXTERNAL_ABORT, Notice.AER})
