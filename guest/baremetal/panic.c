/* Exceptions: those that code asked for, and those that nobody did. */
#include "guest.h"

#define LEVEL STRING(HOME_EL)

extern char stub_read1[], stub_read2[], stub_read4[], stub_read8[];
extern char stub_write1[], stub_write2[], stub_write4[], stub_write8[], stub_semihost[];
extern uint64_t panic_registers[32];

_Noreturn void panic(uint64_t vector);

_Noreturn void panic(uint64_t vector)
{
    watchdog_off();
    static const char *const kinds[] = { "synchronous", "IRQ", "FIQ", "SError" };

    print("\npyvfio-user guest: PANIC: unexpected %s exception at EL%s, vector %u\n", kinds[vector & 3],
          vector < 8 ? LEVEL : "a lower one", (unsigned)vector);
    print("ESR_EL" LEVEL " %lx ELR_EL" LEVEL " %lx FAR_EL" LEVEL " %lx SPSR_EL" LEVEL " %lx\n", read_sysreg(HOME(esr)),
          read_sysreg(HOME(elr)), read_sysreg(HOME(far)), read_sysreg(HOME(spsr)));
#if HOME_EL == 2
    print("ESR_EL1 %lx FAR_EL1 %lx HCR_EL2 %lx\n", read_sysreg(esr_el1), read_sysreg(far_el1), read_sysreg(hcr_el2));
#endif
    for (unsigned i = 0; i < 31; i++)
        print("x%u %lx%s", i, panic_registers[i], i % 4 == 3 ? "\n" : " ");
    print("sp %lx\n", panic_registers[31]);
    leave(EXIT_PANIC);
}

_Noreturn void unexpected(const struct call *call, const char *what)
{
    static int again;

    watchdog_off();
    if (again++)
        psci_off();
    print("\npyvfio-user guest: PANIC: %s: exception from EL%u taken to EL%u, vector %u\n", what,
          EL_OF_SPSR(call->from_spsr), (unsigned)call->level, (unsigned)call->vector);
    print("ESR %lx ELR %lx FAR %lx SPSR %lx\n", call->esr, call->elr, call->far, call->from_spsr);
    print("entered at %lx, x0 %lx x1 %lx x2 %lx\n", call->pc, call->x[0], call->x[1], call->x[2]);
    leave(EXIT_PANIC);
}

/* Runs a stub at this level: 0, or the ESR of its fault. */
static uint64_t guarded(const char *stub, uint64_t x0, uint64_t x1, uint64_t x2)
{
    struct call call = { .pc = (uint64_t)stub, .spsr = SPSR_EL(HOME_EL) | SPSR_NO_IRQ, .x = { x0, x1, x2 } };

    enter(&call);
    if (call.level != HOME_EL || call.vector != 4)
        unexpected(&call, "guarded access");
    return EC_OF(call.esr) == EC_SVC ? 0 : call.esr;
}

/* log2 of 1, 2, 4, 8 */
static unsigned order(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

uint64_t guarded_read(uint64_t address, unsigned size, uint64_t *value)
{
    static const char *const stubs[] = { stub_read1, stub_read2, stub_read4, stub_read8 };

    *value = 0;
    return guarded(stubs[order(size)], address, (uint64_t)value, 0);
}

uint64_t guarded_write(uint64_t address, unsigned size, uint64_t value)
{
    static const char *const stubs[] = { stub_write1, stub_write2, stub_write4, stub_write8 };

    return guarded(stubs[order(size)], address, value, 0);
}

int64_t semihost(uint64_t operation, const void *arguments)
{
    int64_t answer = -1;

    if (guarded(stub_semihost, operation, (uint64_t)arguments, (uint64_t)&answer))
        return -1;
    return answer;
}
