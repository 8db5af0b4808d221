"""The litmus programs, in families: every kind of link between two accesses, chains of two and three, one location."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from .litmus import RAM, Access, Branch, Fence, Flavour, Litmus, Step

OPTIONS = ("sy", "st", "ld", "osh", "oshst", "oshld", "ish", "ishst", "ishld", "nsh", "nshst", "nshld")


@dataclass(frozen=True)
class Link:
    """What is between two accesses, and what it makes of them. `first`, `second`: "R" or "W", where it needs one."""

    name: str
    fence: str = ""
    needs: str = ""
    before: Flavour = ""
    after: Flavour = ""
    first: str = "RW"
    second: str = "RW"

    def fits(self, first: Access, second: Access) -> bool:
        """Whether there can be such a link between the two."""
        return "RW"[first.writes] in self.first and "RW"[second.writes] in self.second


FENCES = tuple(Link(f"{kind}-{option}", f"{kind} {option}") for kind in ("dmb", "dsb") for option in OPTIONS)
NOTHING = Link("po")
DEPENDENCIES = (
    Link("addr", needs="address", first="R"),
    Link("data", needs="data", first="R", second="W"),
    Link("ctrl", needs="control", first="R"),
    Link("ctrl-isb", "isb", needs="control", first="R"),
)
ORDERED = (
    Link("acquire", before="acquire", first="R"),
    Link("acquire-pc", before="acquire-pc", first="R"),
    Link("release", after="release", second="W"),
    Link("release-acquire", before="release", after="acquire", first="W", second="R"),
)
UNORDERED = (
    Link("release-first", before="release", first="W", second="W"),
    Link("acquire-second", after="acquire", second="R"),
    Link("release-acquire-pc", before="release", after="acquire-pc", first="W", second="R"),
)
ISB = Link("isb", "isb")
ALL = (NOTHING, ISB, *FENCES, *DEPENDENCIES, *ORDERED, *UNORDERED)
BARRIERS = tuple(link for link in FENCES if link.fence in ("dmb sy", "dmb st", "dmb ld"))
COMPLETING = tuple(link for link in FENCES if link.fence in ("dsb sy", "dsb st", "dsb ld"))
SOME = (NOTHING, ISB, *BARRIERS, *DEPENDENCIES[:3], ORDERED[0], ORDERED[2])
STRONG = (NOTHING, BARRIERS[0], DEPENDENCIES[0], ORDERED[0], ORDERED[2])


PAIRS = ("WW", "WR", "RW", "RR")


def chain(kinds: str, places: Sequence[str], links: Sequence[Link]) -> tuple[Step, ...] | None:
    """Accesses (`RWR`) of these places with links between them; None if one does not fit."""
    accesses = [Access(kind == "W", at) for kind, at in zip(kinds, places, strict=True)]
    for number, link in enumerate(links):
        first, second = accesses[number], accesses[number + 1]
        if not link.fits(first, second):
            return None
        if link.needs in ("address", "data"):
            second = replace(second, needs="address" if link.needs == "address" else "data", on=number)
        accesses[number] = replace(first, flavour=link.before or first.flavour)
        accesses[number + 1] = replace(second, flavour=link.after or second.flavour)
    steps: list[Step] = [accesses[0]]
    for number, link in enumerate(links):
        steps += [Branch(number)] if link.needs == "control" else []
        steps += [Fence(link.fence)] if link.fence else []
        steps.append(accesses[number + 1])
    return tuple(steps)


def observer(kinds: str, places: Sequence[str]) -> tuple[Access, ...]:
    """Of each access the opposite, last one first: what shows whether they arrived in order."""
    return tuple(Access(kind == "R", at) for kind, at in reversed(list(zip(kinds, places, strict=True))))


def made(kinds: str, places: Sequence[str], links: Sequence[Link], *types: str) -> Iterator[Litmus]:
    """One thread; `types` of its locations in alphabetical order."""
    steps = chain(kinds, places, links)
    if steps is not None:
        typed = tuple(zip(sorted(set(places)), types, strict=True)) if types else ()
        yield Litmus(_name(kinds, places, links, types), (steps,), observer(kinds, places), typed)


def _name(kinds: str, places: Sequence[str], links: Sequence[Link], types: Sequence[str]) -> str:
    accesses = (kind + place for kind, place in zip(kinds, places, strict=True))
    return "-".join([*accesses, *(link.name for link in links), *types])


def pairs() -> Iterator[Litmus]:
    """Two accesses with each link: MP, SB, LB and their mirrors."""
    for kinds, link in product(PAIRS, ALL):
        yield from made(kinds, "xy", (link,))


def triples() -> Iterator[Litmus]:
    """Three accesses with two links."""
    for kinds, first, second in product(map("".join, product("RW", repeat=3)), SOME, SOME):
        yield from made(kinds, "xyz", (first, second))


SHARED = (
    ("WRW", "xxy"), ("WRR", "xxy"), ("WWW", "xxy"), ("RRW", "xxy"), ("WWR", "xyx"), ("RWR", "xyy")
)  # fmt: skip
"""Kinds and places of programs that access one location twice."""


def one_location() -> Iterator[Litmus]:
    """Stores and loads of one location among others: coherence, and loads that a store may answer."""
    for kinds in PAIRS:
        yield from made(kinds, "xx", (NOTHING,))
    for (kinds, places), first, second in product(SHARED, STRONG, STRONG):
        yield from made(kinds, places, (first, second))
    data, address = DEPENDENCIES[1], DEPENDENCIES[0]
    for kinds, last in product(("RWRR", "RWRW", "RRRR", "RRRW"), (address, data, ORDERED[0])):
        for first in (address, data, BARRIERS[0]):
            for litmus in made(kinds, "xyyz", (first, NOTHING, last)):
                yield replace(litmus, observer=tuple(access for access in litmus.observer if access.at != "y"))


def quadruples() -> Iterator[Litmus]:
    """Four accesses with three links, some of the many: every 61st."""
    found = (
        litmus
        for kinds, *links in product(map("".join, product("RW", repeat=4)), SOME[:1] + SOME[2:], STRONG, SOME)
        for litmus in made(kinds, "xyzw", links)
    )
    yield from islice(found, 0, None, 61)


TOLD = (NOTHING, BARRIERS[0], ORDERED[0], ORDERED[2])


def flagged(kinds: Sequence[str], links: Sequence[Link], *types: str) -> Iterator[Litmus]:
    """ISA2: one thread tells another by a flag in memory; `types` of the two other locations."""
    for pair, first, second in product(kinds, links, links):
        writer = chain(pair[0] + "W", "xf", (first,))
        reader = chain("R" + pair[1], "fy", (second,))
        if writer and reader:
            typed = (*zip("xy", types, strict=True), ("f", RAM)) if types else ()
            name = "-".join(["flag", f"{pair[0]}x", first.name, f"{pair[1]}y", second.name, *types])
            yield Litmus(name, (writer, reader), observer(pair, "xy"), typed, flag="f")


def programs() -> list[Litmus]:
    """All programs that say no types: for the stock model, in which all is memory."""
    return [
        *pairs(),
        *triples(),
        *one_location(),
        *quadruples(),
        *flagged(PAIRS, (*TOLD, *BARRIERS[1:], DEPENDENCIES[0])),
    ]


TYPES = ("nGnRnE", "nGnRE", "nGRE", "GRE", "NC")
MIXED = (
    *(("NC", "nGnRE"), ("nGnRE", "NC"), ("nGRE", "nGnRE"), ("nGnRnE", "nGRE"), ("GRE", "nGnRnE"), ("NC", "GRE")),
    *((RAM, "nGnRE"), (RAM, "NC"), ("NC", RAM), ("nGnRE", RAM)),
)
"""Types of two locations, such as of a payload and its doorbell."""


def relayed(link: Link, *types: str) -> Iterator[Litmus]:
    """WRC: the second thread reads what the first stored, and then stores."""
    steps = chain("RW", "xy", (link,))
    if steps:
        typed = tuple(zip("xy", types, strict=True))
        yield Litmus("-".join(["relay", link.name, *types]), ((Access(True, "x"),), steps), observer("WW", "xy"), typed)


def typed_programs() -> list[Litmus]:
    """All programs that say the types of their locations: for peripheral arrival order."""
    links = (NOTHING, *BARRIERS, *DEPENDENCIES, *ORDERED)
    found: list[Litmus] = []
    for types in (*((each, each) for each in TYPES), *MIXED):
        for kinds, link in product(PAIRS, (*links, *(COMPLETING if types[0] == types[1] else ()))):
            # The observer's own write to a device would have to be ordered before its access to memory.
            if not (types[0] == RAM and kinds[1] == "R"):
                found += made(kinds, "xy", (link,), *types)
    for each, (kinds, places), link in product(("nGRE", "NC"), SHARED, STRONG[:3]):
        found += made(kinds, places, (NOTHING, link), each, each)
    for each, link in product(("nGRE", "NC"), (*STRONG, BARRIERS[2], *DEPENDENCIES[1:3])):
        found += relayed(link, each, each)
    found += flagged(("WW",), TOLD, "NC", "NC")
    return found
