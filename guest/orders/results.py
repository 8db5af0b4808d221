"""The records of `matrix --orders`. All of it is modelled, but what QEMU was seen to do, which stands beside."""

from __future__ import annotations

import msgspec


class Ordering(msgspec.Struct, frozen=True):
    """What the rules permit of one program: a payload of 64 bytes, what stands between, and a doorbell. All modelled.

    ``fault``: why the program does not come to its end; the rest is then without meaning. ``legal``: how many legal
    behaviours it has, all counted; None: too many. ``one_tlp``: one of them brings the payload as one TLP of 64 bytes.
    ``early``: one of them brings the doorbell before the payload is whole; ``kept_by``: the rules by which none does.
    Under the profile, of ``Orders.seeds`` runs: ``whole`` brought that one TLP, ``torn`` more than one, ``early_runs``
    the doorbell before the payload was whole, ``shuffled`` parts of the payload in another order than ascending; the
    payload came in ``least`` to ``most`` TLPs.

    ``seen`` is what QEMU's TCG did of it in this run, as ``Row.device`` has it, and whether it faulted ("fault"), or
    should have ("no fault"); empty: no battery had the program.
    """

    idiom: str
    barrier: str
    fault: str = ""
    effects: int = 0
    legal: int | None = None
    one_tlp: bool = False
    early: bool = False
    kept_by: str = ""
    whole: int = 0
    torn: int = 0
    early_runs: int = 0
    shuffled: int = 0
    least: int = 0
    most: int = 0
    seen: str = ""


class OrderPair(msgspec.Struct, frozen=True):
    """All programs with one type for the payload and one for the doorbell, attribute bytes.

    ``aligned``: stage 1 is Device although the type is not, so that unaligned accesses and DC ZVA fault.
    """

    payload: str
    doorbell: str
    aligned: bool
    note: str
    rows: tuple[Ordering, ...]


class SpeculativeRead(msgspec.Struct, frozen=True):
    """Whether a register is read though nobody asked: modelled, in a program that says it.

    ``register`` is the one of the range that a read changes; where none is, its first 4 bytes. ``who``: through whose
    mapping, "host" or "guest"; ``type`` is that mapping's effective type, ``s1`` the guest's stage-1 types that give
    it. Of the ``legal`` behaviours of ``program``, ``reading`` have a read of the register; ``why``: by which section.
    """

    scheme: str
    case: str
    fwb: int
    who: str
    range: str
    register: str
    type: str
    s1: tuple[str, ...]
    program: str
    legal: int
    reading: int
    why: str


class Orders(msgspec.Struct, frozen=True):
    """What ``matrix --orders`` adds. Nothing of it is seen but each row's ``seen``.

    ``pairs`` are by key, as ``44>04``; ``idioms`` and ``barriers`` say what the names stand for, ``buffers`` what the
    profile has.
    """

    how: str
    note: str
    profile: str
    buffers: str
    seeds: int
    seconds: float
    idioms: dict[str, str]
    barriers: dict[str, str]
    pairs: dict[str, OrderPair]
    reads: tuple[SpeculativeRead, ...]
