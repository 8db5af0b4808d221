"""The outcomes of a litmus program by the rules of arrival.

A behaviour is an order in which the threads' effects arrive; the observer's accesses come anywhere between, in their
own order. A load returns what is there when it arrives. One that never arrives is answered by the store before it, or
by a load between the two that did arrive.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyvfio_user.bridge.attributes import GRE, NGNRE, NGNRNE, NGRE, NORMAL_NC, MemoryType
from pyvfio_user.bridge.interconnect.behaviours import Behaviour, behaviours
from pyvfio_user.bridge.interconnect.order import bits
from pyvfio_user.bridge.interconnect.program import (
    Dependency,
    DependencyKind,
    Part,
    Program,
    dmb,
    dsb,
    isb,
    load,
    on_vcpu,
    ram_load,
    ram_store,
    store,
)
from pyvfio_user.bridge.interconnect.rules import RULES, Rules
from pyvfio_user.bridge.stream import Flag

from .litmus import LOCATIONS, RAM, Access, Branch, Fence, Litmus, Outcome, flag_pair, read_flag, stored

TYPES: dict[str, MemoryType] = {"nGnRnE": NGNRNE, "nGnRE": NGNRE, "nGRE": NGRE, "GRE": GRE, "NC": NORMAL_NC}
_FLAGS = {"": Flag.NONE, "acquire": Flag.ACQUIRE, "acquire-pc": Flag.ACQUIRE_PC, "release": Flag.RELEASE}
_KINDS = {"address": DependencyKind.ADDRESS, "data": DependencyKind.DATA}

Accesses = list[tuple[str, int, Access]]
"""In program order, thread by thread: the name of what it loads (`0:1`), what it stores, and the access."""


def outcomes(litmus: Litmus, kind: str = RAM, rules: Rules = RULES) -> frozenset[Outcome]:
    """All outcomes that the rules permit; `kind` is the type of the locations of which the program says none."""
    types = dict(litmus.types)
    program, accesses = _program(litmus, {at: types.get(at, kind) for at in LOCATIONS})
    observer: Accesses = [
        (f"{len(litmus.threads)}:{number}", stored(len(litmus.threads), number), access)
        for number, access in enumerate(litmus.observer)
    ]
    found: set[Outcome] = set()
    for behaviour in behaviours(program, rules):
        arrived = [[accesses[index] for index in bits(block)] for block in behaviour]
        answered = _answered(behaviour, accesses)
        for state in _interleaved(arrived, observer, dict.fromkeys(litmus.locations, 0)):
            for name, source in answered.items():
                state[name] = source if isinstance(source, int) else state[source]
            if read_flag(litmus, state):
                found.add(tuple(sorted(state.items())))
    return frozenset(found)


def _answered(behaviour: Behaviour, accesses: Accesses) -> dict[str, int | str]:
    """Of each load that does not arrive, the value of the store, or the name of the load, that answers it."""
    found: dict[str, int | str] = {}
    present = sum(behaviour)
    for index, (name, _, access) in enumerate(accesses):
        if present >> index & 1:
            continue
        thread = name.partition(":")[0]
        for at in range(index - 1, -1, -1):
            other, value, earlier = accesses[at]
            if other.partition(":")[0] == thread and earlier.at == access.at and present >> at & 1:
                found[name] = value if earlier.writes else other
                break
    return found


def _interleaved(arrived: list[Accesses], observer: Accesses, memory: dict[str, int]) -> Iterator[dict[str, int]]:
    """The final states of every merging of the two."""
    if not arrived and not observer:
        yield dict(memory)
    if arrived:
        yield from _interleaved(arrived[1:], observer, _done(arrived[0], memory))
    if observer:
        yield from _interleaved(arrived, observer[1:], _done(observer[:1], memory))


def _done(block: Accesses, memory: dict[str, int]) -> dict[str, int]:
    after = dict(memory)
    for name, value, access in block:
        if access.writes:
            after[access.at] = value
        else:
            after[name] = after[access.at]
    return after


def _program(litmus: Litmus, types: dict[str, str]) -> tuple[Program, Accesses]:
    parts: list[Part] = []
    accesses: Accesses = []
    dependencies: list[Dependency] = []
    places: dict[tuple[int, int], int] = {}
    for thread, steps in enumerate(litmus.threads):
        branches: list[int] = []
        number = 0
        for step in steps:
            if isinstance(step, Branch):
                branches.append(step.on)
                continue
            if isinstance(step, Fence):
                parts.append(on_vcpu(thread, _fence(step.text)))
                continue
            places[thread, number] = len(parts)
            if step.needs:
                dependencies.append(Dependency(places[thread, step.on], len(parts), _KINDS[step.needs]))
            dependencies += [Dependency(places[thread, on], len(parts), DependencyKind.CONTROL) for on in branches]
            parts.append(on_vcpu(thread, _part(step, types[step.at], stored(thread, number))))
            accesses.append((f"{thread}:{number}", stored(thread, number), step))
            number += 1
    reads_from = [tuple(places[place] for place in flag_pair(litmus))] if litmus.flag else []
    return Program.of(*parts, dependencies=dependencies, reads_from=[(a, b) for a, b in reads_from]), accesses


def _fence(text: str) -> Part:
    name, _, option = text.partition(" ")
    return isb() if name == "isb" else (dmb if name == "dmb" else dsb)(option)


def _part(access: Access, kind: str, value: int) -> Part:
    offset, flags = 8 * LOCATIONS.index(access.at), _FLAGS[access.flavour]
    if kind == RAM:
        return ram_store(offset, 4, value, flags=flags) if access.writes else ram_load(offset, 4, flags=flags)
    type = TYPES[kind]
    return store(offset, 4, value, type=type, flags=flags) if access.writes else load(offset, 4, type=type, flags=flags)
