"""The rules of arrival, each a function on two effects; the first is earlier in the program.

Sections are of the Arm ARM (DDI 0487) unless PCIe is named; the rule they serve is B2.4.1.1, *Peripheral arrival
order*: E1 arrives before E2, and is not gathered with it, if (a) both are non-Reordering and E1 is first in program
order, (b) both are non-Gathering and E1 is Ordered-before E2, or (c) both are Device or Normal Non-cacheable and E1 is
Barrier-ordered-before E2. All else may arrive either way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from ..attributes import NGNRNE
from ..errors import DefinitionError
from ..stream import BAR_CONFIG, BarrierKind, Flag
from .effects import DEFAULT_MODEL, Effect, Model, Op


class Basis(Enum):
    """What a rule rests on."""

    ARCHITECTURE = "A"
    PCIE = "P"
    MODEL = "M"


class Facts(Protocol):
    """What a rule may ask about a program (`order.ProgramFacts`)."""

    @property
    def model(self) -> Model:
        """What the model chose."""

    def fenced(self, first: Effect, second: Effect, *kinds: BarrierKind) -> bool:
        """Whether a barrier of these kinds, in a domain that orders at a device, stands between and is for both."""

    def completed(self, first: Effect, second: Effect) -> bool:
        """Whether a DSB in such a domain stands between that waits for the first, whatever the second is."""

    def synchronised(self, first: Effect, second: Effect) -> bool:
        """Whether a chain of Barrier-ordered-before and reads-from leads from one to the other."""

    def ordered_before(self, first: Effect, second: Effect) -> bool:
        """Likewise, of dependencies too."""

    def depends(self, first: Effect, second: Effect) -> bool:
        """Whether a dependency of the program orders the two."""

    def reads_from(self, first: Effect, second: Effect) -> bool:
        """Whether the second shows that the first was done (`Program.reads_from`)."""

    def handles(self, first: Effect, second: Effect) -> bool:
        """Whether the first is an interrupt and the second in its handler, or behind it."""


Holds = Callable[[Effect, Effect, Facts], bool]


@dataclass(frozen=True)
class Rule:
    """One rule: its name, its section, what it rests on. `weak`: the two may arrive as one if they may be gathered."""

    name: str
    section: str
    basis: Basis
    holds: Holds
    weak: bool = False

    def __str__(self) -> str:
        """As in `non-reordering [A] B2.4.1.1 (a)`."""
        return f"{self.name} [{self.basis.value}] {self.section}"


def in_program_order(first: Effect, second: Effect) -> bool:
    """Within one instruction no order is defined (B2.2.1, B2.10.2.4)."""
    made = not first.optional and not second.optional
    return made and first.vcpu == second.vcpu and first.instruction < second.instruction


def _at_one_peripheral(first: Effect, second: Effect) -> bool:
    return first.at_device and second.at_device and first.place == second.place


def _barrier(first: Effect, second: Effect, facts: Facts) -> bool:
    """DSB nXS waits for accesses with XS=0 alone: some Device and NC encodings, and all Write-Back (FEAT_XS)."""
    if facts.fenced(first, second, BarrierKind.DMB, BarrierKind.DSB):
        return True
    xs0 = first.type is not None and (first.type.canonical != first.type or first.type.is_write_back)
    return xs0 and facts.fenced(first, second, BarrierKind.DSB_NXS)


def _acquire(first: Effect, second: Effect, facts: Facts) -> bool:
    acquires = bool(first.event.flags & (Flag.ACQUIRE | Flag.ACQUIRE_PC)) and first.reads
    return acquires and in_program_order(first, second)


def _release(first: Effect, second: Effect, facts: Facts) -> bool:
    return bool(second.event.flags & Flag.RELEASE) and second.writes and in_program_order(first, second)


def _release_acquire(first: Effect, second: Effect, facts: Facts) -> bool:
    released = bool(first.event.flags & Flag.RELEASE) and first.writes
    return released and bool(second.event.flags & Flag.ACQUIRE) and second.reads and in_program_order(first, second)


BARRIER = Rule("barrier", "B2.4.1.1 (c), B2.3.12 DMB, DSB", Basis.ARCHITECTURE, _barrier)
ACQUIRE = Rule("acquire", "B2.4.1.1 (c), B2.3.12 Load-Acquire", Basis.ARCHITECTURE, _acquire)
RELEASE = Rule("release", "B2.4.1.1 (c), B2.3.12 Store-Release", Basis.ARCHITECTURE, _release)
RELEASE_ACQUIRE = Rule("release-acquire", "B2.4.1.1 (c), B2.3.12", Basis.ARCHITECTURE, _release_acquire)
DEPENDENCY = Rule("dependency", "B2.3.3, B2.3.4", Basis.ARCHITECTURE, lambda a, b, facts: facts.depends(a, b))
DSB_ORDERED = Rule(
    "dsb-ordered", "B2.3.4 DSB-ordered-before", Basis.ARCHITECTURE, lambda a, b, facts: facts.completed(a, b)
)
READS_FROM = Rule("reads-from", "B2.3.4 Observed-by", Basis.ARCHITECTURE, lambda a, b, facts: facts.reads_from(a, b))


def _posted(first: Effect, second: Effect, facts: Facts) -> bool:
    return first.by_device and in_program_order(first, second)


POSTED = Rule("posted", "PCIe 2.4.1: no posted write passes another but with RO", Basis.PCIE, _posted)
INTERRUPTED = Rule(
    "interrupted", "D1.3: a handler is behind its interrupt", Basis.MODEL, lambda a, b, f: f.handles(a, b)
)


def _non_reordering(first: Effect, second: Effect, facts: Facts) -> bool:
    one, two = first.type, second.type
    if one is None or two is None or not _at_one_peripheral(first, second) or not in_program_order(first, second):
        return False
    return not one.reordering and not two.reordering and one.byte & 1 == two.byte & 1  # bit 0: XS=0


def _ordered_before(first: Effect, second: Effect, facts: Facts) -> bool:
    non_gathering = _at_one_peripheral(first, second) and not first.gathering and not second.gathering
    return non_gathering and facts.ordered_before(first, second)


def _synchronised(first: Effect, second: Effect, facts: Facts) -> bool:
    across = _at_one_peripheral(first, second) and first.vcpu != second.vcpu
    return across and facts.synchronised(first, second)


def _coherent(first: Effect, second: Effect, facts: Facts) -> bool:
    """Of one location and type, whatever XS is: between aliases of different types nothing is left (B2.11)."""
    one, two = first.event.type, second.event.type
    alike = one is not None and two is not None and one.canonical == two.canonical
    return alike and in_program_order(first, second) and first.overlaps(second)


def _memory_first(first: Effect, second: Effect, facts: Facts) -> bool:
    """A load of a register says that the device has sent a write, not that this is in memory; then what is behind the
    load is (PCIe 2.4.1: a completion does not pass a posted write).
    """
    at_device = second.at_device and not first.by_device
    return first.in_ram and (second.in_ram or at_device) and facts.ordered_before(first, second)


def _caused(first: Effect, second: Effect, facts: Facts) -> bool:
    return first.at_device and second.by_device and facts.reads_from(first, second)


def _read_then_memory(first: Effect, second: Effect, facts: Facts) -> bool:
    return first.at_device and first.op is Op.READ and second.in_ram and facts.ordered_before(first, second)


def _read_back(first: Effect, second: Effect, facts: Facts) -> bool:
    """A read has been at the device when its value is here: then DSB waits for that, at any place."""
    completed = first.at_device and first.op is Op.READ and first.place != second.place
    return completed and facts.completed(first, second)


def _configuration_write(first: Effect, second: Effect, facts: Facts) -> bool:
    """A write of configuration space is not posted: its acknowledgement, if not early, is the device's."""
    answered = first.event.bar == BAR_CONFIG and first.type == NGNRNE and first.place != second.place
    return answered and facts.completed(first, second)


