/* Guest memory: the client's DMA maps, and copies to and from them. */
#include "hotpath.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

enum { PAGE = 4096, MAX_AREAS = 32768 };

typedef struct {
    uint64_t address;
    uint64_t last; /* address of the last byte: an end could be 2^64 */
    uint8_t *memory; /* NULL: can be reached by message only */
    uint8_t *area; /* what is mapped for it: whole pages of the file, which may be larger than ours */
    size_t area_size;
    uint32_t flags;
} dma_map;

struct pvu_dma {
    pthread_rwlock_t lock; /* a device may copy in other threads: the client must not unmap what is being copied */
    dma_map *maps; /* ascending, without overlap */
    size_t count, capacity, limit;
};

pvu_dma *pvu_dma_new(size_t max_maps)
{
    pvu_dma *dma = calloc(1, sizeof(*dma));
    pthread_rwlockattr_t fair;

    if (!dma)
        return NULL;
    dma->limit = max_maps;
    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP); /* the event loop's thread */
    pthread_rwlock_init(&dma->lock, &fair);
    pthread_rwlockattr_destroy(&fair);
    return dma;
}

void pvu_dma_free(pvu_dma *dma)
{
    pvu_dma_unmap_all(dma);
    pthread_rwlock_destroy(&dma->lock);
    free(dma);
}

size_t pvu_dma_maps(pvu_dma *dma)
{
    size_t count;

    pthread_rwlock_rdlock(&dma->lock);
    count = dma->count;
    pthread_rwlock_unlock(&dma->lock);
    return count;
}

