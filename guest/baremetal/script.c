/* SCRIPT: single accesses on behalf of a host's test. A fault is the step's outcome, not the guest's end. */
#include "guest.h"

static int within(uint64_t address, uint64_t size, uint64_t base, uint64_t length)
{
    return address >= base && address - base <= length - size;
}

/* The address to use; 0 if the step may not have it. */
static uint64_t resolve(const struct step *step)
{
    int sane = step->size == 1 || step->size == 2 || step->size == 4 || step->size == 8;

    if (!sane || step->address % step->size || step->action > ACTION_WAIT)
        return 0;
    switch (step->space) {
    case SPACE_CONFIG:
        return ecam && within(step->address, step->size, 0, 0x1000000) ? ecam + step->address : 0;
    case SPACE_MMIO:
        return within(step->address, step->size, 0, GIB) ? step->address : 0;
    case SPACE_RAM:
        if (step->action == ACTION_WRITE)
            return within(step->address, step->size, SCRATCH_BASE, SCRATCH_SIZE) ? step->address : 0;
        return within(step->address, step->size, RAM_BASE, RAM_SIZE) ? step->address : 0;
    default:
        return 0;
    }
}

static void settle(uint64_t esr, struct outcome *outcome)
{
    outcome->esr = (uint32_t)esr;
    outcome->status = esr ? STEP_FAULT : STEP_DONE;
}

static void wait(const struct step *step, uint64_t address, struct outcome *outcome)
{
    uint64_t end = read_sysreg(cntvct_el0) + step->timeout_us * read_sysreg(cntfrq_el0) / 1000000;

    for (;;) {
        settle(guarded_read(address, step->size, &outcome->value), outcome);
        if (outcome->status || (outcome->value & step->mask) == step->value)
            return;
        if (read_sysreg(cntvct_el0) >= end) {
            outcome->status = STEP_TIMEOUT;
            return;
        }
    }
}

/* Runs the instruction at an address, by EL1's translation. It must fault, or be none (memory is zero at first). */
static void execute(const struct step *step, struct outcome *outcome)
{
    struct call call = { .pc = CODE_WINDOW + step->address, .spsr = SPSR_EL(1) };

    outcome->status = STEP_BAD;
    if (step->address >= GIB || step->address % 4)
        return;
    watchdog_arm(1000);
    enter(&call);
    watchdog_off();
    if ((call.vector != 4 && call.vector != 8) || call.elr != call.pc ||
        (EC_OF(call.esr) != EC_IABT_LOWER && EC_OF(call.esr) != EC_IABT_SAME && EC_OF(call.esr) != EC_UNKNOWN))
        unexpected(&call, "executing an instruction of the device's");
    settle(call.esr, outcome);
    outcome->value = call.level;
}

uint32_t script(const struct step *steps, uint32_t count, struct outcome *outcomes)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct step *step = &steps[i];
        uint64_t address = resolve(step);

        outcomes[i] = (struct outcome){ .status = STEP_BAD };
        if (step->action == ACTION_INTERRUPT) {
            outcomes[i].status = interrupt_wait(step->timeout_us, &outcomes[i].value) ? STEP_DONE : STEP_TIMEOUT;
            continue;
        }
        if (step->action == ACTION_EXECUTE) {
            execute(step, &outcomes[i]);
            continue;
        }
        if (!address && !(step->space == SPACE_MMIO && step->address == 0))
            continue;
        __asm__ volatile("dsb sy" ::: "memory"); /* RAM before MMIO: a device may read what was written */
        if (step->action == ACTION_WRITE)
            settle(guarded_write(address, step->size, step->value), &outcomes[i]);
        else if (step->action == ACTION_READ)
            settle(guarded_read(address, step->size, &outcomes[i].value), &outcomes[i]);
        else
            wait(step, address, &outcomes[i]);
    }
    return count * (uint32_t)sizeof *outcomes;
}