NON_REORDERING = Rule("non-reordering", "B2.4.1.1 (a)", Basis.ARCHITECTURE, _non_reordering)
ORDERED_BEFORE = Rule("ordered-before", "B2.4.1.1 (b)", Basis.ARCHITECTURE, _ordered_before)
SYNCHRONISED = Rule("synchronised", "B2.4.1.1 (c), across vCPUs", Basis.MODEL, _synchronised)
SAME_LOCATION = Rule("same-location", "B2.10.1, B2.10.2", Basis.ARCHITECTURE, _coherent, weak=True)
MEMORY_FIRST = Rule("memory-first", "B2.3.4, the device's DMA as observer", Basis.ARCHITECTURE, _memory_first)
CAUSED = Rule("caused", "an effect is behind its cause", Basis.MODEL, _caused)
READ_THEN_MEMORY = Rule("read-then-memory", "B2.3.4", Basis.ARCHITECTURE, _read_then_memory)
READ_BACK = Rule("read-back", "B2.3.12 DSB; PCIe 2.4.1", Basis.ARCHITECTURE, _read_back)
CONFIGURATION_WRITE = Rule("configuration-write", "B2.10.2.3; PCIe 2.4.1", Basis.ARCHITECTURE, _configuration_write)


def _different_kinds(first: Effect, second: Effect, facts: Facts) -> bool:
    return first.op is not second.op or first.op is Op.ATOMIC


