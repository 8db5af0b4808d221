"""A mapping that changes while the virtual machine uses it: what its pages are then, and what of its stores came.

The guest pushes 64-byte entries through a window, and rings a doorbell for each; a second thread of the VMM's replaces
the window's mapping meanwhile, or the guest itself asks for another type between two entries. Every store must be at
the device that was made while the BAR was mapped, and no other; what lies beside the window must keep its descriptors.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...bridge.recorder import Transaction
from ...devices.probe_map import RANGES, Reg
from ..findings import Finding
from ..lanes.kvm import Backing, KvmLane
from ..layout import LAYOUT
from ..operation import PAGE
from ..plan import MAIR, Asked, Range, Status
from ..script import Action, Space, Step
from ..workload import ENTRY_SIZE, Barrier, Idiom, Pushed, Wish, Workload, entry
from .gdbstub import GdbStub
from .stage2 import Descriptor, read_tables
from .vmm import Vmm

_WINDOW = RANGES["wc-trapped"]
_PAGES = 4
_SLOTS = _PAGES * PAGE // ENTRY_SIZE
_BESIDE = (_WINDOW.offset - PAGE, _WINDOW.offset + _PAGES * PAGE)
"""The pages just before and just behind those that change."""
_ROUND = 2 * _SLOTS
"""Entries of one push: the guest is told to push again until all is seen."""
STEP = 8
"""Bytes of one store as it arrives: ST1 of four registers comes in eights, ascending."""
_POLL = 0.002
_GO, _DONE, _FAILED = 0x600, 0xD0E, 0xBAD
_PATIENCE = 30.0
JUST_THOSE = "stores at the device: just those made while it was mapped"
_UNCHANGED = "beside it: unchanged"
_NOT_RUN = "the guest's store: KVM_RUN -EFAULT"


@dataclass(frozen=True)
class State:
    """How the pages that change are mapped, or may be used: ``name`` for people, ``nibble`` stage 2, in hexadecimal.

    ``arrives``: whether stores reach the device. With `Backing.NONE`, which must be the last one, the guest's first
    store ends its loop, and it goes on with its next command.
    """

    name: str
    backing: Backing
    nibble: str
    arrives: bool = True
    ask: Asked = Asked.NOTHING
    wish: Wish = Wish.NONE
    """What the guest asks for to come there; none: the VMM maps the pages anew."""


async def change(lane: KvmLane, stub: GdbStub, cpu: str, states: Sequence[State]) -> Finding:
    """Map the window as the first of ``states``, then as each of the others, all while entries are pushed."""
    run = _Change(lane, stub, states)
    try:
        async with asyncio.timeout(_PATIENCE):
            observed = await run.run()
    except TimeoutError:
        observed = f"no end: {run.progress} entries"
    ended = [_NOT_RUN] if states[-1].backing is Backing.NONE else []
    wanted = [*(f"{state.name}: stage 2 {state.nibble}" for state in states), *ended, JUST_THOSE, _UNCHANGED]
    name = " -> ".join(state.name for state in states)
    return Finding.of(cpu, "change", f"{name}, while the guest pushes", "; ".join(wanted), observed)


class _Change:
    def __init__(self, lane: KvmLane, stub: GdbStub, states: Sequence[State]) -> None:
        self.lane, self.stub, self.states = lane, stub, states
        self.vmm = Vmm(lane.guest, lane.hello)
        self.pages = [lane.hello.physical(_WINDOW.bar, _WINDOW.offset + PAGE * index) for index in range(_PAGES)]
        self.beside = [lane.hello.physical(_WINDOW.bar, offset) for offset in _BESIDE]
        self.bounds: list[tuple[int, int]] = []
        self.log: list[Transaction] = []
        self.seen_all = False
        self.wish, self.granted_at = Wish.NONE, 0
        """What the guest is to ask for in its next push; the entry before which the last wish was granted."""

    @property
    def progress(self) -> int:
        """How many doorbells have rung."""
        return self.lane.probe.bar0.doorbell[0]

    def _range(self, state: State) -> Range:
        return Range(_WINDOW.bar, _WINDOW.offset, _PAGES, state.backing, 0, state.ask)

    async def run(self) -> str:
        """Change them; what was seen, in words."""
        whole = Range(0, 0, LAYOUT.bar(0).size // PAGE, Backing.DEVICE, 0)
        before, behind = (Range(_WINDOW.bar, offset, 1, Backing.DEVICE, 0) for offset in _BESIDE)
        await self.lane.guest.install([whole, before, self._range(self.states[0]), behind])
        silence = Step(Action.WRITE, Space.MMIO, 4, self.lane.hello.physical(0, Reg.DOORBELL), 0)
        await self.lane.guest.steps([silence, *(Step(Action.READ, Space.MMIO, 4, at) for at in self.beside)])
        self.lane.probe.bar0.scratch = 0
        register = self.lane.hello.physical(0, Reg.SCRATCH)
        for number, state in enumerate(self.states[1:]):
            if state.wish:
                continue
            await self.vmm.remap(
                [self._range(state)], register, value=_GO + number, done=_DONE + number, failed=_FAILED
            )
        pushing = asyncio.create_task(self._push())
        try:
            seen, beside = await self._changes(pushing)
            self.seen_all = True
            ended = await pushing
        finally:
            pushing.cancel()
        stores = "; ".join([*self._ending(ended), judge(self.log, ended.pushed, self.states, self.bounds)])
        return "; ".join([*seen, stores, beside])

    async def _push(self) -> Pushed:
        """Push until all has been seen, or a store was not run: as if it had been one push."""
        self.lane.probe.endpoint.recorder.drain()
        first = 0
        while True:
            wish, self.wish = self.wish, Wish.NONE
            pushed = await self.lane.guest.workload(
                Workload(
                    el=1, idiom=Idiom.ST1, barrier=Barrier.DMB,
                    window_s1=MAIR.index(0x44), window_bar=_WINDOW.bar, window_offset=_WINDOW.offset,
                    doorbell_s1=MAIR.index(0x04), doorbell_bar=0, doorbell_offset=Reg.DOORBELL,
                    count=_ROUND, slots=_SLOTS, first=first, wish=wish, wish_at=_SLOTS,
                )
            )  # fmt: skip
            self.log += self.lane.guest.last.transactions
            if wish and pushed.pushed > _SLOTS:
                self.granted_at = first + _SLOTS
            first += pushed.pushed
            denied = pushed.status is Status.DONE and pushed.pushed < _ROUND
            if denied or self.seen_all or pushed.status is not Status.DONE:
                return pushed._replace(pushed=first)

    def _ending(self, ended: Pushed) -> list[str]:
        if ended.status is Status.DONE:
            return []
        not_run = (ended.status, ended.level, ended.far) == (Status.FAULT, 2, errno.EFAULT)
        return [_NOT_RUN if not_run else f"the guest's loop: {ended}"]

    async def _changes(self, pushing: asyncio.Task[Pushed]) -> tuple[list[str], str]:
        """Ask for each change when all pages have been used; the descriptors meanwhile, of the window and beside it."""
        seen: list[str] = []
        neighbours: list[Mapping[int, Descriptor | None]] = []
        for number, state in enumerate(self.states):
            if state.wish:
                self.wish, self.granted_at = state.wish, 0
                while not self.granted_at and not pushing.done():
                    await asyncio.sleep(_POLL)
                self.bounds.append((self.granted_at, self.granted_at))
            elif number:
                asked = self.progress
                self.lane.probe.bar0.scratch = _GO + number - 1
                while self.lane.probe.bar0.scratch == _GO + number - 1:
                    await asyncio.sleep(_POLL)
                self.bounds.append((asked, self.progress))
                if self.lane.probe.bar0.scratch != _DONE + number - 1:
                    return [*seen, f"{state.name}: not mapped"], "not looked at"
            used = self.progress + _SLOTS + 1
            while self.progress < used and not pushing.done():
                await asyncio.sleep(_POLL)
            if pushing.done() != (state.backing is Backing.NONE):
                return [*seen, f"{state.name}: the guest's loop has ended"], "not looked at"
            async with self.stub:
                tables = await read_tables(self.stub, [*self.pages, *self.beside])
            kinds = {None if page is None else page.memattr for page in map(tables.pages.get, self.pages)}
            kind = " and ".join(sorted("none" if each is None else f"{each:x}" for each in kinds))
            seen.append(f"{state.name}: stage 2 {kind}")
            neighbours.append({address: tables.pages[address] for address in self.beside})
        same = all(each == neighbours[0] and None not in each.values() for each in neighbours)
        return seen, _UNCHANGED if same else f"beside it: {neighbours}"


def judge(log: Sequence[Transaction], pushed: int, states: Sequence[State], bounds: Sequence[tuple[int, int]]) -> str:
    """Hold the device's log against the stores that the guest made, in order: whether just the right ones came.

    ``pushed`` are the entries whose doorbells must have rung. ``bounds`` are, of each change, how many doorbells had
    rung before it was asked for, and when it was seen to be done.
    """
    stores = iter(range((pushed + 1) * ENTRY_SIZE // STEP))
    missing: list[int] = []
    rung = 0
    for each in log:
        if (each.region, each.offset) == (0, Reg.DOORBELL):
            rung += 1
            if each.data != rung.to_bytes(4, "little"):
                return f"doorbell {rung} has the value {each.data.hex()}"
            continue
        for number in stores:
            if each == _store(each.sequence, number):
                break
            missing.append(number)
        else:
            return f"a stray store, or one too many: {each}"
    missing += [number for number in stores if number < pushed * ENTRY_SIZE // STEP]
    if rung != pushed:
        return f"{rung} doorbells for {pushed} entries"
    return _judge_gaps(missing, pushed, states, bounds)


def _store(transaction: int, number: int) -> Transaction:
    """The guest's store of this number, as the device's transaction of that one."""
    sequence, at = divmod(number * STEP, ENTRY_SIZE)
    offset = _WINDOW.offset + sequence % _SLOTS * ENTRY_SIZE + at
    return Transaction(transaction, True, _WINDOW.bar, offset, STEP, entry(sequence)[at : at + STEP])


def _judge_gaps(missing: Sequence[int], pushed: int, states: Sequence[State], bounds: Sequence[tuple[int, int]]) -> str:
    """Whether what is missing is what was made while something else was mapped."""
    gaps: list[list[int]] = []
    for number in missing:
        if not gaps or number != gaps[-1][-1] + 1:
            gaps.append([])
        gaps[-1].append(number)
    away = [index for index, state in enumerate(states) if not state.arrives and state.backing is not Backing.NONE]
    if len(gaps) != len(away):
        return f"{len(missing)} stores missing in {len(gaps)} places, not in {len(away)}"
    for gap, index in zip(gaps, away, strict=True):
        first, last = (number * STEP // ENTRY_SIZE for number in (gap[0], gap[-1]))
        begun, ended = bounds[index - 1], bounds[index] if index < len(bounds) else (pushed, pushed)
        # An entry is there before its doorbell has rung.
        if not (begun[0] <= first <= begun[1] + 1 and ended[0] - 1 <= last <= ended[1]):
            return f"entries {first} to {last} missing, mapped away between {begun} and {ended}"
    return JUST_THOSE
