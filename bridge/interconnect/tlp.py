"""From what arrives together to TLPs, by the PCI Express Base Specification (sections as in revision 5.0).

A memory TLP has first and last byte enables only (2.2.5), so a block with holes is several TLPs; none carries more than
Max_Payload_Size (2.2.2) or crosses a 4 KiB boundary (2.2.7). What the core promises holds before that: the link
reorders only what the order of arrival left free (`link`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ..attributes import PAGE
from ..errors import DefinitionError
from ..stream import BAR_CONFIG, BAR_ROM
from .behaviours import Behaviour
from .effects import Effect, Effects, Op
from .order import bits

_DW = 4
_QW = 8


class TlpKind(Enum):
    """The types of TLP, by the names of 2.2.1."""

    MEMORY_READ = "MRd"
    MEMORY_WRITE = "MWr"
    CONFIG_READ = "CfgRd0"
    CONFIG_WRITE = "CfgWr0"
    ATOMIC = "AtomicOp"
    COMPLETION = "Cpl"
    COMPLETION_DATA = "CplD"

    @property
    def posted(self) -> bool:
        """Whether nobody answers: memory writes alone (2.4.1)."""
        return self is TlpKind.MEMORY_WRITE

    @property
    def completion(self) -> bool:
        """Whether it answers another."""
        return self in (TlpKind.COMPLETION, TlpKind.COMPLETION_DATA)


class Tlp(NamedTuple):
    """One TLP of the root complex, or a completion.

    `address`: byte offset in the BAR of the first DW, a multiple of 4; of a completion, of its first byte (its low 7
    bits are Lower Address). `length`: DWs. `data`: the payload in whole DWs, 0 where bytes are not enabled; None when
    it is not known. `effects`: the mask of those that it carries or has a part of. `remaining`: a completion's Byte
    Count.
    """

    kind: TlpKind
    bar: int | None
    address: int
    length: int
    first_be: int
    last_be: int
    data: bytes | None = b""
    effects: int = 0
    relaxed: bool = False
    remaining: int = 0

    @property
    def enabled(self) -> int:
        """The bytes of its DWs that are enabled, as a mask."""
        if self.length == 1:
            return self.first_be
        middle = (1 << _DW * (self.length - 2)) - 1
        return self.first_be | middle << _DW | self.last_be << _DW * (self.length - 1)

    @property
    def span(self) -> range:
        """The offsets from its first enabled byte to its last."""
        enabled = self.enabled
        return range(self.address + (enabled & -enabled).bit_length() - 1, self.address + enabled.bit_length())

    def __str__(self) -> str:
        """As in `MWr bar0+0x40 16DW f/f` or `CplD bar0+0x40 16DW 64 left RO`."""
        where = {BAR_CONFIG: "config", BAR_ROM: "rom", None: "?"}.get(self.bar, f"bar{self.bar}")
        tail = f"{self.remaining} left" if self.kind.completion else f"{self.first_be:x}/{self.last_be:x}"
        return f"{self.kind.value} {where}+{self.address:#x} {self.length}DW {tail}{' RO' if self.relaxed else ''}"


@dataclass(frozen=True)
class Link:
    """The root complex's port and the link.

    `max_payload`: bytes, a power of two from 128 to 4096; requests are cut at multiples of it [M]. `atom`: 8, bytes
    that are aligned to it are never cut [M]; or 4, for a root complex that splits everything into DWs.
    `completion_boundary`: RCB, 64 or 128 bytes (2.3.1.1). `relaxed`: it sets RO on what it sends; what comes of that is
    not the type's doing. `merging`: prefetchable BARs to which a host bridge merges writes that follow each other in
    order and address, whatever the type (7.5.1.2.1): likewise.
    """

    max_payload: int = 256
    atom: int = 8
    completion_boundary: int = 64
    relaxed: bool = False
    merging: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Check the ranges; raises DefinitionError."""
        if self.max_payload not in (128, 256, 512, 1024, 2048, PAGE):
            raise DefinitionError(f"max_payload must be a power of two from 128 to 4096, not {self.max_payload}")
        if self.atom not in (_DW, _QW):
            raise DefinitionError(f"atom must be 4 or 8, not {self.atom}")
        if self.completion_boundary not in (64, 128):
            raise DefinitionError(f"completion_boundary must be 64 or 128, not {self.completion_boundary}")


