/* RUN: experiments, one operation each, at the exception level and through the window that the entry names. */
#include "guest.h"
#include "ops.h"

#define PATTERN 128

/* The operations' data: x1 points here, and what they load goes behind it. */
static SHARED struct {
    uint64_t pattern[PATTERN / 8];
    uint64_t loaded[PATTERN / 8];
} data;

extern char stub_warm[];

/* Byte i of the pattern is (i + 1) ^ (mark & 0xff), as in guest/operation.py. */
static void prepare(uint32_t mark)
{
    const uint64_t every = 0x0101010101010101ull, seed = (mark & 0xff) * every;
    uint64_t word = 0x0807060504030201ull;

    for (unsigned i = 0; i < PATTERN / 8; i++, word += 8 * every)
        data.pattern[i] = word ^ seed;
    data.loaded[0] = data.loaded[1] = 0;
}

/* Whether the excursion ended in the way an access may: then the result has it. Anything else is a panic. */
static void judge(const struct call *call, uint64_t from, uint64_t to, uint64_t done, struct result *result)
{
    result->flags |= EL_OF_SPSR(call->from_spsr);
    if (call->vector != 4 && call->vector != 8)
        unexpected(call, "exception that is not synchronous");
    if (EC_OF(call->esr) == EC_SVC) {
        if (call->elr != done)
            unexpected(call, "SVC that is not the operation's own");
        return;
    }
    if (call->elr < from || call->elr >= to)
        unexpected(call, "exception outside of the access");
    result->flags |= (call->elr - from) / 4 << 8;
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

/* An aligned load, so that the page is in the TLB. */
static void warm(uint64_t address, unsigned el, struct result *result)
{
    struct call call = { .pc = (uint64_t)stub_warm, .spsr = SPSR_EL(el), .x = { address & ~7ull } };
    uint64_t stub = (uint64_t)stub_warm;

    enter(&call);
    judge(&call, stub, stub + 4, stub + 8, result);
    if (result->status)
        result->flags |= RESULT_IN_WARM_UP;
}

static uint64_t window(unsigned el, unsigned s1)
{
    return el == 2 ? HOST_WINDOW : GUEST_WINDOW(s1);
}

/* The virtual addresses of target and doorbell. 0 if the entry makes no sense. */
static int locate(const struct run_entry *entry, const struct op *op, unsigned el, uint64_t x[3])
{
    uint64_t place1 = place(entry->bar, entry->offset, op->offset + (op->size ? op->size : 1u));

    if (!place1)
        return 0;
    x[0] = window(op->flags & OP_GUEST_WINDOW ? 1 : el, entry->s1) + place1 + op->offset;
    x[1] = (uint64_t)&data;
    if (op->flags & OP_DOORBELL) {
        uint64_t place2 = place(entry->bar2, entry->offset2, 4);

        if (!place2)
            return 0;
        x[2] = window(el, entry->s1_2) + place2;
    }
    return 1;
}

static void run_one(const struct run_entry *entry, struct result *result)
{
    const struct op *op = &ops[entry->op];
    unsigned el = entry->el;
    struct call call = { 0 };

    *result = (struct result){ .mark = entry->mark, .status = STATUS_BAD_ENTRY };
    if (entry->op >= op_count || entry->s1 > 7 || entry->s1_2 > 7 || el > 2 || !(op->flags & OP_LEVEL(el)))
        return;
    if (el == 1 && mistakes & INSTALL_EL1_AT_EL2)
        el = 2;
    if (!locate(entry, op, el, call.x))
        return;
    result->status = STATUS_DONE;
    prepare(entry->mark);
    if (entry->mark)
        mailbox_mark(entry->mark);
    if (!(entry->flags & RUN_SKIP_TLBI) && !(mistakes & INSTALL_SKIP_TLBI)) {
        if (el == 2 && !(op->flags & OP_GUEST_WINDOW))
            tlbi_host();
        else
            tlbi_guest();
        result->flags |= RESULT_TLBI;
    }
    if (entry->flags & RUN_WARM) {
        warm(call.x[0], el, result);
        if (!result->status && op->flags & OP_CROSSING)
            warm((call.x[0] | (PAGE - 1)) + 1, el, result);
        if (result->status)
            return;
        result->flags = (result->flags & RESULT_TLBI) | RESULT_WARM;
    }
    call.pc = op->start;
    call.spsr = SPSR_EL(el);
    enter(&call);
    judge(&call, op->access, op->end, op->done, result);
    result->value[0] = data.loaded[0];
    result->value[1] = data.loaded[1];
}

uint32_t run(const struct run_entry *entries, uint32_t count, void *answer)
{
    struct context *context = answer;
    struct result *results = (struct result *)(context + 1);

    for (uint32_t i = 0; i < count; i++)
        run_one(&entries[i], &results[i]);
    mmu_context(context);
    return (uint32_t)(sizeof *context + count * sizeof *results);
}
