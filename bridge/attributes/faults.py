"""Which accesses fault, where they are taken to and with which ESR: sets of permitted outcomes.

The rules are those of the Arm ARM, DDI 0487: B2.8.2 (alignment of data accesses), B2.10.2 (Device memory), B2.2.6
(restrictions on atomics), C3.2.6 (64-byte accesses), K1.2.13 and K1.2.14 (crossing a boundary), and of its pseudocode:
AArch64.UnalignedAccessFaults, AArch64.S1HasAlignmentFault, AArch64.S2HasAlignmentFault. What is IMPLEMENTATION DEFINED
or CONSTRAINED UNPREDICTABLE gives a set; a parameter of `Implementation` narrows it where the machine is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import DefinitionError
from .access import Access, Effect, Kind, Outcome
from .combination import DEFAULT_CONTROLS, Controls, combine, decode_stage2, effective_stage1
from .esr import DFSC_ALIGNMENT, DFSC_EXTERNAL, DFSC_UNSUPPORTED, data_abort
from .memory_type import MemoryType


@dataclass(frozen=True, slots=True)
class Implementation:
    """What a machine implements. Optional features, and whether its Device locations stand unaligned accesses.

    With `unaligned_device` it is IMPLEMENTATION DEFINED whether an unaligned access to Device faults (B2.8.2); no PCIe
    function promises that, so it is off. `ls64wb`: FEAT_LS64WB, 64-byte accesses to Write-Back memory.
    """

    lse2: bool = True
    ls64wb: bool = False
    mte_perm: bool = False
    unaligned_device: bool = False


DEFAULT_IMPLEMENTATION = Implementation()


@dataclass(frozen=True, slots=True)
class Page:
    """The types of one page: stage 1, and the stage-2 MemAttr (None: no stage 2)."""

    s1: MemoryType
    s2: int | None = None


@dataclass(frozen=True, slots=True)
class _Rules:
    """One access under one set of circumstances; a method for each rule."""

    access: Access
    fwb: bool
    controls: Controls
    implementation: Implementation

    @property
    def own(self) -> int:
        """The level a stage-1 fault is taken to (HCR_EL2.TGE=0)."""
        return max(self.access.el, 1)

    def first(self, page: Page) -> MemoryType:
        """Stage 1 alone."""
        if self.access.el == 2:
            return page.s1.canonical
        return effective_stage1(page.s1, controls=self.controls).canonical

    def result(self, page: Page) -> MemoryType:
        """The effective type. EL2 has one stage."""
        if self.access.el == 2:
            return page.s1.canonical
        return combine(page.s1, page.s2, self.fwb, controls=self.controls, mte_perm=self.implementation.mte_perm)

    def second(self, page: Page) -> MemoryType | None:
        """What stage 2 says by itself, None without a stage 2."""
        if self.access.el == 2 or page.s2 is None:
            return None
        return decode_stage2(page.s2, self.fwb, mte_perm=self.implementation.mte_perm).type

    def alignment(self, level: int, rule: str) -> Outcome:
        return data_abort(self.access, level, DFSC_ALIGNMENT, rule)

    def device_faults(self, page: Page) -> Iterator[Outcome]:
        """The alignment fault of the first stage that makes the page Device (B2.10.2).

        Stage 1 is checked by itself (AArch64.S1HasAlignmentFault), so a Device stage 1 faults even where FWB=1 forces
        Write-Back.
        """
        if self.first(page).is_device:
            yield self.alignment(self.own, "B2.10.2 stage 1 Device")
        elif self.result(page).is_device:
            yield self.alignment(2, "B2.10.2 stage 2 Device")

    def enforced(self) -> Outcome | None:
        """The alignment fault that comes before translation, whatever the type (AArch64.UnalignedAccessFaults)."""
        access = self.access
        if not access.unaligned:
            return None
        if self.controls.a:
            return self.alignment(self.own, "B2.8.2 SCTLR_ELx.A=1")
        if access.kind is Kind.LS64:
            return self.alignment(self.own, "B2.8.2.1.2 64-byte access")
        if access.kind in (Kind.EXCLUSIVE, Kind.ATOMIC, Kind.ORDERED) and not self.implementation.lse2:
            return self.alignment(self.own, "B2.8.2.1.2, B2.8.2.1.3 without FEAT_LSE2")
        if access.kind is Kind.ORDERED and not access.within_16_bytes and not self.controls.naa:
            return self.alignment(self.own, "B2.8.2.1.3 beyond 16 bytes, SCTLR_ELx.nAA=0")
        return None

    def unsupported(self, page: Page) -> Iterator[Outcome]:
        """What an exclusive or atomic to anything but shareable Write-Back may come to besides working (B2.2.6).

        An MMU fault with DFSC 0x35 at the stage whose type is to blame, an external abort; for an atomic also an SError
        or nothing at all.
        """
        if self.result(page).is_write_back:
            return
        second = self.second(page)
        if not self.first(page).is_write_back:
            yield data_abort(self.access, self.own, DFSC_UNSUPPORTED, "B2.2.6 stage 1")
        if second is not None and not second.is_write_back:
            yield data_abort(self.access, 2, DFSC_UNSUPPORTED, "B2.2.6 stage 2")
        yield data_abort(self.access, self.own, DFSC_EXTERNAL, "B2.2.6 external abort")
        if self.access.kind is Kind.ATOMIC:
            yield Outcome(Effect.SERROR, rule="B2.2.6")
            yield Outcome(Effect.NOP, rule="B2.2.6")

    def sixty_four(self, page: Page) -> Iterator[Outcome]:
        """LD64B and ST64B (C3.2.6): for Device and Non-cacheable, and Write-Back with FEAT_LS64WB.

        It is IMPLEMENTATION DEFINED whether each stage is checked and the first unfit one reports, or the combined type
        is checked and the last stage reports. A location that does not support them: a stage-1 fault, or no atomicity.
        """

        def fits(memory_type: MemoryType) -> bool:
            write_back = memory_type.is_write_back and self.implementation.ls64wb
            return memory_type.is_device or memory_type.is_non_cacheable or write_back

        result, first = self.result(page), self.first(page)
        last = self.own if self.second(page) is None else 2
        # AArch64.S2Translate checks stage 2's own type with FWB=0, what stage 2 made of stage 1 with FWB=1.
        second = result if self.fwb else self.second(page) or result
        if not fits(first):
            yield data_abort(self.access, self.own, DFSC_UNSUPPORTED, "C3.2.6 stage 1")
        elif not fits(second):
            yield data_abort(self.access, 2, DFSC_UNSUPPORTED, "C3.2.6 stage 2")
        if not fits(result):
            yield data_abort(self.access, last, DFSC_UNSUPPORTED, "C3.2.6 combined type")
        else:
            yield Outcome(Effect.WORKS, rule="C3.2.6")
            yield data_abort(self.access, self.own, DFSC_UNSUPPORTED, "C3.2.6 location")

    def inside(self, page: Page) -> Iterator[Outcome]:
        """An access that stays in one page."""
        access, result = self.access, self.result(page)
        works = Outcome(Effect.WORKS, rule="B2.8.2")
        if access.kind is Kind.LS64:
            yield from self.sixty_four(page)
            return
        if access.kind is Kind.DC_ZVA:
            faults = list(self.device_faults(page))  # C5.3 DC ZVA: faults on any Device type, aligned or not
            yield from faults or [works]
            return
        device = access.unaligned and (self.first(page).is_device or result.is_device)
        if device:
            yield from self.device_faults(page)
        if not device or self.implementation.unaligned_device:
            yield works
        atomic = access.kind in (Kind.EXCLUSIVE, Kind.ATOMIC)
        if atomic:
            yield from self.unsupported(page)
        if access.unaligned and access.kind is not Kind.PLAIN:
            guaranteed = result.is_write_back and (access.within_16_bytes or access.kind is Kind.ORDERED)
            if not guaranteed:  # CONSTRAINED UNPREDICTABLE: performed, or an alignment fault
                yield self.alignment(self.own, "B2.8.2.1.2, B2.8.2.1.3 not Write-Back or beyond 16 bytes")

    def crossing(self, page: Page, beyond: Page) -> Iterator[Outcome]:
        """An access whose bytes lie in two pages (K1.2.13, K1.2.14)."""
        stage1 = _mismatch(self.first(page), self.first(beyond))
        total = _mismatch(self.result(page), self.result(beyond))
        second, second_beyond = self.second(page), self.second(beyond)
        stage2 = total and not stage1
        if second is not None and second_beyond is not None:
            stage2 = stage2 or _mismatch(second, second_beyond)
        both_device = self.result(page).is_device and self.result(beyond).is_device
        if not total and not both_device:
            yield from self.inside(page)
            yield from self.inside(beyond)
            return
        rule = "K1.2.14" if both_device else "K1.2.13"
        yield Outcome(Effect.NOP, rule=rule)
        if stage1 or self.first(page).is_device or self.first(beyond).is_device:
            yield self.alignment(self.own, rule)
        if stage2 or (both_device and not (self.first(page).is_device and self.first(beyond).is_device)):
            yield self.alignment(2, rule)
        # Each part by the type of its own address: the bytes of an unaligned access on Device are aligned bytes, but an
        # access wholly on Device is an unaligned one.
        if not (both_device and self.access.unaligned) or self.implementation.unaligned_device:
            yield Outcome(Effect.WORKS, rule=rule)
        if self.access.kind in (Kind.EXCLUSIVE, Kind.ATOMIC):
            yield from self.unsupported(page)
            yield from self.unsupported(beyond)
        if self.access.kind is not Kind.PLAIN:
            yield self.alignment(self.own, "B2.8.2.1.2, B2.8.2.1.3 not Write-Back or beyond 16 bytes")


def _mismatch(one: MemoryType, other: MemoryType) -> bool:
    """Different type, Normal or Device, or different Shareability (K1.2.13).

    Device and Non-cacheable are Outer Shareable whatever the descriptor says; the others are taken to be Inner
    Shareable, as operating systems map them.
    """
    outer_shareable = [kind.is_device or kind.is_non_cacheable for kind in (one, other)]
    return one.is_device != other.is_device or outer_shareable[0] != outer_shareable[1]


def outcomes(
    access: Access,
    page: Page,
    beyond: Page | None = None,
    *,
    fwb: bool = False,
    controls: Controls = DEFAULT_CONTROLS,
    implementation: Implementation = DEFAULT_IMPLEMENTATION,
) -> frozenset[Outcome]:
    """All outcomes that the architecture permits for `access` to `page`, and `beyond` when it crosses into another.

    `controls` are those of the level the access runs at; at EL2, where `page.s1` is the type in MAIR_EL2 and s2 is not
    looked at, only `a` and `naa` matter. The access is permitted, mapped and enabled; permission, translation and tag
    check faults are not modelled. Raises DefinitionError when the access crosses a page and `beyond` is not given.
    """
    rules = _Rules(access, fwb, controls, implementation)
    enforced = rules.enforced()
    if enforced is not None:
        return frozenset((enforced,))
    if not access.crosses_page:
        return frozenset(rules.inside(page))
    if beyond is None:
        raise DefinitionError(
            "beyond must be given for an access that crosses a page, "
            f"not None for {access.size} bytes at {access.start:#x}"
        )
    return frozenset(rules.crossing(page, beyond))
