"""What a scheme decides from: the device's layout, what the VMM asks, what the VFIO driver knows, the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..attributes import GRE, NORMAL_NC, PAGE, MemoryType
from ..errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Bar:
    """One memory BAR: its index 0..5, its size in bytes (whole 4 KiB pages), whether it is prefetchable."""

    index: int
    size: int
    prefetchable: bool = False

    def __post_init__(self) -> None:
        """Check the ranges; raises DefinitionError."""
        if not 0 <= self.index <= 5:
            raise DefinitionError(f"BAR index must be 0 to 5, not {self.index}")
        if self.size < PAGE or self.size % PAGE:
            raise DefinitionError(f"BAR {self.index} size must be a multiple of {PAGE} bytes, not {self.size}")


@dataclass(frozen=True, slots=True)
class Range:
    """A named run of 4 KiB pages of a BAR, or of a platform device (`bar` None: `offset` is a physical address).

    What the device can stand there: `wc_safe`: gathered and reordered writes; `speculation_safe`: reads nobody made;
    `read_side_effects`: a read changes something; `msix_table`: holds the MSI-X table; `dynamic`: a page of it becomes
    write-combining-safe (or stops being so) while the guest runs. `kvm_internal`: a platform range that KVM maps by
    itself (GICv2 VCPUIF, kvm_phys_addr_ioremap), which no user process ever maps.
    """

    name: str
    bar: int | None
    offset: int
    size: int
    wc_safe: bool = False
    speculation_safe: bool = False
    read_side_effects: bool = False
    msix_table: bool = False
    dynamic: bool = False
    kvm_internal: bool = False

    def __post_init__(self) -> None:
        """Check the ranges; raises DefinitionError."""
        if self.offset < 0 or self.offset % PAGE:
            raise DefinitionError(f"offset of {self.name} must be a multiple of {PAGE}, not {self.offset:#x}")
        if self.size < PAGE or self.size % PAGE:
            raise DefinitionError(f"size of {self.name} must be a multiple of {PAGE} bytes, not {self.size:#x}")
        if self.kvm_internal and self.bar is not None:
            raise DefinitionError(f"{self.name} must be a platform range to be KVM's own, not in BAR {self.bar}")
        if self.read_side_effects and self.speculation_safe:
            raise DefinitionError(f"{self.name} must not be speculation-safe and have read side effects")

    @property
    def pages(self) -> int:
        """How many 4 KiB pages it has."""
        return self.size // PAGE

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.size


@dataclass(frozen=True)
class Layout:
    """A device's BARs and the ranges in them, with the platform ranges that the same VM is given.

    Pages of a BAR that no range claims become ranges of their own, with no traits, named `bar0+0xc000`.
    """

    bars: tuple[Bar, ...]
    ranges: tuple[Range, ...]
    covered: tuple[Range, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fill the gaps; raises DefinitionError for overlaps, unknown BARs, ranges beyond a BAR and equal names."""
        names: set[str] = set()
        for where in self.ranges:
            if where.name in names:
                raise DefinitionError(f"range names must be unique, not {where.name} twice")
            names.add(where.name)
        known = {bar.index for bar in self.bars}
        covered = [where for where in self.ranges if where.bar is None]
        for where in self.ranges:
            if where.bar is not None and where.bar not in known:
                raise DefinitionError(f"BAR of {where.name} must be one of {sorted(known)}, not {where.bar}")
        for bar in self.bars:
            covered += self._tile(bar)
        object.__setattr__(self, "covered", tuple(covered))

    def _tile(self, bar: Bar) -> Iterable[Range]:
        end = 0
        for where in sorted((w for w in self.ranges if w.bar == bar.index), key=lambda w: w.offset):
            if where.offset < end:
                raise DefinitionError(f"{where.name} must not overlap the range before it, at {where.offset:#x}")
            if where.end > bar.size:
                raise DefinitionError(f"{where.name} must end within BAR {bar.index}, not at {where.end:#x}")
            if where.offset > end:
                yield Range(f"bar{bar.index}+{end:#x}", bar.index, end, where.offset - end)
            yield where
            end = where.end
        if end < bar.size:
            yield Range(f"bar{bar.index}+{end:#x}", bar.index, end, bar.size - end)

    def bar(self, index: int) -> Bar:
        """The BAR with this index. Raises KeyError."""
        for bar in self.bars:
            if bar.index == index:
                return bar
        raise KeyError(index)

    def find(self, name: str) -> Range:
        """The range with this name, gaps included. Raises KeyError."""
        for where in self.covered:
            if where.name == name:
                return where
        raise KeyError(name)

    def in_bar(self, index: int) -> tuple[Range, ...]:
        """The ranges of one BAR, gaps included, in address order."""
        return tuple(where for where in self.covered if where.bar == index)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a VMM asks for one range, in the words that every scheme has some of.

    `write_combine`: a write-combining mapping, a flagged memslot, the permission to combine, a grant when the guest
    asks. `speculation`: the permission to speculate (`permit-wc` alone tells it apart). `cacheable`: a cacheable
    mapping. `dynamic`: the VMM follows (or lets the guest drive) what the device says at run time.
    """

    write_combine: bool = False
    speculation: bool = False
    cacheable: bool = False
    dynamic: bool = False


_NO_ASK = Ask()


@dataclass(frozen=True)
class Request:
    """What the VMM asks, by range name; ranges that are not named are asked nothing for."""

    asks: Mapping[str, Ask] = field(default_factory=lambda: MappingProxyType({}))

    def ask(self, where: Range) -> Ask:
        """What is asked for `where`."""
        return self.asks.get(where.name, _NO_ASK)

    @classmethod
    def knowing(cls, layout: Layout) -> Request:
        """A VMM that knows the device: it asks for just what each range can stand, and follows the dynamic ones."""
        return cls(
            {
                where.name: Ask(
                    write_combine=where.wc_safe,
                    speculation=where.speculation_safe,
                    dynamic=where.dynamic,
                )
                for where in layout.ranges
                if where.wc_safe or where.dynamic
            }
        )

    @classmethod
    def greedy(cls, layout: Layout) -> Request:
        """A VMM that asks for write-combining and speculation everywhere, whatever the device can stand."""
        return cls({where.name: Ask(write_combine=True, speculation=True, dynamic=True) for where in layout.covered})


NOTHING = Request()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One entry of a VFIO driver's table (`vfio-descriptor`): the host's type and the bound stage 2 gets."""

    host: MemoryType
    stage2: MemoryType


