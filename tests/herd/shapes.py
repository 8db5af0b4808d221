"""`python -m tests.herd.shapes` writes the tables of the classical shapes into bridge/interconnect/README.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .litmus import RAM, Litmus, Outcome, stored
from .outcomes import outcomes
from .programs import ALL, TYPES, Link, made, relayed

README = Path(__file__).parents[2] / "bridge/interconnect/README.md"
BEGIN, END = "<!-- made by python -m tests.herd.shapes -->\n", "<!-- until here -->\n"
ROWS: Mapping[str, str] = {
    "po": "nothing",
    **{f"{kind}-{option}": f"{kind.upper()} {option.upper()}"
       for kind in ("dmb", "dsb") for option in ("st", "ld", "sy")},
    "dmb-oshst": "DMB OSHST",
    "dmb-ishst": "DMB ISHST",
    "isb": "ISB",
    "addr": "address dependency",
    "data": "data dependency",
    "ctrl": "control dependency",
    "ctrl-isb": "control dependency, ISB",
    "acquire": "first is LDAR",
    "acquire-pc": "first is LDAPR",
    "release": "second is STLR",
    "release-acquire": "STLR, then LDAR",
}  # fmt: skip
"""The links that the tables show, and what they call them."""
EACH = tuple((kind, kind) for kind in (*TYPES, RAM))
DOORBELLS = ((RAM, "nGnRE"), ("NC", "nGnRE"), ("GRE", "nGnRE"), ("nGRE", "nGnRE"), ("NC", "nGnRnE"), (RAM, "NC"))


@dataclass(frozen=True)
class Shape:
    """A shape: what it shows, its programs by link and types, and what each of some loads returns when it is seen."""

    title: str
    text: str
    program: Callable[..., Iterator[Litmus]]
    seen: Mapping[str, int]
    columns: tuple[tuple[str, str], ...] = EACH

    def cells(self) -> Iterator[tuple[Link, tuple[str, str], Litmus]]:
        """The programs of the table."""
        for link in ALL:
            if link.name in ROWS:
                for types in self.columns:
                    for litmus in self.program(link, *types):
                        yield link, types, litmus

    def allowed(self, among: frozenset[Outcome]) -> bool:
        """Whether the outcome that gives the shape its name is one of these."""
        return any(self.seen.items() <= dict(outcome).items() for outcome in among)


def _of_one_thread(kinds: str) -> Callable[..., Iterator[Litmus]]:
    return lambda link, *types: made(kinds, "xy", (link,), *types)


SHAPES = (
    Shape(
        "Message passing (MP)",
        "Two stores; the device sees the second and not the first.",
        _of_one_thread("WW"),
        {"1:0": stored(0, 1), "1:1": 0},
    ),
    Shape(
        "Payload and doorbell",
        "The same with two types, of payload and doorbell: the device sees the doorbell and not the payload.",
        _of_one_thread("WW"),
        {"1:0": stored(0, 1), "1:1": 0},
        DOORBELLS,
    ),
    Shape(
        "Store buffering (SB)",
        "A store, and a load of another register; the load returns what was there before the device changed it, and "
        "when it had, the store was not yet there.",
        _of_one_thread("WR"),
        {"0:1": 0, "1:1": 0},
    ),
    Shape(
        "Load buffering (LB)",
        "A load, and a store to another register; the load returns what the device put there because of the store.",
        _of_one_thread("RW"),
        {"0:0": stored(1, 1), "1:0": stored(0, 1)},
    ),
    Shape(
        "Write-to-read causality (WRC)",
        "One vCPU stores; another loads that, then stores; the device sees the second store and not the first. "
        "The link is between that load and store.",
        relayed,
        {"1:0": stored(0, 0), "2:0": stored(1, 1), "2:1": 0},
    ),
)


def table(shape: Shape) -> str:
    """One shape's table: a row a link, a column a type."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for link, types, litmus in shape.cells():
        found.setdefault(link.name, {})[types] = "allowed" if shape.allowed(outcomes(litmus)) else "forbidden"
    heads = [one if one == two else f"{one}, {two}" for one, two in shape.columns]
    ruler = "|---" * (len(heads) + 1) + "|"
    lines = [f"### {shape.title}", "", shape.text, "", f"| between the two | {' | '.join(heads)} |", ruler]
    for name in ROWS:
        if name in found:
            lines.append(f"| {ROWS[name]} | {' | '.join(found[name][types] for types in shape.columns)} |")
    return "\n".join([*lines, ""])


def tables() -> str:
    """All that is generated."""
    return "\n".join(table(shape) for shape in SHAPES)


def written(text: str) -> str:
    """A text with the generated part made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
