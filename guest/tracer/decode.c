/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/* Encodings, as far as the tracer must tell them apart (Arm ARM DDI 0487, C4.1 for A64, F4.1 and F3.1 for A32 and T32). */
#include "tracer.h"

#define ACCESS(...) ((struct meaning){ .action = DO_ACCESS, __VA_ARGS__ })
#define LOADS(condition) ((uint8_t)((condition) ? EVENT_LOAD : EVENT_STORE))

static bool is(uint32_t word, uint32_t mask, uint32_t value)
{
    return (word & mask) == value;
}

static uint16_t flag(uint32_t word, unsigned bit, enum event_flag flag)
{
    return word >> bit & 1 ? (uint16_t)flag : 0;
}

/* Load/store exclusive, ordered, compare and swap. */
static struct meaning exclusive(uint32_t word)
{
    bool o2 = word >> 23 & 1, o1 = word >> 21 & 1, pair = o1 && word >> 31;

    if (o1 && (o2 || !pair)) /* CAS, CASP */
        return ACCESS(.kind = EVENT_ATOMIC, .flags = (uint16_t)(flag(word, 22, EVENT_ACQUIRE) |
                                                                flag(word, 15, EVENT_RELEASE) |
                                                                (o2 ? 0 : EVENT_PAIR)));
    bool load = word >> 22 & 1;
    uint16_t ordered = word >> 15 & 1 || o2 ? (load ? EVENT_ACQUIRE : EVENT_RELEASE) : 0;
    if (o2)
        return ACCESS(.kind = LOADS(load), .flags = ordered);
    return ACCESS(.kind = LOADS(load), .element = pair ? (uint8_t)(4u << (word >> 30 & 1)) : 0,
                  .flags = (uint16_t)(ordered | EVENT_EXCLUSIVE | (pair ? EVENT_PAIR : 0)));
}

static struct meaning pair(uint32_t word)
{
    unsigned size = word >> 30;
    bool simd = word >> 26 & 1;
    unsigned element = simd ? 4u << size : size == 2 ? 8 : 4;

    if (size == 1 && !simd && !(word >> 22 & 1))
        element = 8; /* STGP */
    return ACCESS(.kind = LOADS(word >> 22 & 1), .element = (uint8_t)element, .total = (uint8_t)(2 * element),
                  .flags = (uint16_t)(EVENT_PAIR | (simd ? EVENT_SIMD : 0) |
                                      ((word >> 23 & 3) == 0 ? EVENT_NON_TEMPORAL : 0)));
}

/* LDn, STn: whole registers, or one element or one for all lanes of each register. */
static struct meaning structures(uint32_t word)
{
    static const uint8_t registers[16] = { [0] = 4, [2] = 4, [4] = 3, [6] = 3, [7] = 1, [8] = 2, [10] = 2 };
    unsigned total = registers[word >> 12 & 15] * (word >> 30 & 1 ? 16u : 8u);

    if (word >> 24 & 1) { /* opcode and S:size say how wide an element is, opcode<0> and R how many registers */
        unsigned opcode = word >> 13 & 7, size = word >> 10 & 3;
        unsigned shift = opcode >= 6 ? size : opcode < 2 ? 0 : opcode < 4 ? 1 : size & 1 ? 3 : 2;
        total = ((opcode & 1) * 2 + (word >> 21 & 1) + 1) << shift;
    }
    return ACCESS(.kind = LOADS(word >> 22 & 1), .flags = EVENT_STRUCTURE | EVENT_SIMD, .total = (uint8_t)total);
}

/*
 * What an atomic stored is known only where no other vCPU may run at the same time: else QEMU tells the operand instead,
 * and of a compare and swap what it would have stored. A swap's operand is what is stored.
 */
bool stores_operand(uint32_t word)
{
    return is(word, 0x3f20fc00, 0x38208000) || is(word, 0xff20fc00, 0x19208000); /* SWP, SWPP */
}

static struct meaning atomic(uint32_t word)
{
    if (is(word, 0x0000f000, 0x0000c000)) /* LDAPR */
        return ACCESS(.kind = EVENT_LOAD, .flags = EVENT_ACQUIRE_PC);
    return ACCESS(.kind = EVENT_ATOMIC,
                  .flags = (uint16_t)(flag(word, 23, EVENT_ACQUIRE) | flag(word, 22, EVENT_RELEASE)));
}

