"""The litmus card: one failure on a page, in words that are the architecture's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from ..interconnect import DEFAULT_LINK, Effect, Effects, Order, Profile
from ..interconnect.order import bits
from ..interconnect.program import DEVICE, MSI_ADDRESS
from ..interconnect.rules import POSTED
from ..stream import BarrierKind, Event, Flag, Kind
from ..timeline import Timeline
from ..timeline.words import type_name
from .drawn import draw
from .fixes import Fix
from .judge import RAISED
from .replay import in_program_order
from .search import Found
from .shrink import Shrunk

HONESTY = (
    "Modelled, not seen: the specifications permit this order; that some hardware does it is not said here.",
    "[A]: Arm architecture, DDI 0487; [P]: PCI Express Base Specification; [M]: a choice of this model.",
)
"""What every card says of itself."""


@dataclass(frozen=True)
class Line:
    """A line of the program: the event's position, what it does, its type, and what that permits, or why it is idle."""

    label: str
    what: str
    type: str
    note: str


@dataclass(frozen=True)
class Card:
    """A failure, shrunk and explained. `str()` is its text; sections are lines for a person.

    For a picture: `made` are the accesses in program order, `blocks` what arrived, in order, by the same labels, and
    `astray` the labels of those that a missing edge would have kept in order; `timeline` is the same with the device.
    """

    broken: str
    program: tuple[Line, ...]
    arrived: tuple[str, ...]
    missing: tuple[str, ...]
    fixes: tuple[str, ...]
    rules: tuple[str, ...]
    extent: str
    verdict: str
    seed: int
    made: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    astray: frozenset[str]
    timeline: Timeline = field(compare=False, repr=False)
    notes: tuple[str, ...] = ()

    def sections(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Titles and lines, in the order of reading; those without lines are left out."""
        width = [max(len(getattr(line, name)) for line in self.program) for name in ("label", "what", "type")]
        program = tuple(
            f"{line.label:>{width[0]}}  {line.what:{width[1]}}  {line.type:{width[2]}}  {line.note}".rstrip()
            for line in self.program
        )
        found = (
            ("broken", (self.broken,)),
            ("program", program),
            ("arrived", self.arrived),
            ("missing", self.missing),
            ("fixes", self.fixes),
            ("rules", self.rules),
            ("counted", (f"{self.extent}: {self.verdict}", f"seed {self.seed}")),
            ("notes", (*self.notes, *HONESTY)),
        )
        return (each for each in found if each[1])

    def __str__(self) -> str:
        lines = [f"litmus card: {self.broken}"]
        for title, content in self.sections():
            if title != "broken":
                lines += [f"{title if at == 0 else '':8} {line}" for at, line in enumerate(content)]
        return "\n".join(lines)


def make_card(explored: Found, shrunk: Shrunk, fixes: Sequence[Fix]) -> Card:
    """The card of an exploration's first failure."""
    effects = shrunk.order.effects
    named = shrunk.message if explored.invariant == RAISED else explored.invariant
    if shrunk.message and named != shrunk.message:
        named += f": {shrunk.message}"
    return Card(
        broken=named,
        program=tuple(_line(shrunk, at) for at in range(len(shrunk.positions))),
        arrived=tuple(_arrived(shrunk)),
        missing=tuple(_missing(explored, shrunk)),
        fixes=tuple(line for fix in fixes for line in (f"{fix}", *_by(fix, shrunk)))
        or ("no single barrier, release, read-back or memory type is enough",),
        rules=tuple(_rules(shrunk)),
        extent=explored.extent,
        verdict=explored.verdict,
        seed=explored.setup.seed,
        made=tuple(_label(effect, shrunk) for effect in effects),
        blocks=tuple(tuple(_label(effects[index], shrunk) for index in bits(block)) for block in shrunk.behaviour),
        astray=frozenset(_label(effects[index], shrunk) for pair in shrunk.missing for index in pair),
        timeline=_timeline(explored, shrunk, named),
        notes=(*effects.notes, *explored.setup.rules.notes, *_of_link(explored.setup.profile)),
    )


def _timeline(explored: Found, shrunk: Shrunk, named: str) -> Timeline:
    setup = explored.setup
    link = setup.profile.link if setup.profile else DEFAULT_LINK
    subtitle = f"a legal order of arrival that breaks it, from {explored.extent}; seed {setup.seed}"
    effects, names = shrunk.order.effects, [*map(str, shrunk.positions)]
    return draw(effects, shrunk.behaviour, link, setup.device, title=named, subtitle=subtitle, names=names)


def _of_link(profile: Profile | None) -> Iterator[str]:
    """What is not the memory type's doing."""
    if profile is not None and profile.link.relaxed:
        yield f"Needs RO: the link of profile {profile.name} sets Relaxed Ordering [P] 2.4.1."
    if profile is not None and profile.link.merging:
        yield f"Needs a host bridge that merges writes to prefetchable BARs: profile {profile.name} [P] 7.5.1.2.1."


def _line(shrunk: Shrunk, at: int) -> Line:
    event = shrunk.program.events[at]
    label = str(shrunk.positions[at])
    if event.barrier is not None or event.kind is Kind.DGH:
        return Line(label, str(event.barrier or "dgh"), "", _idle(event, shrunk.order))
    what = f"{_named(event)} {_place(event, event.offset)} {event.size}"
    if event.data:
        what += f" = {int.from_bytes(event.data, 'little'):#x}"
    if len({each.vcpu for each in shrunk.program.events}) > 1:
        what = f"{'device' if event.vcpu == DEVICE else f'vCPU {event.vcpu}'}: {what}"
    if event.vcpu == DEVICE:
        return Line(
            label,
            what,
            "posted",
            "one by one, in order [P] 2.4.1" if POSTED in shrunk.order.rules.all() else "in any order",
        )
    return Line(label, what, type_name(event.type), _permits(event))


_ORDERED = {Flag.RELEASE: "release", Flag.ACQUIRE: "acquire", Flag.ACQUIRE_PC: "acquire-pc"}
_MORE = {
    Flag.EXCLUSIVE: "exclusive",
    Flag.PAIR: "pair",
    Flag.STRUCTURE: "structure",
    Flag.SVE: "SVE",
    Flag.MOPS: "MOPS",
}


def _named(event: Event) -> str:
    """As in `store`, `load-acquire`, `pair store`."""
    before = [name for flag, name in _MORE.items() if event.flags & flag]
    behind = [name for flag, name in _ORDERED.items() if event.flags & flag]
    return " ".join([*before, "-".join([event.kind.name.lower(), *behind])])


def _place(event: Event, offset: int) -> str:
    if event.bar is None:
        return "msi" if offset == MSI_ADDRESS else f"ram+{offset:#x}"
    return f"bar{event.bar}+{offset:#x}"


def _permits(event: Event) -> str:
    """What the type permits of such an access, in a few words."""
    if event.type is None:
        return "may be anything"
    found = [done for done, able in (("gathered", event.type.gathering), ("reordered", event.type.reordering)) if able]
    if event.kind is Kind.LOAD and event.type.speculation:
        found.append("speculated")
    return "may be " + ", ".join(found) if found else "one by one, in order with its like"


def _idle(event: Event, order: Order) -> str:
    """Why a barrier does not order what arrives at a device; empty when it does."""
    if event.kind is Kind.DGH:
        return "a hint: orders nothing [A] C6.2 DGH"
    barrier = event.barrier
    assert barrier is not None
    if barrier.kind in (BarrierKind.ISB, BarrierKind.SB):
        return "orders no accesses [A] B2.3.12"
    if barrier.domain not in order.rules.model.domains:
        return "orders nothing at a device, which is Outer Shareable [M] B2.10"
    return ""


def _label(effect: Effect, shrunk: Shrunk) -> str:
    """The position of its event; where that has several effects, which of them."""
    parts = [each.index for each in shrunk.order.effects if each.position == effect.position]
    position = shrunk.positions[effect.position]
    return f"{position}" if len(parts) == 1 else f"{position}.{parts.index(effect.index)}"


def _arrived(shrunk: Shrunk) -> Iterator[str]:
    effects = shrunk.order.effects
    failed = {each.position: each for each in shrunk.failed}
    for block in shrunk.behaviour:
        members = [effects[index] for index in bits(block)]
        places = ", ".join(f"{each.op.value} {_place(each.event, each.offset)} {each.size}" for each in members)
        made = " (speculative)" if members[0].event.kind is Kind.SPECULATIVE else ""
        labels = " + ".join(_label(each, shrunk) for each in members)
        ends = "".join(f"; {failed[each.position]}" for each in members[:1] if each.position in failed)
        yield f"{labels}: {places}{made}{', as one' if len(members) > 1 else ''}{ends}"
    for each in effects:
        if not each.optional and not sum(shrunk.behaviour) & each.bit:
            yield f"{_label(each, shrunk)}: never, the load was answered from a write buffer"


def _missing(explored: Found, shrunk: Shrunk) -> Iterator[str]:
    effects = shrunk.order.effects
    if not explored.expected:
        yield "nothing: the program breaks it in its own order too, so that no order is to blame"
        return
    for first, second in shrunk.missing:
        one, two = effects[first], effects[second]
        gathered = any(block & one.bit and block & two.bit for block in shrunk.behaviour)
        names = f"{_label(one, shrunk)} before {_label(two, shrunk)}"
        yield f"{names}: {_nothing_orders(one, two, gathered)}"
    surplus = [e for e in effects if e.optional and sum(shrunk.behaviour) & e.bit]
    for each in surplus:
        yield f"nothing forbids the speculative read {_label(each, shrunk)} of {type_name(each.type)} [A] B2.10.1"
    ordinary = sum(in_program_order(effects))
    if ordinary & ~sum(shrunk.behaviour):
        yield "nothing has the load reach the device: its type permits an answer from the buffer [A] B2.10.2.1"


def _nothing_orders(one: Effect, two: Effect, gathered: bool) -> str:
    """Why the first need not arrive before the second."""
    if one.by_device:
        return "the device's write may still be on its way; nothing that comes behind it is waited for [P] 2.4.1"
    if one.vcpu != two.vcpu:
        return "nothing orders two vCPUs but what one of them waits for [A] B2.3"
    if one.in_ram:
        return "the device reads memory when the doorbell arrives; no barrier that counts is between [A] B2.3"
    if two.in_ram and one.writes:
        return "no barrier waits until a posted write has arrived; only a read-back does [A] B2.10.2.3"
    if one.place != two.place:
        return "at different peripherals only a read-back and a DSB order them [A] B2.4.1.1"
    if gathered:
        return "both types permit gathering, and no barrier that counts is between [A] B2.10.2.1"
    loose = [type_name(each.type) for each in (one, two) if each.type is None or each.type.reordering]
    if len(loose) == 1:
        strict = next(type_name(e.type) for e in (one, two) if e.type is not None and not e.type.reordering)
        why = f"{strict} is in order with its like, not with {loose[0]}"
    else:
        why = f"{loose[0]} permits reordering" if loose[0] == loose[1] else f"{' and '.join(loose)} permit reordering"
    return f"{why}; no barrier that counts is between [A] B2.10.2.2"


def _rules(shrunk: Shrunk) -> Iterator[str]:
    """By which rules the other accesses are in order."""
    order = shrunk.order
    for first, second in combinations(order.effects, 2):
        direct = order.explain(first.index, second.index)
        if len(direct) == 1:
            rule = direct[0].rule
            names = f"{_label(first, shrunk)} {'not after' if rule.weak else 'before'} {_label(second, shrunk)}"
            yield f"{names}: {rule}"


def _by(fix: Fix, shrunk: Shrunk) -> Iterator[str]:
    """The rules by which a fix supplies the first of the missing edges."""
    for pair in shrunk.missing[:1]:
        order = Order(fix.shrunk, shrunk.order.rules)
        first, second = (_again(shrunk.order.effects[index], order.effects) for index in pair)
        if first is not None and second is not None:
            for edge in order.explain(first, second):
                yield f"    by {edge.rule}"


def _again(effect: Effect, among: Effects) -> int | None:
    """The same effect in a changed program: events keep their sequence numbers."""
    same = [e.index for e in among if e.event.sequence == effect.event.sequence and e.offset == effect.offset]
    return same[0] if len(same) == 1 else None
