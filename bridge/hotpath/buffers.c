/* The buffers of sessions. Those of the last one that ended are kept for the next: clients come one after another. */
#include "poller.h"

#include <sys/mman.h>

enum { KEPT = 64 << 10 }; /* bytes of either buffer that stay in memory */

uint8_t *buffers_take(pvu_poller *poller)
{
    uint8_t *buffers = poller->buffers;

    poller->buffers = NULL;
    if (!buffers)
        buffers = mmap(NULL, RX_SIZE + TX_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
    return buffers == MAP_FAILED ? NULL : buffers;
}

void buffers_give(pvu_poller *poller, uint8_t *buffers)
{
    bool keep = !poller->buffers && madvise(buffers + KEPT, RX_SIZE - KEPT, MADV_DONTNEED) == 0 &&
                madvise(buffers + RX_SIZE + KEPT, TX_SIZE - KEPT, MADV_DONTNEED) == 0;

    if (keep)
        poller->buffers = buffers;
    else
        munmap(buffers, RX_SIZE + TX_SIZE);
}

void buffers_free(pvu_poller *poller)
{
    if (poller->buffers)
        munmap(poller->buffers, RX_SIZE + TX_SIZE);
}