DEFAULT_LINK = Link()


class Packets:
    """Makes the TLPs of one program's behaviours; remembers those of each block."""

    def __init__(self, effects: Effects, link: Link = DEFAULT_LINK) -> None:
        self._effects = effects
        self._link = link
        self._blocks: dict[int, tuple[Tlp, ...]] = {}

    def __call__(self, behaviour: Behaviour) -> list[Tlp]:
        """The TLPs, in the order in which they are sent."""
        found: list[Tlp] = []
        for block in behaviour:
            found += self.of_block(block)
        return _merged(found, self._link) if self._link.merging else found

    def of_block(self, block: int) -> tuple[Tlp, ...]:
        """The TLPs of a block; those of writes ascending [M]. RAM is not behind the link: it has none."""
        made = self._blocks.get(block)
        if made is None:
            made = self._blocks[block] = tuple(_of_block([self._effects[i] for i in bits(block)], self._link))
        return made


def tlps(effects: Effects, behaviour: Behaviour, link: Link = DEFAULT_LINK) -> list[Tlp]:
    """The TLPs of one behaviour, in the order in which they are sent."""
    return Packets(effects, link)(behaviour)


def _of_block(block: Iterable[Effect], link: Link) -> Iterator[Tlp]:
    groups: dict[tuple[Op, int | None], list[Effect]] = {}
    for effect in block:
        if not effect.in_ram:
            groups.setdefault((effect.op, effect.event.bar), []).append(effect)
    for (op, bar), group in groups.items():
        if op is Op.ATOMIC:
            for effect in group:
                yield _request(TlpKind.ATOMIC, bar, range(effect.offset, effect.end), [effect], link)
            continue
        config = bar == BAR_CONFIG
        kind = _KINDS[op, config]
        written = {at for effect in group for at in range(effect.offset, effect.end)}
        for part in _parts(sorted(written), _DW if config or link.atom == _DW else link.max_payload):
            yield _request(kind, bar, part, group, link)


def _merged(sent: list[Tlp], link: Link) -> list[Tlp]:
    """What a host bridge makes of writes that follow each other, without a hole, up to its maximum payload."""
    found: list[Tlp] = []
    for tlp in sent:
        if found and _mergeable(found[-1], tlp, link):
            found[-1] = _joined(found[-1], tlp)
        else:
            found.append(tlp)
    return found


def _mergeable(first: Tlp, second: Tlp, link: Link) -> bool:
    if not (first.kind is second.kind is TlpKind.MEMORY_WRITE and first.bar == second.bar in link.merging):
        return False
    start, middle, end = first.span.start, second.span.start, second.span.stop
    whole = first.enabled.bit_count() + second.enabled.bit_count() == end - start
    return first.span.stop == middle and whole and start // link.max_payload == (end - 1) // link.max_payload


def _joined(first: Tlp, second: Tlp) -> Tlp:
    address, length, first_be, last_be = _enables(range(first.span.start, second.span.stop))
    data = None
    if first.data is not None and second.data is not None:
        mixed = int.from_bytes(first.data, "little")
        mixed |= int.from_bytes(second.data, "little") << 8 * (second.address - first.address)
        data = mixed.to_bytes(_DW * length, "little")
    effects = first.effects | second.effects
    return first._replace(
        address=address, length=length, first_be=first_be, last_be=last_be, data=data, effects=effects
    )


_KINDS = {
    (Op.READ, False): TlpKind.MEMORY_READ,
    (Op.WRITE, False): TlpKind.MEMORY_WRITE,
    (Op.READ, True): TlpKind.CONFIG_READ,
    (Op.WRITE, True): TlpKind.CONFIG_WRITE,
}


