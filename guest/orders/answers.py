"""Rows of the scorecard that rest on the orders: modelled all of them, each with the programs that say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...bridge.attributes import MemoryType
from ..layout import LAYOUT
from ..results import Matrix
from .programs import BARRIERS
from .results import Ordering, OrderPair, Orders, SpeculativeRead

_WC_SAFE = tuple(where.name for where in LAYOUT.ranges if where.wc_safe)
_SIDE_EFFECTS = tuple(where.name for where in LAYOUT.ranges if where.read_side_effects)
_BURST, _NEON = "8 x STR x", "ST1"


@dataclass(frozen=True)
class _Of:
    """What a row looks at: of one scheme, under the newest setting of FWB, what the VMM that asks has."""

    orders: Orders
    pairs: tuple[OrderPair, ...]
    """Of a guest's payloads in ranges that stand write-combining."""
    reads: tuple[SpeculativeRead, ...]


Found = tuple[Any, str, Sequence[str]]
"""An answer: its value, a line for people, and the programs."""


def host_speculation(of: _Of) -> Found:
    """Question 4, asked of the model."""
    reads = [each for each in of.reads if each.who == "host"]
    wrong = [each for each in reads if each.reading]
    value = {
        "all_ranges": not wrong,
        "side_effect_registers": not any(each.range in _SIDE_EFFECTS for each in wrong),
    }
    detail = f"read through the host's mapping in some legal behaviour: {_listed(each.range for each in wrong)}"
    return value, detail, [_said(each) for each in wrong or reads]


def side_effects(of: _Of) -> Found:
    """Question 11, asked of the model."""
    reads = [each for each in of.reads if each.range in _SIDE_EFFECTS]
    wrong = [each for each in reads if each.reading]
    value = {f"by_{who}": any(each.who == who for each in wrong) for who in ("host", "guest")}
    through = (f"{each.range} by the {each.who} as {_name(each.type)}" for each in wrong)
    return value, f"read though nobody asked: {_listed(through)}", [_said(each) for each in wrong or reads]


def one_tlp(of: _Of) -> Found:
    """What chance a 64-byte burst has, at best."""
    value: dict[str, str] = {}
    programs = []
    for idiom in (_BURST, _NEON):
        rows = [(pair, row) for pair in of.pairs for row in pair.rows if row.idiom == idiom and row.barrier == "none"]
        pair, best = max(rows, key=lambda each: (each[1].one_tlp, each[1].whole), default=(None, None))
        value[idiom] = frequency(best.whole, of.orders.seeds, best.one_tlp) if best else "-"
        if best and pair:
            programs.append(f"{_program(pair, best)}: {value[idiom]} one TLP under {of.orders.profile}")
    return value, f"at best, of {of.orders.seeds:,} runs of profile {of.orders.profile}", programs


def doorbell_first(of: _Of) -> Found:
    """Which barriers let the doorbell overtake a payload of eight stores, under some type that the guest can have."""
    rows = [(pair, row) for pair in of.pairs for row in pair.rows if row.idiom == _BURST]
    early = {name: [pair for pair, row in rows if row.barrier == name and row.early] for name in BARRIERS}
    value = {name: bool(found) for name, found in early.items()}
    types = dict.fromkeys(_name(pair.payload) for found in early.values() for pair in found)
    programs = [f"{_program(pair, row)}: {_kept(row)}" for pair, row in rows]
    return value, f"the doorbell can overtake a payload of type: {_listed(types)}", programs


_ROWS: tuple[tuple[str, str, Callable[[_Of], Found]], ...] = (
    (
        "host-reads",
        "Does the host's mapping stay free of speculative reads, in every legal behaviour?",
        host_speculation,
    ),
    (
        "unasked-reads",
        "Is a register with side effects read though nobody asked, in some legal behaviour?",
        side_effects,
    ),
    ("one-tlp", "How often is a 64-byte burst one TLP, with the best type that the guest can have?", one_tlp),
    ("doorbell-first", "With which barriers can the doorbell overtake its payload?", doorbell_first),
)

QUESTIONS = {key: f"{text} (modelled)" for key, text, _ in _ROWS}
"""The rows in their order: key and text."""


def added(matrix: Matrix, orders: Orders) -> dict[str, dict[str, Any]]:
    """The scorecard with these rows, for the host with FWB if the run had it."""
    fwb = max((cell.fwb for cell in matrix.cells), default=1)
    card: dict[str, dict[str, Any]] = {}
    for scheme, answers in matrix.scorecard.items():
        keys = {
            cell.orders: None
            for cell in matrix.cells
            if (cell.scheme, cell.case, cell.fwb) == (scheme, "asking", fwb) and cell.range in _WC_SAFE and cell.orders
        }
        of = _Of(
            orders,
            tuple(orders.pairs[key] for key in keys),
            tuple(each for each in orders.reads if (each.scheme, each.case, each.fwb) == (scheme, "asking", fwb)),
        )
        card[scheme] = dict(answers)
        for number, (key, _, answer) in enumerate(_ROWS, len(answers) + 1):
            value, detail, programs = answer(of)
            card[scheme][key] = {
                "question": number,
                "text": QUESTIONS[key],
                "value": value,
                "detail": detail,
                "how": orders.how,
                "probes": [],
                "programs": list(dict.fromkeys(programs)),
            }
    return card


def frequency(count: int, seeds: int, possible: bool) -> str:
    """How often something came that the rules permit, or that it never does."""
    return f"{count / seeds:.1%}" if possible else "never"


def _kept(row: Ordering) -> str:
    return f"kept behind by {row.kept_by}" if row.kept_by else "overtakes in some legal behaviour"


def _program(pair: OrderPair, row: Ordering) -> str:
    between = "" if row.barrier == "none" else f"{row.barrier}, "
    return f"{row.idiom} as {_name(pair.payload)}, {between}STR w as {_name(pair.doorbell)}"


def _name(byte: str) -> str:
    return MemoryType.parse(byte).name


def _said(read: SpeculativeRead) -> str:
    how = f": {read.why}" if read.why else f"; the {read.who} has {read.range} as {_name(read.type)}"
    return f"{read.program}: {read.reading} of {read.legal} legal behaviours read it{how}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words)) or "none"
