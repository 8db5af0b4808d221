/* RUN: experiments, one operation each, at the exception level and through the window that the entry names. */
#include "guest.h"
#include "ops.h"

#define PATTERN 128

/* So many experiments must be over in this time. A slow device may take seconds for one access. */
#define WATCHED 64
#define WATCH_MS 30000

/* The operations' data: x1 points here, and what they load goes behind it. */
static SHARED struct {
    uint64_t pattern[PATTERN / 8];
    uint64_t loaded[PATTERN / 8];
} data;

/* Byte i of the pattern is (i + 1) ^ (mark & 0xff), as in guest/operation.py. */
static void prepare(uint32_t mark)
{
    const uint64_t every = 0x0101010101010101ull, seed = (mark & 0xff) * every;
    uint64_t word = 0x0807060504030201ull;

    for (unsigned i = 0; i < PATTERN / 8; i++, word += 8 * every)
        data.pattern[i] = word ^ seed;
    data.loaded[0] = data.loaded[1] = 0;
}

/* How the excursion ended, if in a way that an access may end. Anything else is a panic. */
static void judge(const struct call *call, const struct code *code, struct result *result)
{
    result->flags |= EL_OF_SPSR(call->from_spsr);
    if (call->vector != 4 && call->vector != 8)
        unexpected(call, call->vector % 4 == 1 ? "the access does not end" : "exception that is not synchronous");
    if (EC_OF(call->esr) == EC_SVC) {
        if (call->elr != code->done)
            unexpected(call, "SVC that is not the operation's own");
        return;
    }
    if (call->elr < code->before || call->elr >= code->end)
        unexpected(call, "exception outside of the access");
    if (call->elr < code->access)
        result->flags |= RESULT_IN_WARM_UP;
    else
        result->flags |= (call->elr - code->access) / 4 << 8;
    result->level = (uint8_t)call->level;
    result->esr = call->esr;
    result->far = call->far;
    switch (EC_OF(call->esr)) {
    case EC_DABT_LOWER:
    case EC_DABT_SAME:
        result->status = STATUS_FAULT;
        return;
    case EC_UNKNOWN:
    case EC_LS64:
    case EC_FP:
    case EC_SYSREG:
        result->status = STATUS_UNDEFINED;
        return;
    default:
        unexpected(call, "exception of a class that no access has");
    }
}

static uint64_t window(unsigned el, unsigned s1)
{
    return el == 2 ? HOST_WINDOW : GUEST_WINDOW(s1);
}

/* The virtual addresses of target and doorbell, for the operation's registers. 0 if the entry makes no sense. */
static int locate(const struct run_entry *entry, const struct op *op, unsigned el, struct call *call)
{
    uint64_t place1 = place(entry->bar, entry->offset, op->offset + (op->size ? op->size : 1u));

    if (!place1)
        return 0;
    call->x[0] = window(op->flags & OP_GUEST_WINDOW ? 1 : el, entry->s1) + place1 + op->offset;
    call->x[1] = (uint64_t)&data;
    if (op->flags & OP_DOORBELL) {
        uint64_t place2 = place(entry->bar2, entry->offset2, 4);

        if (!place2)
            return 0;
        call->x[2] = window(el, entry->s1_2) + place2;
    }
    return 1;
}

static void run_one(const struct run_entry *entry, struct result *result)
{
    const struct op *op = &ops[entry->op];
    const struct code *code = &op->cold;
    unsigned el = entry->el;
    struct call call = { 0 };

    *result = (struct result){ .mark = entry->mark, .status = STATUS_BAD_ENTRY };
    if (entry->op >= op_count || entry->s1 > 7 || entry->s1_2 > 7 || el > HOME_EL || !(op->flags & OP_LEVEL(el)))
        return;
    if (el == 1 && mistakes & INSTALL_EL1_AT_EL2)
        el = 2;
    if (!locate(entry, op, el, &call))
        return;
    result->status = STATUS_DONE;
    prepare(entry->mark);
    if (entry->mark && !(entry->flags & RUN_UNMARKED))
        mailbox_mark(entry->mark);
    if (!(entry->flags & RUN_SKIP_TLBI) && !(mistakes & INSTALL_SKIP_TLBI)) {
        if (el == 2 && !(op->flags & OP_GUEST_WINDOW))
            tlbi_host();
        else
            tlbi_guest();
        result->flags |= RESULT_TLBI;
    }
    if (entry->flags & RUN_WARM) {
        code = &op->warm;
        result->flags |= RESULT_WARM;
        call.warm[0] = call.x[0] & ~7ull;
        call.warm[1] = (call.x[0] | (PAGE - 1)) + 1;
    }
    call.pc = code->start;
    call.spsr = SPSR_EL(el);
    enter(&call);
    judge(&call, code, result);
    result->value[0] = data.loaded[0];
    result->value[1] = data.loaded[1];
}

uint32_t run(const struct run_entry *entries, uint32_t count, void *answer)
{
    struct context *context = answer;
    struct result *results = (struct result *)(context + 1);

    for (uint32_t i = 0; i < count; i++) {
        if (i % WATCHED == 0)
            watchdog_arm(WATCH_MS);
        run_one(&entries[i], &results[i]);
    }
    watchdog_off();
    mmu_context(context);
    return (uint32_t)(sizeof *context + count * sizeof *results);
}