def _parts(offsets: list[int], limit: int) -> list[tuple[int, ...]]:
    """The offsets of each TLP: contiguous ones within a multiple of `limit`, and what one aligned quadword or DW has.

    With holes only a TLP of one DW, or of two that are quadword aligned, can be (2.2.5).
    """
    parts: list[tuple[int, ...]] = []
    for at in offsets:
        last = parts[-1] if parts else ()
        if last and last[-1] + 1 == at and last[0] // limit == at // limit and _whole(last):
            parts[-1] = (*last, at)
        else:
            parts.append((at,))
    joined: list[tuple[int, ...]] = []
    for part in parts:
        hole = min(_QW, limit)
        if joined and joined[-1][0] // hole == part[-1] // hole:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _whole(part: tuple[int, ...]) -> bool:
    return part[-1] - part[0] + 1 == len(part)


def _request(kind: TlpKind, bar: int | None, enabled: Sequence[int], group: list[Effect], link: Link) -> Tlp:
    start, length, first_be, last_be = _enables(enabled)
    end = start + _DW * length
    inside = [effect for effect in group if any(effect.offset <= at < effect.end for at in enabled)]
    carries = sum(effect.bit for effect in inside)
    data: bytes | None = b""
    if kind in (TlpKind.MEMORY_WRITE, TlpKind.CONFIG_WRITE, TlpKind.ATOMIC):
        data = _payload(inside, start, end)
    relaxed = link.relaxed and bar != BAR_CONFIG  # reserved in configuration requests (2.2.7)
    return Tlp(kind, bar, start, length, first_be, last_be, data, carries, relaxed)


def _enables(offsets: Sequence[int]) -> tuple[int, int, int, int]:
    """Address of the first DW, how many there are, and the byte enables of the first and the last, for these bytes."""
    start = offsets[0] // _DW * _DW
    length = offsets[-1] // _DW + 1 - start // _DW
    mask = sum(1 << at - start for at in offsets)
    return start, length, mask & 0xF, mask >> _DW * (length - 1) if length > 1 else 0


def _payload(inside: list[Effect], start: int, end: int) -> bytes | None:
    payload = bytearray(end - start)
    for effect in inside:
        if effect.data is None:
            return None
        first, behind = max(effect.offset, start), min(effect.end, end)
        payload[first - start : behind - start] = effect.data[first - effect.offset : behind - effect.offset]
    return bytes(payload)


def completions(request: Tlp, link: Link = DEFAULT_LINK, data: bytes | None = None) -> list[Tlp]:
    """The completions of a request, in address order (2.3.1.1), cut at every multiple of the RCB [M].

    `data`: what the device answers with, from the first enabled byte to the last. A write of configuration space gets a
    completion without data. Relaxed Ordering is the request's (2.2.9). Raises DefinitionError for a posted request, and
    for data of another length.
    """
    if request.kind.posted or request.kind.completion:
        raise DefinitionError(f"a request must not be posted to be completed, not {request.kind.value}")
    if request.kind is TlpKind.CONFIG_WRITE:
        return [Tlp(TlpKind.COMPLETION, request.bar, request.address, 0, 0, 0, b"", request.effects, remaining=_DW)]
    span = request.span
    if data is not None and len(data) != len(span):
        raise DefinitionError(f"data must be {len(span)} bytes, not {len(data)}")
    found = []
    at = span.start
    while at < span.stop:
        until = min((at // link.completion_boundary + 1) * link.completion_boundary, span.stop)
        length = (until + _DW - 1) // _DW - at // _DW
        part = None if data is None else data[at - span.start : until - span.start]
        kind, left = TlpKind.COMPLETION_DATA, span.stop - at
        found.append(Tlp(kind, request.bar, at, length, 0, 0, part, request.effects, request.relaxed, left))
        at = until
    return found
