/* The buffers of sessions. Those of the last one that ended are kept for the next: clients come one after another. */
#include "poller.h"

#include <sys/mman.h>

uint8_t *buffers_take(pvu_poller *poller)
{
    uint8_t *buffers = poller->buffers;

    poller->buffers = NULL;
    if (!buffers)
        buffers = mmap(NULL, RX_SIZE + TX_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
    return buffers == MAP_FAILED ? NULL : buffers;
}

/* Gives back the pages behind the first BUFFERS_KEPT bytes. */
static bool shrink(uint8_t *buffers)
{
    return madvise(buffers + BUFFERS_KEPT, RX_SIZE - BUFFERS_KEPT, MADV_DONTNEED) == 0 &&
           madvise(buffers + RX_SIZE + BUFFERS_KEPT, TX_SIZE - BUFFERS_KEPT, MADV_DONTNEED) == 0;
}

void buffers_give(pvu_poller *poller, uint8_t *buffers, bool grown)
{
    if (poller->buffers || (grown && !shrink(buffers)))
        munmap(buffers, RX_SIZE + TX_SIZE);
    else
        poller->buffers = buffers;
}

void buffers_free(pvu_poller *poller)
{
    if (poller->buffers)
        munmap(poller->buffers, RX_SIZE + TX_SIZE);
}
