"""A device fed in process with what a behaviour brings: no socket, no guest, thousands of behaviours a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..errors import DefinitionError
from ..inprocess import InProcess
from ..interconnect import DEFAULT_LINK, Behaviour, Effect, Effects, Failure, Link, Op, Packets, Tlp, TlpKind
from ..interconnect.order import bits
from ..interconnect.program import MSI_ADDRESS
from ..stream import BAR_CONFIG


class RequestFails(Exception):
    """What a target raises when it answers a request with an error, or not at all: no broken invariant by itself.

    The guest goes on: a load returns all ones [M] (or is an external abort), a posted write is as if it were done.
    """

    def __init__(self, failure: Failure = Failure.UNSUPPORTED_REQUEST) -> None:
        super().__init__(failure.value)
        self.failure = failure


class Failed(NamedTuple):
    """A request that failed: of the event at this position; whether it was posted; and how."""

    position: int
    posted: bool
    failure: Failure

    def __str__(self) -> str:
        """Who notices, as in `UR: the guest is told nothing; the host may be, by AER or an SError [P] 2.8`."""
        if self.posted:
            return f"{self.failure.value}: the guest is told nothing; the host may be, by AER or an SError [P] 2.8"
        return f"{self.failure.value}: the load gets all ones, or an external abort [P] 2.8"


class Target(Protocol):
    """What is explored. `bar` is None for RAM that the device reads by DMA, at a physical address; 0xfe: config space.
    Only an `InProcess` is asked what is in RAM: of other targets what the program stored there is remembered.

    What a method raises is a broken invariant of the device's own; an AssertionError says which one.
    """

    def write(self, bar: int | None, offset: int, data: bytes, /) -> None:
        """One write arrives."""

    def read(self, bar: int | None, offset: int, size: int, /) -> bytes:
        """One read arrives; what it returns."""


@runtime_checkable
class Resumable(Protocol):
    """A target that can go back: behaviours that begin alike are then replayed only from where they part."""

    def save(self) -> Any:
        """All of its state, as something that later accesses leave alone."""

    def restore(self, state: Any, /) -> None:
        """Be as when `state` was saved."""


Factory = Callable[[], Target]
"""Makes a target in its first state: a new one, or one that was started again."""


class Access(NamedTuple):
    """What reaches the target at once: a write with its bytes, or a read (data None). `effects`: the mask of whose."""

    bar: int | None
    offset: int
    size: int
    data: bytes | None
    effects: int


@dataclass
class Outcome:
    """What an invariant may look at: the device after a behaviour, and what the program's loads returned.

    `device` is the target itself; of an `InProcess`, the device that it has. `loads` is by position in the program;
    speculative reads, which return nothing to a program, are not in it. `failed`: requests that the device refused.
    """

    device: Any
    loads: dict[int, bytes] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)


class Part(NamedTuple):
    """A part of a block: what reaches the target of one TLP; or, without one, of a store to RAM."""

    tlp: Tlp | None
    accesses: tuple[Access, ...]


def parts_of(effects: Effects, block: int, packets: Packets) -> Iterator[Part]:
    """What reaches the target of a block: RAM, and each TLP's bytes, contiguous ones at once, ascending [M].

    Raises DefinitionError for what cannot be replayed: an atomic, or a store whose data are not known.
    """
    for index in bits(block):
        effect = effects[index]
        if effect.in_ram and effect.offset != MSI_ADDRESS:
            content = None if effect.op is Op.READ else _known(effect.data, effect)
            yield Part(None, (Access(None, effect.offset, effect.size, content, effect.bit),))
    for tlp in packets.of_block(block):
        yield Part(tlp, tuple(accesses_of_tlp(tlp)))


def accesses_of(effects: Effects, block: int, packets: Packets) -> Iterator[Access]:
    """The same, without the TLPs."""
    for part in parts_of(effects, block, packets):
        yield from part.accesses


def accesses_of_tlp(tlp: Tlp) -> Iterator[Access]:
    """What reaches the target of one TLP. Raises DefinitionError as `parts_of`."""
    if tlp.kind is TlpKind.ATOMIC:
        raise DefinitionError(f"effects to replay must be reads and writes, not the atomic {tlp}")
    reads = tlp.kind in (TlpKind.MEMORY_READ, TlpKind.CONFIG_READ)
    data = b"" if reads else _known(tlp.data, tlp)
    for start, end in _runs(tlp.enabled):
        content = None if reads else data[start:end]
        yield Access(tlp.bar, tlp.address + start, end - start, content, tlp.effects)


def _known(data: bytes | None, of: Effect | Tlp) -> bytes:
    if data is None:
        raise DefinitionError(f"data of stores to replay must be known, not unknown as of {of}")
    return data


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """The runs of ones in a mask, as (start, end)."""
    start = 0
    while mask:
        skipped = (mask & -mask).bit_length() - 1
        start, mask = start + skipped, mask >> skipped
        length = (~mask & mask + 1).bit_length() - 1
        yield start, start + length
        start, mask = start + length, mask >> length


def in_program_order(effects: Effects) -> Behaviour:
    """The behaviour of which nobody is surprised: one by one, in program order, without speculative reads."""
    return tuple(effect.bit for effect in effects if not effect.optional)


def forwarded(effects: Effects, load: Effect) -> bytes:
    """What the newest earlier stores of its bytes have: a load that does not arrive is answered from there."""
    value = bytearray(load.size)
    for store in effects.all[: load.index]:
        if store.op is Op.WRITE and store.vcpu == load.vcpu and store.data is not None and store.overlaps(load):
            start, end = max(store.offset, load.offset), min(store.end, load.end)
            value[start - load.offset : end - load.offset] = store.data[start - store.offset : end - store.offset]
    return bytes(value)


def answerable(effects: Effects, load: Effect) -> bool:
    """Whether earlier stores of the same vCPU have all of its bytes, so that they can answer it."""
    stores = [e for e in effects.all[: load.index] if e.op is Op.WRITE and e.vcpu == load.vcpu and e.overlaps(load)]
    return all(any(e.offset <= at < e.end for e in stores) for at in range(load.offset, load.end))


class Replay:
    """Feeds a target with behaviours of one program, one after another."""

    def __init__(self, effects: Effects, factory: Factory, link: Link = DEFAULT_LINK) -> None:
        self._effects = effects
        self._packets = Packets(effects, link)
        self._factory = factory
        self._accesses: dict[int, tuple[Access, ...]] = {}
        self._target: Target | None = None
        self._last: Behaviour = ()
        self._saved: list[tuple[Any, dict[int, bytes], list[Failed]]] = []
        self._reads = any(effect.op is Op.READ for effect in effects)

    def run(self, behaviour: Behaviour) -> Outcome:
        """The outcome of a behaviour. What the target raises is passed on; the next run is not affected."""
        target, values, failed, first = self._start(behaviour)
        resumable, has_ram = isinstance(target, Resumable), isinstance(target, InProcess)
        for at in range(first, len(behaviour)):
            block = behaviour[at]
            accesses = self._accesses.get(block)
            if accesses is None:
                accesses = self._accesses[block] = (*accesses_of(self._effects, block, self._packets),)
            for access in accesses:
                bar, offset, size, data, effects = access
                try:
                    if data is not None:
                        target.write(bar, offset, data)
                    elif bar is None and not has_ram:
                        self._returned(values, effects, offset, self._stored(behaviour[:at], offset, size))
                    else:
                        self._returned(values, effects, offset, target.read(bar, offset, size))
                except RequestFails as error:
                    failed.append(self._failed(access, error.failure))
                    if data is None:
                        self._returned(values, effects, offset, b"\xff" * size)
            if resumable:
                self._saved.append((target.save(), dict(values), list(failed)))  # type: ignore[attr-defined]
        device = target.device if isinstance(target, InProcess) else target
        return Outcome(device, self._loads(values, behaviour) if self._reads else {}, failed)

    def _failed(self, access: Access, failure: Failure) -> Failed:
        """Raises DefinitionError for a posted write that times out: nobody waits for it."""
        posted = access.data is not None and access.bar != BAR_CONFIG
        if posted and failure is Failure.COMPLETION_TIMEOUT:
            raise DefinitionError("a request must have a completion to time out, not be a posted write")
        first = next(bits(access.effects))
        return Failed(self._effects[first].position, posted, failure)

    def _start(self, behaviour: Behaviour) -> tuple[Target, dict[int, bytes], list[Failed], int]:
        """The target after as many blocks as it has seen, what reads returned and what failed by then, and how many."""
        if self._target is None or not isinstance(self._target, Resumable):
            self._target = self._factory()
            if isinstance(self._target, Resumable):
                self._saved = [(self._target.save(), {}, [])]
            self._last = behaviour
            return self._target, {}, [], 0
        shared = 0
        for one, other in zip(self._last, behaviour, strict=False):
            if one != other or shared + 1 >= len(self._saved):
                break
            shared += 1
        del self._saved[shared + 1 :]
        state, values, failed = self._saved[shared]
        self._target.restore(state)
        self._last = behaviour
        return self._target, dict(values), list(failed), shared

    def _stored(self, arrived: Behaviour, address: int, size: int) -> bytes:
        """What the program and the device's writes have put into RAM, zeros at first."""
        value = bytearray(size)
        for effect in (self._effects[index] for block in arrived for index in bits(block)):
            if effect.in_ram and effect.data is not None:
                start, end = max(effect.offset, address), min(effect.end, address + size)
                if start < end:
                    value[start - address : end - address] = effect.data[start - effect.offset : end - effect.offset]
        return bytes(value)

    def _returned(self, values: dict[int, bytes], effects: int, offset: int, data: bytes) -> None:
        for effect in map(self._effects.__getitem__, bits(effects)):
            start, end = max(effect.offset, offset), min(effect.end, offset + len(data))
            if start < end:
                value = bytearray(values.get(effect.index, bytes(effect.size)))
                value[start - effect.offset : end - effect.offset] = data[start - offset : end - offset]
                values[effect.index] = bytes(value)

    def _loads(self, values: dict[int, bytes], behaviour: Behaviour) -> dict[int, bytes]:
        arrived = sum(behaviour)
        loads: dict[int, bytes] = {}
        for effect in self._effects:
            if effect.op is Op.READ and not effect.optional:
                value = values[effect.index] if arrived & effect.bit else forwarded(self._effects, effect)
                loads[effect.position] = loads.get(effect.position, b"") + value
        return loads
