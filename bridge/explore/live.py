"""One legal behaviour, chosen while the accesses are still being made: posted writes wait, merge and change places."""

from __future__ import annotations

import random
from typing import NamedTuple

from ..errors import DefinitionError
from ..interconnect import (
    DEFAULT_LINK,
    RULES,
    Effect,
    Effects,
    Link,
    Mapped,
    Order,
    Packets,
    Program,
    Rules,
    effects,
    reaches,
)
from ..interconnect.order import Rows, bits
from ..interconnect.speculation import speculative_read
from ..stream import Event, Kind
from .replay import Access, Part, forwarded, parts_of

HELD = 8
"""Effects that wait, if not told otherwise."""


class Arrived(NamedTuple):
    """One block: its effects, and the TLPs that bring it, with what the device sees of each."""

    effects: tuple[Effect, ...]
    parts: tuple[Part, ...]
    order: Effects
    """What the masks of the parts are of."""

    @property
    def accesses(self) -> tuple[Access, ...]:
        """What the device sees."""
        return tuple(access for part in self.parts for access in part.accesses)


class Live:
    """Takes labelled events as they are made, and says what reaches the device, and when.

    At most `held` effects wait, to be overtaken or gathered; which ones go is drawn with `seed`, for each event anew:
    the same events with the same seed give the same behaviour. All that goes is legal: effects that wait are ordered by
    `rules`, among themselves and with what comes. A load has an answer at once: what must be before it goes first.
    `speculate` is the chance, before each access, that one is read in `mapped` that nobody asked for, if a type there
    permits it; `mapped` may grow. What is drawn for an access depends on the seed and on how many there were before.
    """

    def __init__(
        self,
        seed: int,
        *,
        held: int = HELD,
        speculate: float = 0.0,
        rules: Rules = RULES,
        link: Link = DEFAULT_LINK,
    ) -> None:
        if not 0 <= speculate <= 1:
            raise DefinitionError(f"speculate must be 0 to 1, not {speculate}")
        self._seed = seed
        self._held = held
        self._speculate = speculate
        self._rules = rules
        self._link = link
        self.mapped: list[Mapped] = []
        self._waiting: list[Event] = []
        self._arrived: list[set[int]] = []
        """Of each event that waits, which of its effects, by offset, have gone."""
        self._taken = 0
        self._instruction, self._pc = 0, 0

    def take(self, event: Event) -> tuple[list[Arrived], bytes | None]:
        """What arrives now, in this order, and the answer to a load that a waiting store gives.

        The value of any other load is what its own accesses return. Raises DefinitionError for what cannot be replayed.
        """
        self._waiting.append(self._of_one_execution(event))
        self._arrived.append(set())
        if event.kind in (Kind.BARRIER, Kind.DGH):
            return [], None
        self._taken += 1
        chance = random.Random(f"{self._seed}/{self._taken}")
        early = self._speculated(chance)
        order = Order(Program(tuple(self._waiting)), self._rules)
        chosen = _Choice(order, self._gone(order.effects), chance)
        answer = None
        if event.kind is Kind.LOAD:
            mine = sum(effect.bit for effect in order.effects if effect.position == len(self._waiting) - 1)
            if not mine & ~order.optional and chance.getrandbits(1):
                answer = b"".join(forwarded(order.effects, load) for load in order.effects.of(mine))
                chosen.leave_out(mine)
            else:
                chosen.until(mine)
        while chosen.left.bit_count() > self._held or (chosen.left and not chance.randrange(self._held)):
            chosen.step()
        return early + self._arrive(order, chosen), answer

    def _of_one_execution(self, event: Event) -> Event:
        """With a number for its address: the first events of an instruction may be gone when the next ones come, and
        those of the time before may not.
        """
        self._instruction += not event.element or event.pc != self._pc
        self._pc = event.pc
        return event._replace(pc=self._instruction)

    def _speculated(self, chance: random.Random) -> list[Arrived]:
        """A read that has no order with anything: now is as good as ever."""
        if chance.random() >= self._speculate:
            return []
        part = speculative_read(reaches(self.mapped), chance)
        found = effects(Program(part), self._rules.model)
        packets = Packets(found, self._link)
        return [Arrived((each,), tuple(parts_of(found, each.bit, packets)), found) for each in found]

    def settle(self) -> list[Arrived]:
        """Everything that waits, in an order that is drawn: writes arrive in finite time (B2.3.12)."""
        order = Order(Program(tuple(self._waiting)), self._rules)
        chosen = _Choice(order, self._gone(order.effects), random.Random(f"{self._seed}/{self._taken}/settled"))
        while chosen.left:
            chosen.step()
        return self._arrive(order, chosen)

    def drop(self) -> None:
        """Forget what waits, as a reset of the device does."""
        self._waiting, self._arrived = [], []

    @property
    def waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def _gone(self, effects: Effects) -> int:
        return sum(effect.bit for effect in effects if effect.offset in self._arrived[effect.position])

    def _arrive(self, order: Order, chosen: _Choice) -> list[Arrived]:
        packets = Packets(order.effects, self._link)
        found = [
            Arrived(
                order.effects.of(block),
                tuple(parts_of(order.effects, block, packets)),
                order.effects,
            )
            for block in chosen.blocks
        ]
        for effect in order.effects:
            if not chosen.left & effect.bit:
                self._arrived[effect.position].add(effect.offset)
        self._forget({effect.position for effect in order.effects if chosen.left & effect.bit})
        return found

    def _forget(self, needed: set[int]) -> None:
        """Drop events that are done, and barriers that nothing waits before."""
        first = min(needed, default=len(self._waiting))
        keep = [
            at for at, event in enumerate(self._waiting) if at in needed or (at > first and event.kind is Kind.BARRIER)
        ]
        self._waiting = [self._waiting[at] for at in keep]
        self._arrived = [self._arrived[at] for at in keep]


class _Choice:
    """Chooses blocks, one after the other, among those that may arrive next."""

    def __init__(self, order: Order, gone: int, chance: random.Random) -> None:
        self._rows: Rows = order.without(gone)
        self._order = order
        self._gone = gone
        self._chance = chance
        self.left = (1 << len(order.effects)) - 1 & ~gone
        self.blocks: list[int] = []

    def leave_out(self, effects: int) -> None:
        """These never arrive."""
        self._gone |= effects
        self.left &= ~effects
        self._rows = self._order.without(self._gone)

    def until(self, wanted: int) -> None:
        """Blocks until these have arrived: what must be before them, and nothing else but what is gathered."""
        while wanted & self.left:
            needed = wanted & self.left
            for index in bits(wanted & self.left):
                needed |= self._rows.not_after[index] & self.left
            self.step(needed)

    def step(self, among: int = -1) -> None:
        """One block more, of which one effect is among these."""
        ready = [index for index in bits(self.left & among) if not self._rows.not_after[index] & self.left]
        block = 1 << self._chance.choice(ready)
        for index in bits(self.left & ~block if self._chance.getrandbits(1) else 0):
            late = self._rows.before[index] & self.left or self._rows.not_after[index] & self.left & ~block
            if not late and not block & ~self._rows.gather[index] and self._chance.randrange(4):
                block |= 1 << index
        self.blocks.append(block)
        self.left &= ~block
