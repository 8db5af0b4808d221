"""How stage 1 and stage 2 combine into the effective memory type (Arm ARM DDI 0487 D8.6, S2CombineS1MemAttrs)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DefinitionError
from .memory_type import (
    NGNRNE,
    NORMAL_NC,
    NORMAL_WB,
    TAGGED_WB,
    TAGGED_WB_NO_TAG_ACCESS,
    Cacheability,
    MemoryType,
)


@dataclass(frozen=True, slots=True)
class Controls:
    """The register bits that change a type or a check, at their values under an ordinary guest.

    `stage1`: SCTLR_EL1.M. `c`: SCTLR_EL1.C. `a`: SCTLR_EL1.A. `naa`: SCTLR_EL1.nAA. `cd`, `dc`, `dct`: HCR_EL2.CD, .DC
    and .DCT; DC=1 makes SCTLR_EL1.M read as 0 for the EL1&0 regime.
    """

    stage1: bool = True
    c: bool = True
    a: bool = False
    naa: bool = False
    cd: bool = False
    dc: bool = False
    dct: bool = False


DEFAULT_CONTROLS = Controls()

# Cacheability -> attribute nibble with Read- and Write-Allocate hints, not transient (MAIR_EL1).
_NIBBLES = {Cacheability.NC: 0b0100, Cacheability.WT: 0b1011, Cacheability.WB: 0b1111}


@dataclass(frozen=True, slots=True)
class Stage2:
    """What a stage-2 MemAttr means: combine with `type`, or `forces` Write-Back whatever stage 1 says.

    The pass-through encoding of FWB=1 (7) is "combine with Write-Back", which changes nothing. `no_tag_access`: tagged
    results become NoTagAccess (FEAT_MTE_PERM).
    """

    type: MemoryType
    forces: bool = False
    no_tag_access: bool = False


def decode_stage2(memattr: int, fwb: bool, *, mte_perm: bool = False) -> Stage2:
    """Decode MemAttr[3:0] of a stage-2 descriptor (DDI 0487 D8.6.5 for FWB=0, D8.6.6 for FWB=1).

    Raises DefinitionError for encodings that are reserved, as 4 (FWB=0), 0xe and 0xf (FWB=1) are without FEAT_MTE_PERM:
    what they mean is CONSTRAINED UNPREDICTABLE, so nothing may be expected of them.
    """
    if not 0 <= memattr <= 0xF:
        raise DefinitionError(f"stage-2 MemAttr must be 0 to 0xf, not {memattr:#x}")
    if memattr < 4:
        return Stage2(MemoryType(memattr << 2))
    if fwb:
        base = memattr & 7 if mte_perm and memattr >= 0xE else memattr
        tagless = base != memattr
        if base == 5:
            return Stage2(NORMAL_NC)
        if base == 6:
            return Stage2(NORMAL_WB, forces=True, no_tag_access=tagless)
        if base == 7:
            return Stage2(NORMAL_WB, no_tag_access=tagless)
    else:
        if memattr == 4 and mte_perm:
            return Stage2(NORMAL_WB, no_tag_access=True)
        if memattr & 3 and memattr >> 2:
            outer, inner = Cacheability(memattr >> 2), Cacheability(memattr & 3)
            return Stage2(MemoryType(_NIBBLES[outer] << 4 | _NIBBLES[inner]))
    raise DefinitionError(
        f"stage-2 MemAttr must be an encoding that is not reserved with FWB={int(fwb)}, not {memattr:#x}"
    )


def encode_stage2(memory_type: MemoryType, fwb: bool) -> int:
    """The MemAttr nibble that bounds a guest to `memory_type`, as KVM installs it (Write-Back: 0xf, with FWB 6).

    Takes Device types, Normal Non-cacheable, Write-Through (FWB=0 only) and Write-Back; raises DefinitionError else.
    """
    if memory_type.is_device:
        return memory_type.strength
    if memory_type == NORMAL_NC:
        return 5
    if memory_type == NORMAL_WB:
        return 6 if fwb else 0xF
    if memory_type.byte == 0xBB and not fwb:
        return 0xA
    raise DefinitionError(f"memory type must have a stage-2 MemAttr with FWB={int(fwb)}, not {memory_type.name}")


def effective_stage1(s1: MemoryType, *, controls: Controls = DEFAULT_CONTROLS) -> MemoryType:
    """Stage 1 as the EL1&0 regime sees it (AArch64.S1DisabledOutput; SCTLR_EL1.C in AArch64.S1Translate).

    Stage 1 off: Device-nGnRnE for data, or Write-Back (tagged with DCT) when HCR_EL2.DC is 1. C=0: Normal becomes
    Non-cacheable; a Tagged type loses its tag here, which the architecture leaves CONSTRAINED UNPREDICTABLE.
    """
    if controls.dc:
        return TAGGED_WB if controls.dct else NORMAL_WB
    if not controls.stage1:
        return NGNRNE
    if not controls.c and not s1.is_device:
        return NORMAL_NC
    return s1


def _lower(s1_nibble: int, s1: Cacheability, s2: Cacheability) -> int:
    """One domain of S2CombineS1AttrHints: the less cacheable wins; hints are stage 1's, and none for Non-cacheable."""
    result = min(s1, s2)
    if result is Cacheability.NC or s1 is Cacheability.NC:
        return _NIBBLES[result]
    transient = not s1_nibble & 0b1000
    return (0 if transient else 0b1000) | (0b0100 if result is Cacheability.WB else 0) | (s1_nibble & 0b0011)


def _normal(s1: MemoryType, outer: Cacheability, inner: Cacheability) -> MemoryType:
    """Normal stage 1 bounded by `outer` and `inner`; a tag survives only on non-transient Write-Back RWA."""
    if s1.tagged and outer is inner is Cacheability.WB:
        return s1
    byte = 0xFF if s1.tagged else s1.byte
    return MemoryType(_lower(byte >> 4, s1.outer, outer) << 4 | _lower(byte & 0xF, s1.inner, inner))


def combine(
    s1: MemoryType, s2: int | None, fwb: bool, *, controls: Controls = DEFAULT_CONTROLS, mte_perm: bool = False
) -> MemoryType:
    """The effective type of data accesses from EL1 or EL0: stage 1 `s1` under stage-2 MemAttr `s2` (None: no stage 2).

    FWB=0: S2CombineS1MemAttrs. FWB=1: AArch64.S2ApplyFWBMemAttrs. HCR_EL2.CD turns what is Normal after stage 2 into
    Non-cacheable. The result is canonical: it says nothing about XS. Raises DefinitionError for a reserved `s2`.
    """
    first = effective_stage1(s1, controls=controls).canonical
    if s2 is None:
        return first
    second = decode_stage2(s2, fwb, mte_perm=mte_perm)
    if second.forces:
        if first.is_device or first.tagged:
            result = first if first.tagged else NORMAL_WB
        else:
            # The cacheability is forced; the allocation hints stay stage 1's where it is cacheable at all.
            outer = 0xF if first.outer is Cacheability.NC else first.byte >> 4 | 0b0100
            inner = 0xF if first.inner is Cacheability.NC else first.byte & 0xF | 0b0100
            result = MemoryType(outer << 4 | inner)
    elif first.is_device and second.type.is_device:
        result = first if first.strength <= second.type.strength else second.type
    elif first.is_device:
        result = first
    elif second.type.is_device:
        result = second.type
    else:
        result = _normal(first, second.type.outer, second.type.inner)
    if controls.cd and not result.is_device:
        return NORMAL_NC
    if second.no_tag_access and result.tagged:
        return TAGGED_WB_NO_TAG_ACCESS
    return result
