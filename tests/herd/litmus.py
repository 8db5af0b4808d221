"""Litmus programs: as text for herd7, and what herd7 says of them.

The last thread is the observer, which stands for the device: its accesses are in program order, by DMB SY.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyvfio_user.guest.provision.herd import Herd

Flavour = Literal["", "acquire", "acquire-pc", "release"]
Outcome = tuple[tuple[str, int], ...]
"""What the loads returned, by thread and number, and what each location holds in the end; sorted."""

LOCATIONS = "xyzwf"
RAM = "RAM"
ATTRIBUTES = {
    "nGnRnE": "Device-nGnRnE",
    "nGnRE": "Device-nGnRE",
    "nGRE": "Device-nGRE",
    "GRE": "Device-GRE",
    "NC": "Normal,Outer-shareable,Inner-non-cacheable,Outer-non-cacheable",
}
"""How a litmus program says each type."""
_MNEMONICS = {"acquire": "LDAR", "acquire-pc": "LDAPR", "release": "STLR"}


@dataclass(frozen=True)
class Access:
    """A load or store of a location; `needs` and `on`: a dependency, on that load of the same thread."""

    writes: bool
    at: str
    flavour: Flavour = ""
    needs: Literal["", "address", "data"] = ""
    on: int = 0


@dataclass(frozen=True)
class Fence:
    """A barrier, as an assembler has it: `dmb oshst`, `isb`."""

    text: str


@dataclass(frozen=True)
class Branch:
    """A conditional branch on what access `on` of the thread returned: the accesses behind it depend on that."""

    on: int


Step = Access | Fence | Branch


@dataclass(frozen=True)
class Litmus:
    """One program. `types` of locations; none of them: all is plain memory, and so is a location without one.

    `flag`: a location in memory by which threads before the observer talk: only outcomes in which its load returned
    what was stored are looked at.
    """

    name: str
    threads: tuple[tuple[Step, ...], ...]
    observer: tuple[Access, ...]
    types: tuple[tuple[str, str], ...] = ()
    flag: str = ""

    @property
    def all_threads(self) -> tuple[tuple[Step, ...], ...]:
        """The observer among them, last."""
        fenced: list[Step] = []
        for access in self.observer:
            fenced += [Fence("dmb sy"), access]
        return (*self.threads, tuple(fenced[1:]))

    @property
    def locations(self) -> list[str]:
        """What it accesses."""
        return sorted({step.at for thread in self.all_threads for step in thread if isinstance(step, Access)})

    def text(self) -> str:
        """As herd7 reads it."""
        init = [f"[PTE({at})]=(oa:PA({at}), attrs:({ATTRIBUTES[kind]}));" for at, kind in self.types if kind != RAM]
        columns = []
        for number, thread in enumerate(self.all_threads):
            init += [f"{number}:X{1 + LOCATIONS.index(at)}={at};" for at in self.locations]
            columns.append([f"P{number}", *_code(thread, number)])
        height = max(map(len, columns))
        rows = zip(*(column + [""] * (height - len(column)) for column in columns), strict=True)
        seen = [f"{thread}:X{10 + load};" for thread, load in self.loads()]
        return "\n".join(
            [
                f"AArch64 {self.name}",
                "{",
                *init,
                "}",
                *(" " + " | ".join(row) + " ;" for row in rows),
                f"locations [{' '.join(seen)} {' '.join(f'{at};' for at in self.locations)}]",
                "forall (true)",
                "",
            ]
        )

    def loads(self) -> Iterator[tuple[int, int]]:
        """Thread and number, among its accesses, of each load."""
        for number, thread in enumerate(self.all_threads):
            accesses = [step for step in thread if isinstance(step, Access)]
            yield from ((number, index) for index, access in enumerate(accesses) if not access.writes)


def stored(thread: int, access: int) -> int:
    """What a store stores: a value of its own."""
    return 16 * thread + access + 1


def _code(steps: Sequence[Step], thread: int) -> Iterator[str]:
    access = 0
    for number, step in enumerate(steps):
        if isinstance(step, Fence):
            yield step.text.upper()
        elif isinstance(step, Branch):
            yield f"CBNZ W{10 + step.on},L{thread}{number}"
            yield f"L{thread}{number}:"
        else:
            yield from _access(step, access, stored(thread, access))
            access += 1


def _access(step: Access, number: int, value: int) -> Iterator[str]:
    zero, address, register = f"W{20 + number}", f"X{1 + LOCATIONS.index(step.at)}", f"W{10 + number}"
    if step.needs:
        yield f"EOR {zero},W{10 + step.on},W{10 + step.on}"
    if step.writes:
        yield f"ADD {register},{zero},#{value}" if step.needs == "data" else f"MOV {register},#{value}"
    if step.needs == "address":
        yield f"ADD X{20 + number},{address},{zero},SXTW"
        address = f"X{20 + number}"
    mnemonic = _MNEMONICS.get(step.flavour, "STR" if step.writes else "LDR")
    yield f"{mnemonic} {register},[{address}]"


def run(herd: Herd, programs: Iterable[Litmus], folder: Path, *options: str) -> dict[str, frozenset[Outcome]]:
    """All programs in one run of herd7; the outcomes of each, by name. An error or a warning of herd7 is raised."""
    by_name = {program.name: program for program in programs}
    files = []
    for name, program in by_name.items():
        files.append(folder / f"{name}.litmus")
        files[-1].write_text(program.text())
    index = folder / "@all"
    index.write_text("".join(f"{path}\n" for path in files))
    done = subprocess.run([herd.path, *options, index], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode or done.stderr.strip():
        raise RuntimeError(f"herd7 must run all programs, not say {done.stderr[-2000:]}")
    found = {name: frozenset(_kept(by_name[name], states)) for name, states in _answers(done.stdout)}
    if found.keys() != by_name.keys():
        raise RuntimeError(f"herd7 must answer for every program, not leave out {by_name.keys() - found.keys()}")
    return found


def _answers(text: str) -> Iterator[tuple[str, list[str]]]:
    for answer in re.split(r"^Test ", text, flags=re.M)[1:]:
        lines = answer.splitlines()
        count = int(lines[1].removeprefix("States "))
        yield lines[0].split()[0], lines[2 : 2 + count]


def _kept(program: Litmus, states: Iterable[str]) -> Iterator[Outcome]:
    for state in states:
        outcome = tuple(sorted((_named(place), int(value, 0)) for place, value in re.findall(r"(\S+?)=(\w+);", state)))
        if read_flag(program, dict(outcome)):
            yield outcome


def _named(place: str) -> str:
    """`1:X10`: load 0 of thread 1; `[x]`: the location."""
    if place.startswith("["):
        return place.strip("[]")
    thread, register = place.split(":X")
    return f"{thread}:{int(register) - 10}"


def read_flag(program: Litmus, outcome: dict[str, int]) -> bool:
    """Whether the flag's load, if there is a flag, returned what was stored there."""
    if not program.flag:
        return True
    (writer, store), (reader, load) = flag_pair(program)
    return outcome[f"{reader}:{load}"] == stored(writer, store)


def flag_pair(program: Litmus) -> tuple[tuple[int, int], tuple[int, int]]:
    """Thread and number of the flag's store and of its load."""
    places = {
        access.writes: (thread, number)
        for thread, steps in enumerate(program.threads)
        for number, access in enumerate(step for step in steps if isinstance(step, Access))
        if access.at == program.flag
    }
    return places[True], places[False]