/* LDAPUR, STLUR; of SIMD&FP registers, opc 2 is the 16-byte store. */
static struct meaning unscaled_ordered(uint32_t word)
{
    bool simd = word >> 26 & 1;
    unsigned opc = word >> 22 & 3;
    bool store = opc == 0 || (simd && opc == 2);

    return ACCESS(.kind = LOADS(!store),
                  .flags = (uint16_t)((store ? EVENT_RELEASE : EVENT_ACQUIRE_PC) | (simd ? EVENT_SIMD : 0)));
}

/* Every other form of LDR and STR. With pointer authentication (LDRAA, LDRAB) and from a literal they only load. */
static struct meaning one_register(uint32_t word)
{
    bool simd = word >> 26 & 1, literal = is(word, 0x3b000000, 0x18000000), authenticated = is(word, 0xff200400, 0xf8200400);
    bool load = literal || authenticated || (simd ? word >> 22 & 1 : (word >> 22 & 3) != 0);
    bool unprivileged = is(word, 0x3f200c00, 0x38000800);

    return ACCESS(.kind = LOADS(load),
                  .flags = (uint16_t)((simd ? EVENT_SIMD : 0) | (unprivileged ? EVENT_UNPRIVILEGED : 0)));
}

static struct meaning load_store(uint32_t word)
{
    if (is(word, 0x3f000000, 0x08000000))
        return exclusive(word);
    if (is(word, 0xbe000000, 0x0c000000)) /* structures */
        return structures(word);
    if (is(word, 0x3a000000, 0x28000000))
        return pair(word);
    if (is(word, 0xfb200c00, 0x19000400)) /* SET*, CPY* */
        return (struct meaning){ .action = DO_MOPS, .flags = EVENT_MOPS };
    if (is(word, 0xff200c00, 0x19200000)) /* LDCLRP, LDSETP, SWPP */
        return ACCESS(.kind = EVENT_ATOMIC, .flags = (uint16_t)(EVENT_PAIR | flag(word, 23, EVENT_ACQUIRE) |
                                                                flag(word, 22, EVENT_RELEASE)));
    if (is(word, 0xff200000, 0xd9200000)) { /* tags: LDG and LDGM load, STZG, STZ2G and STZGM zero, too */
        bool multiple = (word >> 10 & 3) == 0;
        unsigned which = word >> 22 & 3;
        bool load = multiple && (which == 1 || which == 3);
        return (struct meaning){ .action = DO_TAG, .kind = load ? EVENT_TAG_LOAD : EVENT_TAG_STORE };
    }
    if (is(word, 0x3f200c00, 0x19000000) || is(word, 0x3f200c00, 0x1d000800))
        return unscaled_ordered(word);
    if (is(word, 0xbf200c00, 0x99000800)) /* LDIAPP, STILP */
        return ACCESS(.kind = LOADS(word >> 22 & 1), .element = (uint8_t)(4u << (word >> 30 & 1)),
                      .flags = (uint16_t)(EVENT_PAIR | (word >> 22 & 1 ? EVENT_ACQUIRE_PC : EVENT_RELEASE)));
    if (is(word, 0x3f200c00, 0x38200000))
        return atomic(word);
    return one_register(word);
}

/*
 * LDNT1, STNT1: scalar plus scalar and plus immediate, STNT1 also to a vector's addresses; and of two or four registers,
 * consecutive or strided.
 */
static bool scalable_non_temporal(uint32_t word)
{
    return is(word, 0xfe60e000, 0xa400c000) || is(word, 0xfe70e000, 0xa400e000) || is(word, 0xfe60e000, 0xe4006000) ||
           is(word, 0xfe70e000, 0xe410e000) || is(word, 0xfe20e000, 0xe4002000) || is(word, 0xff800001, 0xa0000001) ||
           is(word, 0xff800008, 0xa1000008);
}

/*
 * LDNF1, and loads from a vector's addresses: beside those 0x84 has LD1R* (0x84408000) and LDR of Z and P. Where a plugin
 * asks for their accesses, QEMU 11.1 uses a null pointer, and ends. Of LDFF1 from consecutive addresses it tells the first
 * element alone; which others were loaded is in FFR, until the next instruction.
 */
