/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/*
 * Labelled events, and the ring in shared memory that they travel in. Little-endian, each field at its natural alignment;
 * bridge/stream.py says the same of the event to Python, and is its documentation.
 */
#ifndef EVENT_H
#define EVENT_H

#include <stdint.h>

enum event_kind {
    EVENT_LOAD = 1,
    EVENT_STORE = 2,
    EVENT_ATOMIC = 3,
    EVENT_ZERO = 4, /* DC ZVA */
    EVENT_BARRIER = 5,
    EVENT_DGH = 6,
    EVENT_SPECULATIVE = 7,
    EVENT_TAG_LOAD = 8,
    EVENT_TAG_STORE = 9,
    EVENT_LOST = 10, /* `size` events of this vCPU found the ring full */
};

enum event_flag {
    EVENT_ACQUIRE = 1 << 0,
    EVENT_ACQUIRE_PC = 1 << 1,
    EVENT_RELEASE = 1 << 2,
    EVENT_EXCLUSIVE = 1 << 3,
    EVENT_PAIR = 1 << 4,
    EVENT_SIMD = 1 << 5,
    EVENT_STRUCTURE = 1 << 6, /* LDn, STn of Advanced SIMD */
    EVENT_SVE = 1 << 7,
    EVENT_NON_TEMPORAL = 1 << 8,
    EVENT_UNPRIVILEGED = 1 << 9,
    EVENT_MOPS = 1 << 10,
    EVENT_REPEATED = 1 << 11, /* data[0], `size` times */
    EVENT_NO_DATA = 1 << 12,
    EVENT_PART = 1 << 13, /* the part in one page of an access that crosses into another */
    EVENT_FWB = 1 << 14,  /* `stage2` is to be read with HCR_EL2.FWB=1 */
};

enum { EVENT_S1_KNOWN = 1, EVENT_S2_KNOWN = 2, EVENT_TYPE_KNOWN = 4 };
enum { EVENT_BAR_ROM = 6, EVENT_BAR_CONFIG = 0xfe, EVENT_BAR_UNKNOWN = 0xff };
enum { EVENT_NO_STAGE2 = 16 };
enum { EVENT_NO_PERIPHERAL = 0xffff, EVENT_NO_EL = 0xff };

struct event {
    uint64_t sequence; /* from 1; in the ring written last: until then it is another one's, or 0 */
    uint64_t pc;
    uint64_t offset;
    uint8_t data[16];
    uint32_t size;
    uint32_t instruction;
    uint16_t vcpu;
    uint16_t peripheral;
    uint8_t kind;
    uint8_t bar;
    uint8_t element;
    uint8_t barrier;
    uint16_t flags;
    uint8_t stage1;
    uint8_t stage2;
    uint8_t type;
    uint8_t known;
    uint8_t el;
    uint8_t reserved;
};
_Static_assert(sizeof(struct event) == 64, "event");

#define RING_MAGIC 0x474e495255565000ull /* "\0PVURING" */
#define RING_VERSION 1u
#define RING_UNKNOWN_TYPE 0x02 /* an encoding that MAIR_ELx reserves */

/* The file: written by the reader before the writer maps it, but for `head` and `dropped`. */
struct ring {
    uint64_t magic;
    uint32_t version, event_size;
    uint64_t capacity; /* events; a power of two */
    uint8_t pad0[40];
    uint64_t head; /* events begun, by the writer */
    uint8_t pad1[56];
    uint64_t tail; /* events taken, by the reader */
    uint8_t pad2[56];
    uint64_t dropped; /* events that found no room, by the writer */
    uint8_t pad3[56];
    /* The effective type by HCR_EL2.CD, HCR_EL2.FWB, stage-2 MemAttr (16: no stage 2) and stage-1 byte. */
    uint8_t types[2][2][17][256];
    uint8_t pad4[3 * 4096 - 1280];
    struct event events[];
};
_Static_assert(sizeof(struct ring) == 7 * 4096, "ring");

#endif
