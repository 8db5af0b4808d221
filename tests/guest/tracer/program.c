/* Cases for the tracer's tests: each starts with a store of its number to MARK, at EL2 through the host window. */
#include "guest.h"

#define MARK 0x800
#define NC 4
#define NGNRE 1

_Noreturn void main_not_el2(void);

static uint64_t ram[64] __attribute__((aligned(64)));
static uint64_t window;
extern char stub_write8[], stub_write4[];

static void map(uint8_t first, uint8_t second, uint8_t memattr, int fwb)
{
    const struct install_entry entries[] = {
        { .bar = 2, .memattr = memattr, .host = first, .valid = 1, .pages = 1, .offset = 0 },
        { .bar = 2, .memattr = memattr, .host = second, .valid = 1, .pages = 1, .offset = PAGE },
    };
    uint32_t bad;

    if (mmu_install(entries, 2, fwb ? INSTALL_FWB : 0, &bad))
        fail(EXIT_PANIC, "cannot map BAR 2");
}

static void mark(uint32_t number)
{
    write32(window + MARK, number);
}

#define AT(offset) "r"(window + (offset))
#define CASE(number, code, ...)                                                                            \
    mark(number);                                                                                          \
    __asm__ volatile(".arch armv8.5-a+memtag+lse+rcpc\n" code                                              \
                     :                                                                                     \
                     : __VA_ARGS__                                                                         \
                     : "memory", "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "v0", "v1", "v2", "v3")

/* What every CPU has. */
static void instructions(void)
{
    CASE(1, "mov x0, #0x1234; str x0, [%0]; strb w0, [%0, #9]; ldrh w1, [%0]", AT(0));
    CASE(2, "mov x0, #1; mov x1, #2; stp x0, x1, [%0]; stp w0, w1, [%0, #16]; ldp w2, w3, [%0]; stnp x0, x1, [%0, #32]", AT(0));
    CASE(3, "movi v0.16b, #1; movi v1.16b, #2; str q0, [%0]; stp q0, q1, [%0, #16]; stp d0, d1, [%0, #48]", AT(0));
    CASE(4, "movi v0.16b, #1; movi v1.16b, #2; st1 {v0.16b, v1.16b}, [%0]; st1 {v1.s}[2], [%0]; ld2 {v0.2s, v1.2s}, [%0]; ld1r {v0.8h}, [%0]", AT(0));
    CASE(5, "mov x0, #5; ldaxr x1, [%0]; stlxr w2, x0, [%0]; ldxp x1, x2, [%0]; stxp w3, x0, x0, [%0]", AT(64));
    CASE(6, "mov x0, #3; str x0, [%0]; ldaddal x0, x1, [%0]; swpa x0, x1, [%0]; mov x1, #3; casl x1, x0, [%0]; mov x2, #3; mov x3, #0; mov x4, #8; mov x5, #9; casp x2, x3, x4, x5, [%0]", AT(0));
    CASE(7, "mov x0, #7; stlr x0, [%0]; ldar x1, [%0]; ldapr x1, [%0]; stlrb w0, [%0]", AT(0));
    CASE(8, "dc zva, %0", AT(200));
    CASE(9, "mov x0, #1; dmb oshst; dmb ish; dmb oshst; hint #6; str x0, [%0]; dsb st; isb; ldr x0, [%0]; dmb ld", AT(0));
}

/* What a CPU with FEAT_MTE2 and FEAT_MOPS has, and the rest. */
static void more_instructions(void)
{
    CASE(10, "str xzr, [%0]; add x1, %0, #8; stg x1, [%0, #16]; st2g x1, [%0], #0; stzg x1, [%0, #16]; ldg x1, [%0, #-16]", AT(64));
    /* setp [x0]!, x1!, x2; setm; sete: 300 bytes of 0x5a */
    CASE(11, "mov x0, %0; mov x1, #300; mov x2, #0x15a; .inst 0x19c20420; .inst 0x19c24420; .inst 0x19c28420", AT(16));
    /* the same over the end of a page */
    CASE(12, "mov x0, %0; mov x1, #8; mov x2, #1; .inst 0x19c20420; .inst 0x19c24420; .inst 0x19c28420", AT(PAGE - 3));
    /* cpyfp [x0]!, [x1]!, x2!; cpyfm; cpyfe: from RAM, to RAM; cpyp, within the BAR and backwards */
    CASE(13, "mov x0, %0; mov x1, %1; mov x2, #100; .inst 0x19010440; .inst 0x19410440; .inst 0x19810440", AT(8), "r"(ram));
    CASE(14, "mov x0, %1; mov x1, %0; mov x2, #100; .inst 0x19010440; .inst 0x19410440; .inst 0x19810440", AT(8), "r"(ram));
    CASE(15, "mov x0, %0; sub x1, %0, #8; mov x2, #32; .inst 0x1d010440; .inst 0x1d410440; .inst 0x1d810440", AT(264));
    CASE(16, "mov x0, #-1; str x0, [%0]; movi v0.16b, #3; sub x1, %0, #20; stp q0, q0, [x1]", AT(PAGE - 4));
    CASE(17, "mov x0, #1; sttr x0, [%0]; ldr x1, [%0, #8]; stur w0, [%0, #4]; prfm pldl1keep, [%0]; ldrsw x1, [%0]", AT(0));
}

/*
 * SVE with vectors of 16 bytes: ptrue p0.b; st1d {z0.d}; ld1d {z0.d}; str z0. Non-temporal, behind ptrue p0.b: stnt1d and
 * ldnt1d {z0.d} at [x0] and at [x0, x1, lsl #3]; index z1.d, x0, #8, then stnt1d {z0.d} at [z1.d]; with other bytes in z1 and
 * ptrue pn8.b, stnt1d and ldnt1d {z0.d-z1.d} at [x0]. Behind ptrue p0.b and index z1.d, x0, #8: ldnt1d and ldff1d {z0.d} at
 * [z1.d], ldnf1d {z0.d} at [x0], mov w1, v0.s[0], str w1, [x0].
 */
static void scalable(void)
{
    CASE(18, "mov x0, %0; movi v0.16b, #4; .inst 0x2518e3e0; .inst 0xe5e0e000; .inst 0xa5e0a000; .inst 0xe5804000", AT(0));
    CASE(19, "mov x0, %0; mov x1, #2; movi v0.16b, #4; .inst 0x2518e3e0; .inst 0xe590e000; .inst 0xa580e000; .inst 0xe5816000; .inst 0xa581c000; .inst 0x04e84401; .inst 0xe59f2020; movi v1.16b, #5; .inst 0x25207810; .inst 0xa0606001; .inst 0xa0406001", AT(0));
    CASE(35, "mov x0, %0; movi v0.16b, #6; str q0, [x0]; .inst 0x2518e3e0; .inst 0x04e84401; .inst 0xc59fc020; .inst 0xc5a0e020; .inst 0xa5f0a000; mov w1, v0.s[0]; str w1, [x0]", AT(0));
    /* ptrue p0.b; setffr; ldff1d {z0.d}, p0/z, [x0]; rdffr p1.b; cntp x1, p0, p1.d: how many elements were loaded */
    CASE(36, "mov x0, %0; movi v0.16b, #6; str q0, [x0]; .inst 0x2518e3e0; .inst 0x252c9000; .inst 0xa5ff6000; .inst 0x2519f001; .inst 0x25e08021; str x1, [x0, #16]", AT(0));
}

/* setp [x0]!, x1!, x2; setm; sete, and DC ZVA: from what is mapped into what is not. */
void half_set(void);
void no_zero(void);
__asm__(".text; half_set: .inst 0x19c20420, 0x19c24420, 0x19c28420; svc #0; no_zero: dc zva, x0; svc #0");

static void faulting(void)
{
    struct call call = { .pc = (uint64_t)half_set, .spsr = SPSR_EL(2), .x = { window + 2 * PAGE - 8, 24, 0x33 } };

    mark(25);
    enter(&call);
    call = (struct call){ .pc = (uint64_t)no_zero, .spsr = SPSR_EL(2), .x = { window + 2 * PAGE } };
    enter(&call);
}

/* Another type for the window's first page, in its descriptor: no register is written. */
static void retype(uint64_t index)
{
    uint64_t *table = (uint64_t *)(read_sysreg(S3_4_C2_C0_0) & 0xfffffffff000ull); /* TTBR0_EL2 */

    for (unsigned shift = 30; shift > 12; shift -= 9)
        table = (uint64_t *)(table[window >> shift & 511] & 0xfffffffff000ull);
    table[window >> 12 & 511] = (table[window >> 12 & 511] & ~0x1cull) | index << 2;
    tlbi_host();
}

static void drops(void)
{
    uint64_t value = read_sysreg(sctlr_el1), same = place(2, 8, 4);
    struct call call = { .pc = (uint64_t)stub_write4, .spsr = SPSR_EL(1), .x = { same, 4 } };

    mark(26); /* TLBI alone */
    write32(window, 1);
    retype(NGNRE);
    write32(window, 2);
    retype(NC);

    mark(27); /* ERET and an exception alone: the same address at EL2, at EL1 with its stage 1 off, and at EL2 */
    write_sysreg(sctlr_el1, value & ~1ull);
    __asm__ volatile("isb");
    tlbi_guest();
    write32(same, 3);
    enter(&call);
    write32(same, 5);
    write_sysreg(sctlr_el1, value);
    tlbi_guest();
}

static void translations(void)
{
    uint64_t mair = read_sysreg(mair_el2);
    uint64_t value;

    mark(20);
    write32(window, 1);
    map(NGNRE, NGNRE, 1, 0);
    write32(window, 2);
    write_sysreg(mair_el2, mair ^ 0x0c00); /* what was nGnRE is nGRE */
    __asm__ volatile("isb");
    write32(window, 3);
    write_sysreg(mair_el2, mair);
    __asm__ volatile("isb");
    map(NC, NGNRE, 1, 0);

    mark(21); /* an access that crosses into a page of another type; one that faults; DC ZVA that is not mapped */
    __asm__ volatile("mov x0, #-1; str x0, [%0]" ::AT(PAGE - 2) : "x0", "memory");
    (void)guarded_write(window + PAGE + 1, 4, 0);
    (void)guarded_write(window + 2 * PAGE, 4, 0);

    mark(22); /* from EL1 and EL0, under stage 2 */
    struct call call = { .pc = (uint64_t)stub_write8, .spsr = SPSR_EL(1), .x = { GUEST_WINDOW(6) + place(2, 8, 8), 5 } };
    enter(&call);
    map(NC, NGNRE, 5, 1);
    call = (struct call){ .pc = (uint64_t)stub_write8, .spsr = SPSR_EL(0), .x = { GUEST_WINDOW(2) + place(2, 8, 8), 6 } };
    enter(&call);

    mark(23); /* SCTLR_EL1.M and .C */
    value = read_sysreg(sctlr_el1);
    write_sysreg(sctlr_el1, value & ~4ull);
    call = (struct call){ .pc = (uint64_t)stub_write8, .spsr = SPSR_EL(1), .x = { GUEST_WINDOW(6) + place(2, 8, 8), 7 } };
    enter(&call);
    write_sysreg(sctlr_el1, value & ~1ull);
    __asm__ volatile("isb");
    tlbi_guest();
    call = (struct call){ .pc = (uint64_t)stub_write8, .spsr = SPSR_EL(1), .x = { place(2, 8, 8), 8 } };
    enter(&call);
    write_sysreg(sctlr_el1, value);
    tlbi_guest();

    mark(28); /* HCR_EL2.CD: what is Normal after stage 2 is Non-cacheable */
    map(NC, NGNRE, 15, 0);
    value = read_sysreg(hcr_el2);
    write_sysreg(hcr_el2, value | 1ull << 32);
    __asm__ volatile("isb");
    tlbi_guest();
    call = (struct call){ .pc = (uint64_t)stub_write8, .spsr = SPSR_EL(1), .x = { GUEST_WINDOW(6) + place(2, 8, 8), 9 } };
    enter(&call);
    write_sysreg(hcr_el2, value);
    call.x[1] = 10;
    enter(&call);
    map(NC, NGNRE, 5, 1);
}

/* A process in AArch32 state, its stage 1 off: str r1, [r0]; dmb oshst; ldr r2, [r0]; svc 0. */
static void aarch32(void)
{
    static const uint32_t code[] = { 0xe5801000, 0xf57ff052, 0xe5902000, 0xef000000 };
    uint64_t value = read_sysreg(sctlr_el1);
    struct call call = { .pc = (uint64_t)code, .spsr = 0x1d0, .x = { place(2, 8, 4), 9 } };

    mark(24);
    write_sysreg(sctlr_el1, value & ~1ull);
    __asm__ volatile("isb");
    tlbi_guest();
    enter(&call);
    write_sysreg(sctlr_el1, value);
    tlbi_guest();
}

/* BAR 2 is moved: the same register is elsewhere, and where it was there is nothing. */
static void moved(void)
{
    uint64_t bar = ecam + functions[under_test].address + 0x18;
    uint64_t old = functions[under_test].bars[2];

    mark(30);
    write32(bar, 0x20000000);
    write32(0x20000010, 4);
    write32(bar, (uint32_t)old);
    write32(old + 0x10, 5);
}

/* Memory space is disabled: the BAR is not there, whatever its address is. */
static void disabled(void)
{
    uint64_t command = ecam + functions[under_test].address + 0x04;
    uint32_t value;

    mark(31);
    value = *(volatile uint32_t *)command;
    write32(command, value & ~2u);
    write32(functions[under_test].bars[2] + 0x10, 6);
    write32(command, value);
    write32(functions[under_test].bars[2] + 0x10, 7);
}

/* A second vCPU, its MMU off, stores where it is told, and ends with a barrier. */
void second(void);
__asm__(".text; .globl second; second: ldp x1, x2, [x0]; mov w3, #0x77; str w3, [x1]; dmb ish; str w3, [x2]; 1: wfi; b 1b");

static void others(void)
{
    static volatile uint32_t done;
    static uint64_t told[2];

    register uint64_t function __asm__("x0") = 0xc4000003; /* PSCI CPU_ON */
    register uint64_t target __asm__("x1") = 1;
    register uint64_t entry __asm__("x2") = (uint64_t)second;
    register uint64_t context __asm__("x3") = (uint64_t)told;

    told[0] = place(2, 0x20, 4);
    told[1] = (uint64_t)&done;
    mark(40);
    __asm__ volatile(".inst 0xd4000003" : "+r"(function) : "r"(target), "r"(entry), "r"(context) : "memory");
    while (function == 0 && !done)
        ;
}

_Noreturn void main_not_el2(void)
{
    fail(EXIT_NOT_EL2, "started below EL2");
}

_Noreturn void guest_main(void)
{
    timer_start();
    mmu_start();
    pci_start();
    under_test = pci_find(0x1af4, 0x1110);
    if (under_test < 0)
        fail(EXIT_PANIC, "no ivshmem");
    map(NC, NC, 5, 0);
    window = HOST_WINDOW + place(2, 0, 2 * PAGE);
    instructions();
    mark(98);
    for (uint64_t i = 0; i < STORES; i++)
        write32(window, (uint32_t)i);
    if (!(read_sysreg(S3_0_C0_C6_2) >> 16 & 15)) /* ID_AA64ISAR2_EL1.MOPS */
        leave(EXIT_OK);
    write_sysreg(S3_4_C1_C2_2, 1 << 11); /* HCRX_EL2.MSCEn */
    write_sysreg(cptr_el2, 0x32ff);      /* SVE is not trapped, */
    write_sysreg(S3_4_C1_C2_0, 0);       /* ZCR_EL2: and has 128 bits */
    __asm__ volatile("isb");
    more_instructions();
    scalable();
    faulting();
    drops();
    translations();
    aarch32();
    moved();
    disabled();
    others();
    mark(99);
    leave(EXIT_OK);
}