static bool must_not_be_watched(uint32_t word)
{
    return is(word, 0xfe10e000, 0xa410a000) || is(word, 0xfe000000, 0xc4000000) ||
           (is(word, 0xfe000000, 0x84000000) && !is(word, 0xfe408000, 0x84408000) && !is(word, 0xffc08000, 0x85800000));
}

static struct meaning barrier(uint32_t word)
{
    static const uint8_t kinds[8] = { [1] = 5, [4] = 2, [5] = 1, [6] = 3, [7] = 4 }; /* DSB nXS, DSB, DMB, ISB, SB */
    unsigned kind = kinds[word >> 5 & 7], option = word >> 8 & 15;

    if (!kind || (kind == 2 && (option == 0 || option == 4))) /* SSBB, PSSBB order no arrival */
        return (struct meaning){ .action = DO_NOTHING };
    return (struct meaning){ .action = DO_BARRIER, .kind = EVENT_BARRIER, .barrier = (uint8_t)(kind << 4 | option) };
}

static struct meaning system_instruction(uint32_t word)
{
    unsigned crn = word >> 12 & 15;

    if (is(word, 0xfffff01f, 0xd503301f))
        return barrier(word);
    if (word == 0xd50320df)
        return (struct meaning){ .action = DO_DGH, .kind = EVENT_DGH };
    if (is(word, 0xffffffe0, 0xd50b7420) || is(word, 0xffffffe0, 0xd50b7480)) /* DC ZVA, DC GZVA */
        return (struct meaning){ .action = DO_ZERO, .kind = EVENT_ZERO };
    if (is(word, 0xffffffe0, 0xd50b7460)) /* DC GVA */
        return (struct meaning){ .action = DO_ZERO, .kind = EVENT_TAG_STORE };
    if (is(word, 0xffb8e000, 0xd5088000)) /* TLBI, TLBIP */
        return (struct meaning){ .action = DO_DROP_ALL };
    if (is(word, 0xffb80000, 0xd5180000) && (crn == 1 || crn == 2 || crn == 10)) /* SCTLR, HCR; TTBR, TCR; MAIR */
        return (struct meaning){ .action = DO_DROP };
    return (struct meaning){ .action = DO_NOTHING };
}

struct meaning decode(uint32_t word)
{
    if (is(word, 0xffffffff, 0xd69f03e0) || is(word, 0xfffffbff, 0xd69f0bff)) /* ERET, ERETAA, ERETAB */
        return (struct meaning){ .action = DO_RETURN };
    if (is(word, 0xff800000, 0xd5000000))
        return system_instruction(word);
    if (is(word, 0x0a000000, 0x08000000))
        return load_store(word);
    if ((is(word, 0x9e000000, 0x84000000) || is(word, 0x9e000000, 0x80000000)) &&
        !must_not_be_watched(word)) /* SVE, SME */
        return ACCESS(.flags = (uint16_t)(EVENT_SVE | (scalable_non_temporal(word) ? EVENT_NON_TEMPORAL : 0)));
    return (struct meaning){ .action = DO_NOTHING };
}

/* In AArch32 state only what no A64 rule is needed for is told: accesses as QEMU has them, and barriers. */
struct meaning decode_aarch32(uint32_t word, size_t size)
{
    static const uint8_t kinds[16] = { [4] = 2, [5] = 1, [6] = 3 }; /* DSB, DMB, ISB */
    uint32_t a32 = word, t32 = word >> 16 | word << 16;
    unsigned kind = is(a32, 0xffffff00, 0xf57ff000) ? kinds[a32 >> 4 & 15]
                    : is(t32, 0xffffff00, 0xf3bf8f00) ? kinds[t32 >> 4 & 15]
                                                      : 0;
    unsigned option = (is(a32, 0xffffff00, 0xf57ff000) ? a32 : t32) & 15;

    if (size == 4 && kind)
        return (struct meaning){ .action = DO_BARRIER, .kind = EVENT_BARRIER, .barrier = (uint8_t)(kind << 4 | option) };
    return ACCESS(.kind = 0);
}
