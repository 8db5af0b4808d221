/* The recorder: a ring of the last transactions. */
#include "hotpath.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct pvu_recorder {
    pvu_record *records; /* pages of it are taken as they are first written */
    size_t capacity;
    uint64_t next;    /* sequence number of the next transaction */
    uint64_t oldest;  /* of the oldest that is kept */
    uint64_t dropped;
};

pvu_recorder *pvu_recorder_new(size_t capacity)
{
    pvu_recorder *recorder = calloc(1, sizeof(*recorder));

    if (!recorder)
        return NULL;
    recorder->capacity = capacity;
    recorder->records = mmap(NULL, capacity * sizeof(pvu_record), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (recorder->records == MAP_FAILED) {
        free(recorder);
        return NULL;
    }
    return recorder;
}

void pvu_recorder_free(pvu_recorder *recorder)
{
    munmap(recorder->records, recorder->capacity * sizeof(pvu_record));
    free(recorder);
}

size_t pvu_recorder_peek(const pvu_recorder *recorder, const pvu_record **first)
{
    size_t at = recorder->oldest % recorder->capacity;
    size_t count = recorder->next - recorder->oldest;

    *first = &recorder->records[at];
    return count < recorder->capacity - at ? count : recorder->capacity - at;
}

void pvu_recorder_take(pvu_recorder *recorder, size_t count)
{
    size_t kept = recorder->next - recorder->oldest;

    recorder->oldest += count < kept ? count : kept;
}

uint64_t pvu_recorder_dropped(const pvu_recorder *recorder)
{
    return recorder->dropped;
}

void record_access(pvu_recorder *recorder, uint32_t region, bool write, uint64_t offset, const uint8_t *data,
                   uint64_t size)
{
    while (size) {
        uint32_t piece = size < 8 ? (uint32_t)size : 8;
        pvu_record *record = &recorder->records[recorder->next % recorder->capacity];

        if (recorder->next - recorder->oldest == recorder->capacity) {
            recorder->oldest++;
            recorder->dropped++;
        }
        *record = (pvu_record){
            .sequence = recorder->next++,
            .offset = offset,
            .size = piece,
            .region = (uint8_t)region,
            .write = write,
        };
        memcpy(record->data, data, piece);
        offset += piece;
        data += piece;
        size -= piece;
    }
}
