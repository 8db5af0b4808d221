// Entry, exception vectors, and the excursions to lower exception levels (and to this one).
//
// HOME_EL is the level that all of this runs at: 2, or 1 in a virtual machine whose hypervisor has EL2.

#if HOME_EL == 2
#define HOME(name) name##_el2
#define SCRATCH0 tpidr_el1
#define SCRATCH1 elr_el1
#define PSCI 0xd4000003             // smc #0, by its encoding: assemblers want a feature named for it
#else
#define HOME(name) name##_el1
#define SCRATCH0 tpidr_el0
#define SCRATCH1 par_el1
#define PSCI 0xd4000002             // hvc #0
#endif

// Offsets in struct call
#define CALL_ESR 56
#define CALL_ELR 72
#define CALL_LEVEL 88

    .section .text.start, "ax"
    .globl _start
_start:
    mrs x0, CurrentEL
    ubfx x0, x0, #2, #2
    adrp x1, stack_top
    add x1, x1, :lo12:stack_top
    mov sp, x1
#if HOME_EL == 2
    cmp x0, #2
    b.ne not_el2                    // virtualization=on is missing: main's message explains
    mov x2, #0x33ff                 // CPTR_EL2: RES1 bits, FP and SIMD not trapped
    msr cptr_el2, x2
#else
    mov x2, #3 << 20                // CPACR_EL1: FP and SIMD not trapped
    msr cpacr_el1, x2
#endif
    adr x2, vectors_home
    msr HOME(vbar), x2
    msr HOME(tpidr), xzr
    isb
    adrp x2, bss_start
    add x2, x2, :lo12:bss_start
    adrp x3, bss_end
    add x3, x3, :lo12:bss_end
1:  cmp x2, x3
    b.hs 2f
    stp xzr, xzr, [x2], #16
    b 1b
2:  bl guest_main
    b .

    .text
// void enter(struct call *call): see guest.h. The home level's TPIDR is the stack pointer to come back to: 0 when no exception is
// expected.
    .globl enter
enter:
    stp x29, x30, [sp, #-112]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    str x0, [sp, #96]
    mov x3, sp
    msr HOME(tpidr), x3
    ldp x4, x5, [x0]
    msr HOME(elr), x4
    msr HOME(spsr), x5
    ldr x2, [x0, #32]
    ldp x29, x30, [x0, #40]
    ldp x0, x1, [x0, #16]
    isb
    eret

// An exception taken to the home level: x0 = vector number. x0's old value is in SCRATCH0.
taken:
    mrs x1, HOME(tpidr)
    mov sp, x1
    ldr x1, [sp, #96]
    mrs x2, HOME(esr)
    mrs x3, HOME(far)
    mrs x4, HOME(elr)
    mrs x5, HOME(spsr)
    mov x6, #HOME_EL
#if HOME_EL == 2
    cmp x0, #8
    b.ne back
    lsr x7, x2, #26                 // HVC: EL1's vectors pass on what EL1 took, the vector's number as immediate
    cmp x7, #0x16
    b.ne back
    and x0, x2, #0xffff
    mrs x2, esr_el1
    mrs x3, far_el1
    mrs x4, elr_el1
    mrs x5, spsr_el1
    mov x6, #1
#endif
back:
    stp x2, x3, [x1, #CALL_ESR]
    stp x4, x5, [x1, #CALL_ELR]
    stp x6, x0, [x1, #CALL_LEVEL]
    msr HOME(tpidr), xzr
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp x29, x30, [sp], #112
    ret

#if HOME_EL == 1
// What the hypervisor could not run comes back here, by its hand: x2 to x5 are its ESR, an errno, PC and PSTATE.
    .globl hypervisor_failed
hypervisor_failed:
    mrs x1, tpidr_el1
    mov x0, #4
    cbz x1, panic_entry
    mov sp, x1
    ldr x1, [sp, #96]
    mov x6, #2
    b back
#endif

// An exception nobody expects, or a second one while the first is being reported: registers to the panic stack.
panic_entry:
    mrs x1, tpidrro_el0             // not 0: this is the second panic
    cbnz x1, 1f
    mov x1, #1
    msr tpidrro_el0, x1
    adrp x1, panic_stack_top
    add x1, x1, :lo12:panic_stack_top
    mov sp, x1
    sub sp, sp, #256
    mov x1, sp
    bl panic
1:  mov x0, #0x0008                 // PSCI SYSTEM_OFF
    movk x0, #0x8400, lsl #16
    .inst 0xd4000003                // smc #0, by its encoding: assemblers want a feature named for it
    b 1b

    .macro vector number
    .balign 0x80
    msr SCRATCH0, x0
    mrs x0, HOME(tpidr)
    cbz x0, 1f
    mov x0, #\number
    b taken
1:  // unexpected: keep every register as it was
    msr SCRATCH1, x1
    adrp x1, panic_registers
    add x1, x1, :lo12:panic_registers
    mrs x0, SCRATCH0
    str x0, [x1]
    mrs x0, SCRATCH1
    str x0, [x1, #8]
    mov x0, #\number
    b save_and_panic
    .endm

save_and_panic:
    stp x2, x3, [x1, #16]
    stp x4, x5, [x1, #32]
    stp x6, x7, [x1, #48]
    stp x8, x9, [x1, #64]
    stp x10, x11, [x1, #80]
    stp x12, x13, [x1, #96]
    stp x14, x15, [x1, #112]
    stp x16, x17, [x1, #128]
    stp x18, x19, [x1, #144]
    stp x20, x21, [x1, #160]
    stp x22, x23, [x1, #176]
    stp x24, x25, [x1, #192]
    stp x26, x27, [x1, #208]
    stp x28, x29, [x1, #224]
    mov x2, sp
    stp x30, x2, [x1, #240]
    b panic_entry

    .balign 0x800
vectors_home:
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vector \number
    .endr

#if HOME_EL == 2
    .balign 0x800
    .globl vectors_el1
vectors_el1:
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 0x80
    hvc #\number
    .endr
#endif

// Small excursions. Each ends with SVC; x0, x1, x2 as in struct call.
    .macro stub name
    .globl stub_\name
stub_\name:
    .endm

    stub read1
    ldrb w3, [x0]
    str x3, [x1]
    svc #0
    stub read2
    ldrh w3, [x0]
    str x3, [x1]
    svc #0
    stub read4
    ldr w3, [x0]
    str x3, [x1]
    svc #0
    stub read8
    ldr x3, [x0]
    str x3, [x1]
    svc #0
    stub write1
    strb w1, [x0]
    svc #0
    stub write2
    strh w1, [x0]
    svc #0
    stub write4
    str w1, [x0]
    svc #0
    stub write8
    str x1, [x0]
    svc #0
    stub semihost
    hlt #0xf000
    str x0, [x2]
    svc #0
    stub idle
    wfi
    b stub_idle
    stub push
    bl push_loop
    svc #0

    .globl psci_off
psci_off:
    mov x0, #0x0008
    movk x0, #0x8400, lsl #16
    .inst PSCI
    b .

#if HOME_EL == 2
not_el2:
    mov x1, #3 << 20                // CPACR_EL1: the compiler may use FP registers
    msr cpacr_el1, x1
    isb
    bl main_not_el2
    b .
#endif

    .bss
    .balign 16
    .globl panic_registers
panic_registers:
    .skip 256