@dataclass(frozen=True)
class Driver:
    """What the VFIO driver knows of the device: nothing (vfio-pci), or more (a variant driver).

    `descriptors`: its table by range name. `safe_wc`, `safe_speculation`: ranges that it would let be write-combined,
    and speculated upon. `tracks`: dynamic ranges whose state it reads from the device. `wc_bars`: BARs it maps
    write-combining to users (nvgrace's resmem); `cacheable_bars`: BARs that are memory, which it maps cacheable
    (nvgrace's usemem).
    """

    descriptors: Mapping[str, Descriptor] = field(default_factory=lambda: MappingProxyType({}))
    safe_wc: frozenset[str] = frozenset()
    safe_speculation: frozenset[str] = frozenset()
    tracks: frozenset[str] = frozenset()
    wc_bars: frozenset[int] = frozenset()
    cacheable_bars: frozenset[int] = frozenset()

    @classmethod
    def knowing(
        cls,
        layout: Layout,
        *,
        wc_bars: frozenset[int] = frozenset(),
        cacheable_bars: frozenset[int] = frozenset(),
    ) -> Driver:
        """A driver that knows what `layout` says: Normal-NC where safe, Device-GRE where only speculation hurts."""
        kinds = {w.name: NORMAL_NC if w.speculation_safe else GRE for w in layout.ranges if w.wc_safe}
        return cls(
            descriptors={name: Descriptor(kind, kind) for name, kind in kinds.items()},
            safe_wc=frozenset(kinds),
            safe_speculation=frozenset(w.name for w in layout.ranges if w.speculation_safe),
            tracks=frozenset(w.name for w in layout.ranges if w.dynamic),
            wc_bars=wc_bars,
            cacheable_bars=cacheable_bars,
        )


@dataclass(frozen=True, slots=True)
class Host:
    """The host: 64- or 32-bit kernel (VMA flags above bit 31 exist on 64-bit alone), FEAT_S2FWB, CTR_EL0.DIC."""

    bits: int = 64
    fwb: bool = True
    dic: bool = True

    def __post_init__(self) -> None:
        """Check the ranges; raises DefinitionError."""
        if self.bits not in (32, 64):
            raise DefinitionError(f"bits must be 32 or 64, not {self.bits}")
        if self.bits == 32 and self.fwb:
            raise DefinitionError("fwb must be False on a 32-bit host, whose HCR and HCR2 have no such bit, not True")


@dataclass(frozen=True)
class Situation:
    """All inputs of one decision. `granted`: pages, as (range name, page index), that run-time changes opened."""

    layout: Layout
    request: Request = NOTHING
    driver: Driver = field(default_factory=Driver)
    host: Host = field(default_factory=Host)
    granted: frozenset[tuple[str, int]] = frozenset()