def _not_gathering(first: Effect, second: Effect, facts: Facts) -> bool:
    """The elements of one instruction have no size or number outside the PE, on any type (B2.10.2.4)."""
    together = first.vcpu == second.vcpu and first.instruction == second.instruction
    return not together and not (first.gathering and second.gathering)


def _different_places(first: Effect, second: Effect, facts: Facts) -> bool:
    return first.place is None or first.place != second.place or first.event.bar != second.event.bar


def _crossing(first: Effect, second: Effect, facts: Facts) -> bool:
    limit = facts.model.gather_limit
    return len({at // limit for effect in (first, second) for at in (effect.offset, effect.end - 1)}) > 1


NOT_GATHERING = Rule("not-gathering", "B2.10.2.1", Basis.ARCHITECTURE, _not_gathering)
DIFFERENT_KINDS = Rule("different-kinds", "B2.4.1.1", Basis.ARCHITECTURE, _different_kinds)
DIFFERENT_PLACES = Rule("different-places", "B2.4.1.1", Basis.ARCHITECTURE, _different_places)
CROSSING = Rule("crossing", "PCIe 2.2.7: no TLP crosses 4 KiB", Basis.PCIE, _crossing)
IN_MEMORY = Rule("in-memory", "DMA sees each store of RAM", Basis.MODEL, lambda a, b, facts: a.in_ram or b.in_ram)


def _forwarded(first: Effect, second: Effect, facts: Facts) -> bool:
    """A store that is still in the buffer has bytes of a load's, and Gathering permits that the device is not asked.

    In memory DSB ST holds a load back as well: Ordered-before counts there.
    """
    if first.op is not Op.WRITE or second.op is not Op.READ or not _coherent(first, second, facts):
        return False
    ordered = facts.ordered_before if first.in_ram else facts.synchronised
    return first.gathering and second.gathering and not ordered(first, second)


FORWARDED = Rule("forwarded", "B2.10.1, B2.10.2.1", Basis.ARCHITECTURE, _forwarded)


@dataclass(frozen=True)
class Rules:
    """The legal set, as data.

    `barriers`: Barrier-ordered-before. `dependent`, `observed`: what Ordered-before has besides. `arrival`: what then
    arrives before what. `apart`: what may not be gathered, even if unordered. `answered`: which stores may give a load
    bytes; those that together have all of them may answer it.
    """

    barriers: tuple[Rule, ...] = (BARRIER, ACQUIRE, RELEASE, RELEASE_ACQUIRE)
    dependent: tuple[Rule, ...] = (DEPENDENCY, DSB_ORDERED)
    observed: tuple[Rule, ...] = (READS_FROM, POSTED, INTERRUPTED)
    arrival: tuple[Rule, ...] = (
        POSTED,
        INTERRUPTED,
        CAUSED,
        NON_REORDERING,
        ORDERED_BEFORE,
        SYNCHRONISED,
        SAME_LOCATION,
        MEMORY_FIRST,
        READ_THEN_MEMORY,
        READ_BACK,
        CONFIGURATION_WRITE,
    )
    apart: tuple[Rule, ...] = (DIFFERENT_KINDS, NOT_GATHERING, DIFFERENT_PLACES, CROSSING, IN_MEMORY)
    answered: tuple[Rule, ...] = (FORWARDED,)
    model: Model = field(default=DEFAULT_MODEL)
    notes: tuple[str, ...] = ()
    """What a result must say of these rules."""

    def all(self) -> tuple[Rule, ...]:
        """Every rule, once."""
        every = self.barriers + self.dependent + self.observed + self.arrival + self.apart + self.answered
        return tuple(dict.fromkeys(every))

    def replaced(self, name: str, *by: Rule) -> Rules:
        """The same, with others, or none, for the rule of this name. Raises DefinitionError."""
        if name not in (rule.name for rule in self.all()):
            raise DefinitionError(f"name must be a rule's, not {name}")

        def changed(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
            return tuple(new for rule in rules for new in (by if rule.name == name else (rule,)))

        return replace(
            self,
            barriers=changed(self.barriers),
            dependent=changed(self.dependent),
            observed=changed(self.observed),
            arrival=changed(self.arrival),
            apart=changed(self.apart),
            answered=changed(self.answered),
        )

    def relaxed(self) -> Rules:
        """The same, for a device that sets Relaxed Ordering in its writes and interrupts: what they break needs RO."""
        note = "Needs RO: the device's posted writes pass each other only with Relaxed Ordering set [P] 2.4.1."
        return replace(self.replaced(POSTED.name), notes=(*self.notes, note))

    def with_model(self, model: Model) -> Rules:
        """The same, with other choices where the specifications leave them."""
        return replace(self, model=model)


RULES = Rules()
"""What the architecture and PCIe permit, with the default model."""
