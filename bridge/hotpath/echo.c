/* A poller of memory that is shared with the client: a thread that looks at one place and answers at another. */
#include "hotpath.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { LOOKS = 1024 }; /* between two looks at whether to go on */

struct pvu_echo {
    pthread_t thread;
    _Atomic uint32_t *from, *to;
    uint32_t seen;
    atomic_bool stopping;
};

static void *run(void *argument)
{
    pvu_echo *echo = argument;

    while (!atomic_load_explicit(&echo->stopping, memory_order_relaxed)) {
        for (int i = 0; i < LOOKS; i++) {
            uint32_t value = atomic_load_explicit(echo->from, memory_order_acquire);

            if (value != echo->seen) {
                echo->seen = value;
                atomic_store_explicit(echo->to, value, memory_order_release);
            }
        }
    }
    return NULL;
}

pvu_echo *pvu_echo_start(pvu_region *region, uint64_t from, uint64_t to)
{
    pvu_echo *echo;
    sigset_t all, before;
    int error = EINVAL;

    if (region->size < 4 || (from | to) % 4 || from > region->size - 4 || to > region->size - 4) {
        errno = error;
        return NULL;
    }
    echo = calloc(1, sizeof(*echo));
    if (!echo)
        return NULL;
    echo->from = (_Atomic uint32_t *)(void *)(region->memory + from);
    echo->to = (_Atomic uint32_t *)(void *)(region->memory + to);
    echo->seen = atomic_load_explicit(echo->from, memory_order_acquire);
    /* Signals are for Python's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&echo->thread, NULL, run, echo);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free(echo);
        errno = error;
        return NULL;
    }
    return echo;
}

void pvu_echo_stop(pvu_echo *echo)
{
    atomic_store_explicit(&echo->stopping, true, memory_order_relaxed);
    pthread_join(echo->thread, NULL);
    free(echo);
}
