/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/* What instructions mean, kept while QEMU keeps the code that it translated them to. */
#include "tracer.h"

#include <pthread.h>
#include <stdlib.h>

#define CHUNK 4096

struct chunk {
    struct chunk *next;
    unsigned used;
    struct site sites[CHUNK];
};

static struct chunk *chunks, *spare;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* NULL for want of memory. */
struct site *site_new(uint64_t pc, uint32_t word, struct meaning meaning)
{
    struct site *site = NULL;

    pthread_mutex_lock(&lock);
    if (!chunks || chunks->used == CHUNK) {
        struct chunk *chunk = spare ? spare : malloc(sizeof *chunk);
        if (!chunk)
            goto out;
        spare = spare ? spare->next : NULL;
        chunk->next = chunks;
        chunk->used = 0;
        chunks = chunk;
    }
    site = &chunks->sites[chunks->used++];
    *site = (struct site){
        .pc = pc,
        .word = word,
        .simple = meaning.kind && !meaning.element && !meaning.total && !(meaning.flags & EVENT_NO_DATA),
        .meaning = meaning,
    };
out:
    pthread_mutex_unlock(&lock);
    return site;
}

/* All translated code is gone; no vCPU runs. */
void sites_clear(void)
{
    while (chunks) {
        struct chunk *chunk = chunks;
        chunks = chunk->next;
        chunk->next = spare;
        spare = chunk;
    }
}