/* The first map that ends at or behind an address: the one that holds it, if any does. */
static size_t find(const pvu_dma *dma, uint64_t address)
{
    size_t low = 0, high = dma->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (dma->maps[middle].last < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * A process has only so many areas of memory, 65,530 by default (vm.max_map_count), and without any left it can neither
 * allocate nor start threads. So that all clients' files together leave some, they get MAX_AREAS.
 */
static atomic_int areas;

static void drop(dma_map *map)
{
    if (map->memory) {
        munmap(map->area, map->area_size);
        atomic_fetch_sub(&areas, 1);
    }
}

static int check_file(uint64_t size, int fd, uint64_t offset, uint64_t *page)
{
    struct statx file;
    struct statfs system;
    int status = descriptor_file(fd, &file);

    if (status < 0)
        return status;
    if (!file.stx_dev_major && fstatfs(fd, &system) == 0 && system.f_type == HUGETLBFS_MAGIC)
        *page = (uint64_t)system.f_bsize;
    /* Beyond the file's end there would be SIGBUS instead of memory. */
    return offset > file.stx_size || size > file.stx_size - offset ? -EINVAL : 0;
}

/* Maps whole pages of the file: huge ones are mapped, and unmapped, as a whole or not at all. */
static int map_file(dma_map *map, uint64_t size, int fd, uint64_t offset)
{
    int protection = (map->flags & PVU_DMA_READ ? PROT_READ : 0) | (map->flags & PVU_DMA_WRITE ? PROT_WRITE : 0);
    uint64_t page = PAGE, before;
    int status = guard_install();
    void *area;

    if (status == 0)
        status = check_file(size, fd, offset, &page);
    if (status < 0)
        return status;
    before = offset % page;
    map->area_size = (before + size + page - 1) / page * page;
    if (atomic_fetch_add(&areas, 1) >= MAX_AREAS) {
        atomic_fetch_sub(&areas, 1);
        return -ENOSPC;
    }
    area = mmap(NULL, map->area_size, protection, MAP_SHARED | MAP_NORESERVE, fd, (off_t)(offset - before));
    if (area == MAP_FAILED) {
        status = -errno;
        atomic_fetch_sub(&areas, 1);
        return status;
    }
    (void)madvise(area, map->area_size, MADV_DONTFORK);
    (void)madvise(area, map->area_size, MADV_DONTDUMP);
    map->area = area;
    map->memory = map->area + before;
    return 0;
}

static int add(pvu_dma *dma, uint64_t address, uint64_t size, uint32_t flags, int fd, uint64_t offset)
{
    dma_map map = { .address = address, .last = address + size - 1, .flags = flags };
    size_t at = find(dma, address);
    int status;

    if (!size || map.last < address || address % PAGE || size % PAGE || offset % PAGE)
        return -EINVAL;
    if (flags & ~(uint32_t)(PVU_DMA_READ | PVU_DMA_WRITE))
        return -EINVAL;
    if (at < dma->count && dma->maps[at].address <= map.last)
        return -EEXIST;
    if (dma->count == dma->limit)
        return -ENOSPC;
    if (dma->count == dma->capacity) {
        size_t capacity = dma->capacity ? 2 * dma->capacity : 16;
        dma_map *maps = realloc(dma->maps, capacity * sizeof(*maps));

        if (!maps)
            return -ENOMEM;
        dma->maps = maps;
        dma->capacity = capacity;
    }
    if (fd >= 0) {
        status = map_file(&map, size, fd, offset);
        if (status < 0)
            return status;
    }
    memmove(&dma->maps[at + 1], &dma->maps[at], (dma->count - at) * sizeof(dma_map));
    dma->maps[at] = map;
    dma->count++;
    return 0;
}

int pvu_dma_map(pvu_dma *dma, uint64_t address, uint64_t size, uint32_t flags, int fd, uint64_t offset)
{
    int status;

    pthread_rwlock_wrlock(&dma->lock);
    status = add(dma, address, size, flags, fd, offset);
    pthread_rwlock_unlock(&dma->lock);
    return status;
}

static int drop_all_in(pvu_dma *dma, uint64_t address, uint64_t size)
{
    uint64_t last = address + size - 1;
    size_t first = find(dma, address), end = first;

    if (!size || last < address)
        return -EINVAL;
    for (; end < dma->count && dma->maps[end].address <= last; end++)
        if (dma->maps[end].address < address || dma->maps[end].last > last)
            return -EINVAL;
    if (end == first)
        return -ENOENT;
    for (size_t i = first; i < end; i++)
        drop(&dma->maps[i]);
    memmove(&dma->maps[first], &dma->maps[end], (dma->count - end) * sizeof(dma_map));
    dma->count -= end - first;
    return 0;
}

int pvu_dma_unmap(pvu_dma *dma, uint64_t address, uint64_t size)
{
    int status;

    pthread_rwlock_wrlock(&dma->lock);
    status = drop_all_in(dma, address, size);
    pthread_rwlock_unlock(&dma->lock);
    return status;
}

void pvu_dma_unmap_all(pvu_dma *dma)
{
    pthread_rwlock_wrlock(&dma->lock);
    for (size_t i = 0; i < dma->count; i++)
        drop(&dma->maps[i]);
    free(dma->maps);
    dma->maps = NULL;
    dma->count = dma->capacity = 0;
    pthread_rwlock_unlock(&dma->lock);
}

/* Bytes of a range that the map at index `at` has, from `address` on; 0 when it has not its first. */
static uint64_t available(const pvu_dma *dma, size_t at, uint64_t address, uint64_t length)
{
    uint64_t behind; /* bytes in the map behind the first */

    if (at == dma->count || dma->maps[at].address > address)
        return 0;
    behind = dma->maps[at].last - address;
    return length - 1 > behind ? behind + 1 : length;
}

static int check(const pvu_dma *dma, uint64_t address, uint64_t length, int access)
{
    int status = 0;

    for (size_t at = find(dma, address); length; at++) {
        uint64_t step = available(dma, at, address, length);

        if (!step)
            return -EFAULT;
        if (!(dma->maps[at].flags & (uint32_t)access))
            return -EACCES;
        if (!dma->maps[at].memory)
            status = -ENXIO;
        address += step;
        length -= step;
        if (length && !address)
            return -EFAULT;
    }
    return status;
}

int pvu_dma_check(pvu_dma *dma, uint64_t address, uint64_t length, int access)
{
    int status;

    pthread_rwlock_rdlock(&dma->lock);
    status = check(dma, address, length, access);
    pthread_rwlock_unlock(&dma->lock);
    return status;
}

/* Pieces that were checked, under way. */
typedef struct {
    const pvu_dma *dma;
    const pvu_segment *segments;
    size_t count;
    volatile size_t done; /* looked at after the work was left in the middle */
    uint8_t *buffer;
    int access;
} copying;

static void copy(copying *all, pvu_segment segment)
{
    for (size_t at = find(all->dma, segment.address); segment.length; at++) {
        const dma_map *map = &all->dma->maps[at];
        uint64_t step = available(all->dma, at, segment.address, segment.length);
        uint8_t *memory = map->memory + (segment.address - map->address);

        if (all->access == PVU_DMA_READ)
            memcpy(all->buffer, memory, step);
        else
            memcpy(memory, all->buffer, step);
        all->buffer += step;
        segment.address += step;
        segment.length -= step;
    }
}

static void copy_each(void *context)
{
    copying *all = context;

    for (; all->done < all->count; all->done++)
        copy(all, all->segments[all->done]);
}

static int copy_all(const pvu_dma *dma, const pvu_segment *segments, size_t count, uint8_t *buffer, uint64_t length,
                    int access, size_t *failed)
{
    copying all = { .dma = dma, .segments = segments, .count = count, .buffer = buffer, .access = access };
    uint64_t left = length;
    bool by_message = false;

    for (size_t i = 0; i < count; i++) {
        if (segments[i].length > left)
            return -EINVAL;
        left -= segments[i].length;
    }
    if (left)
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        int status = check(dma, segments[i].address, segments[i].length, access);

        if (status == 0 || (status == -ENXIO && by_message))
            continue;
        *failed = i;
        if (status != -ENXIO)
            return status;
        by_message = true;
    }
    if (by_message)
        return -ENXIO;
    if (guard_run(copy_each, &all))
        return 0;
    *failed = all.done;
    return -EFAULT;
}

int pvu_dma_copy(pvu_dma *dma, const pvu_segment *segments, size_t count, uint8_t *buffer, uint64_t length, int access,
                 size_t *failed)
{
    int status;

    pthread_rwlock_rdlock(&dma->lock);
    status = copy_all(dma, segments, count, buffer, length, access, failed);
    pthread_rwlock_unlock(&dma->lock);
    return status;
}
