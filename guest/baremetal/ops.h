/* The battery's operations as generated from guest/battery.py (ops.S): their code and how to run it. */
#ifndef OPS_H
#define OPS_H

#include <stdint.h>

#define OP_LEVEL(el) (1u << (el)) /* the exception levels it may run at */
#define OP_GUEST_WINDOW (1u << 4) /* the address is the guest's, at EL2 too: AT S12E1x, S1E1x */
#define OP_DOORBELL (1u << 5)     /* needs a second address */

struct code {
    uint64_t start;       /* the set-up */
    uint64_t before;      /* the warm-up: [before, access); empty in a cold operation */
    uint64_t access, end; /* the instructions under test: [access, end) */
    uint64_t done;        /* where it ends as intended: after SVC */
};

struct op {
    struct code cold, warm;
    uint16_t offset, size;
    uint32_t flags;
};

extern const struct op ops[];
extern const uint32_t op_count;

#endif
